"""Table 3, row (B): keys of 32, values as before. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=5.01, bleu=25.4, params=60e6)


def get_config():
  config = base.get_config()
  config.model.d_k = 32
  return config
