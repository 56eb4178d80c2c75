"""Table 3, row (C): half the inner width. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=5.12, bleu=25.4, params=53e6)


def get_config():
  config = base.get_config()
  config.model.d_ff = 1024
  return config
