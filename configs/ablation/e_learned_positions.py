"""Table 3, row (E): learned positions instead of sinusoids. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=4.92, bleu=25.7)


def get_config():
  config = base.get_config()
  config.model.positions = "learned"
  return config
