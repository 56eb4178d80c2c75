"""Table 3, row (D): dropout 0.2. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=4.95, bleu=25.5)


def get_config():
  config = base.get_config()
  config.model.dropout = 0.2
  return config
