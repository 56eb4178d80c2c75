"""The ablation grid: Table 3 of "Attention Is All You Need" (Vaswani et al. 2017), one file a row; this is its base.

  python -m launch.ablation run --rows=all --workdir=DIR       all rows, then `report --workdir=DIR`

or a single row by hand:

  python -m attention_zoo.train    --config=configs/ablation/base.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --checkpoint=latest --split=dev

As in the paper: English-German, measured on the dev set newstest2013 with perplexity per word piece, beam 4 and
alpha 0.6, at the last step and without averaging checkpoints.

PAPER, in each file, holds what the paper printed: `params` only where its cell is filled; an empty one means as base.
Hardware: 8 P100 for 12 hours a row in the paper. Ours: not run; a shrunken grid is in
benchmarks/ablation.
"""

from attention_zoo.configs import transformer_base

PAPER = dict(perplexity=4.92, bleu=25.8, params=65e6)


def get_config():
  config = transformer_base.get_config()
  config.train.keep = 2  # nothing is averaged
  return config
