"""Table 3, row (D): no label smoothing. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=4.67, bleu=25.3)


def get_config():
  config = base.get_config()
  config.train.label_smoothing = 0.0
  return config
