"""PixelRNN with Diagonal BiLSTMs (van den Oord et al. 2016a, arXiv:1601.06759) on CIFAR-10: 3.00 bits a dimension.

  python -m attention_zoo.train    --config=configs/image/pixel_rnn_cifar10.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

This is of the test split. The paper takes RMSProp and batches of 16; Adam is here.

Hardware and ours: not run. TFDS' cifar10 has no dev split: the last 5,000 training images are it.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.image import factorised_shapes


def get_config():
  config = factorised_shapes.get_config()
  config.model = ConfigDict(
    dict(
      name="pixel_rnn",
      layer="diagonal_bilstm",
      num_layers=12,
      d_hidden=128,
      first_kernel_size=7,
      output_features=1024,
      dtype="float32",
      matmul_dtype="float32",
    )  # fmt: skip
  ).lock()
  config.data.update(
    source="tfds(name='cifar10')", train_split="train[:45000]", dev_split="train[45000:]", batch_size=16
  )
  config.optimizer.update(schedule="constant", learning_rate=1e-3, warmup_steps=1000, d_model=128, clip_norm=1.0)
  config.train.update(steps=300_000, log_every=500, eval_every=10_000, checkpoint_every=5000)
  return config
