"""PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517) on CIFAR-10: 2.92 bits a dimension.

  python -m attention_zoo.train    --config=configs/image/pixelcnn_pp_cifar10.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

The learning rate falls by a factor of 0.999995 a step, and parameters are averaged with 0.9995, as in the published
code.

Hardware and ours: not run. TFDS' cifar10 has no dev split: the last 5,000 training images are it.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.image import factorised_shapes


def get_config():
  config = factorised_shapes.get_config()
  config.model = ConfigDict(
    dict(
      name="pixelcnn_pp",
      features=160,
      num_blocks=5,
      num_levels=3,
      num_components=10,
      dropout=0.5,
      dtype="float32",
      matmul_dtype="float32",
    )  # fmt: skip
  ).lock()
  config.data.update(
    source="tfds(name='cifar10')", train_split="train[:45000]", dev_split="train[45000:]", batch_size=96, flip=True
  )
  config.optimizer.update(
    name="adam(b1=0.95, b2=0.9995)",
    schedule="exponential(decay_steps=1, decay_rate=0.999995)",
    learning_rate=1e-3,
    warmup_steps=1,
    d_model=160,
  )
  config.train.update(steps=2_000_000, log_every=500, eval_every=10_000, checkpoint_every=5000, ema=0.9995)
  return config
