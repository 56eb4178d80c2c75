"""Table 3, row (C): twice the width. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=4.66, bleu=26.0, params=168e6)


def get_config():
  config = base.get_config()
  config.model.update(d_model=1024, d_k=128, d_v=128)
  return config
