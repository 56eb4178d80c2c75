"""Table 3, row (C): twice the inner width. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=4.75, bleu=26.2, params=90e6)


def get_config():
  config = base.get_config()
  config.model.d_ff = 4096
  return config
