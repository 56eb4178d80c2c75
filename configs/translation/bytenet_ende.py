"""ByteNet, WMT14 English-German: Kalchbrenner et al. 2016, arXiv:1610.10099.

  python -m attention_zoo.train    --config=configs/translation/bytenet_ende.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Paper: 23.75 BLEU on newstest2014, from characters to characters, with a beam of 12. Hardware: not stated there.
Ours: not run. 8,192 pieces stand in for its characters; the paper says neither how many steps it took nor how large
its batches were.
What is said of the paper is from memory.
"""

import ml_collections

from attention_zoo.configs import transformer_base


def get_config():
  config = transformer_base.get_config()
  # Another model has other fields, so that the group is replaced as a whole.
  config.model = ml_collections.ConfigDict(
    dict(
      name="bytenet", d=800, num_sets=6, max_rate=16, kernel_size=3,
      residual="relu",  # or "multiplicative", the paper's for language models
      a=1.2, b=0.0,  # the target is taken to have at most a s + b tokens, s of the source
      dropout=0.0, norm_epsilon=1e-6, dtype="bfloat16", matmul_dtype="bfloat16",
    )  # fmt: skip
  ).lock()
  config.data.update(vocab_size=8192)
  config.optimizer.update(
    name="adam", schedule="constant", learning_rate=3e-4, warmup_steps=0
  )
  config.train.update(label_smoothing=0.0)
  config.decode.update(beam_size=12, alpha=0.0)
  return config
