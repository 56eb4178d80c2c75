"""Table 3, row (A): 4 heads of 128. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=5.00, bleu=25.5)


def get_config():
  config = base.get_config()
  config.model.update(num_heads=4, d_k=128, d_v=128)
  return config
