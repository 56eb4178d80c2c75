"""Table 3, row (D): label smoothing 0.2. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=5.47, bleu=25.7)


def get_config():
  config = base.get_config()
  config.train.label_smoothing = 0.2
  return config
