"""Table 3, row (A): 16 heads of 32. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=4.91, bleu=25.8)


def get_config():
  config = base.get_config()
  config.model.update(num_heads=16, d_k=32, d_v=32)
  return config
