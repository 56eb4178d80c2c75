"""A small ByteNet on the embedded phrasebook, English-German: no files, no network.

  python -m attention_zoo.train    --config=configs/translation/bytenet_phrasebook.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Kalchbrenner et al. 2016 (arXiv:1610.10099) have 23.75 BLEU on WMT14 English-German. Here two sets of blocks with
128 channels inside. Hardware: two CPU cores. Ours: not run.
"""

import ml_collections

from attention_zoo.configs import quickstart


def get_config():
  config = quickstart.get_config()
  config.model = ml_collections.ConfigDict(
    dict(
      name="bytenet", d=128, num_sets=2, max_rate=8, kernel_size=3, residual="relu", a=1.2, b=0.0, dropout=0.1,
      norm_epsilon=1e-6, dtype="float32", matmul_dtype="float32",
    )  # fmt: skip
  ).lock()
  config.optimizer.update(
    name="adam(b1=0.9, b2=0.98)", schedule="cosine(decay_steps=350, end_factor=0.05)", learning_rate=2e-3,
    warmup_steps=50, clip_norm=1.0,
  )  # fmt: skip
  config.train.update(steps=400, eval_every=100, checkpoint_every=20)
  return config
