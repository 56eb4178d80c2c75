"""Table 3, row (D): no dropout. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=5.77, bleu=24.6)


def get_config():
  config = base.get_config()
  config.model.dropout = 0.0
  return config
