"""PixelSNAIL (Chen et al. 2018, arXiv:1712.09763) on CIFAR-10: 2.85 bits a dimension.

  python -m attention_zoo.train    --config=configs/image/pixel_snail_cifar10.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Its optimizer is PixelCNN++'s (from memory).

Hardware and ours: not run. TFDS' cifar10 has no dev split: the last 5,000 training images are it.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.image import factorised_shapes


def get_config():
  config = factorised_shapes.get_config()
  config.model = ConfigDict(
    dict(
      name="pixel_snail",
      features=256,
      num_blocks=12,
      num_layers=4,
      d_k=16,
      d_v=128,
      num_components=10,
      dropout=0.5,
      dtype="float32",
      matmul_dtype="float32",
    )  # fmt: skip
  ).lock()
  config.data.update(
    source="tfds(name='cifar10')", train_split="train[:45000]", dev_split="train[45000:]", batch_size=64, flip=True
  )
  config.optimizer.update(
    name="adam(b1=0.95, b2=0.9995)",
    schedule="exponential(decay_steps=1, decay_rate=0.999995)",
    learning_rate=1e-3,
    warmup_steps=1,
    d_model=256,
  )
  config.train.update(steps=1_000_000, log_every=500, eval_every=10_000, checkpoint_every=5000, ema=0.9995)
  return config
