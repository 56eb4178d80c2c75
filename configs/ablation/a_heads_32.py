"""Table 3, row (A): 32 heads of 16. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=5.01, bleu=25.4)


def get_config():
  config = base.get_config()
  config.model.update(num_heads=32, d_k=16, d_v=16)
  return config
