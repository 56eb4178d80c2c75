"""Table 3, row (B): keys of 16, values as before. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=5.16, bleu=25.1, params=58e6)


def get_config():
  config = base.get_config()
  config.model.d_k = 16
  return config
