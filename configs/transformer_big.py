"""Transformer big, WMT14 English-German (Table 2): 28.4 BLEU in the paper; ours: not run.

  python -m attention_zoo.train    --config=configs/transformer_big.py --workdir=DIR
  python -m attention_zoo.average  --workdir=DIR --last=20
  python -m attention_zoo.evaluate --workdir=DIR --checkpoint=average --split=test

Hardware: 8 P100 for 3.5 days in the paper.
"""

from attention_zoo.configs import transformer_base


def get_config():
  config = transformer_base.get_config()
  config.model.update(d_model=1024, d_ff=4096, num_heads=16, dropout=0.3)
  config.train.update(steps=300_000, keep=20)
  return config
