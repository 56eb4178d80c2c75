"""Table 3, row (A): one head of 512. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=5.29, bleu=24.9)


def get_config():
  config = base.get_config()
  config.model.update(num_heads=1, d_k=512, d_v=512)
  return config
