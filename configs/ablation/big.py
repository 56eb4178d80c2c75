"""Table 3, last row: the big model, trained three times as long. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=4.33, bleu=26.4, params=213e6)


def get_config():
  config = base.get_config()
  config.model.update(d_model=1024, d_ff=4096, num_heads=16, dropout=0.3)
  config.train.steps = 300_000
  return config
