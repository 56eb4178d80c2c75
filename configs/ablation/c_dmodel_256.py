"""Table 3, row (C): half the width. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=5.75, bleu=24.5, params=28e6)


def get_config():
  config = base.get_config()
  config.model.update(d_model=256, d_k=32, d_v=32)
  return config
