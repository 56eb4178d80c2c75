"""A small srez that enlarges the embedded shapes from 4 x 4 to 16 x 16 pixels, against a discriminator.

  python -m attention_zoo.train    --config=configs/image/srez_gan_shapes.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test --report

Two CPU cores; no files, no network. Not run to its end.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.image import super_resolution_quickstart


def get_config():
  config = super_resolution_quickstart.get_config()
  config.task = "super_resolution_gan"
  config.model = ConfigDict(
    dict(
      name="srez_gan", num_blocks=1, generator_widths=(32, 24, 16), discriminator_widths=(16, 32, 64),
      dtype="float32", matmul_dtype="float32",
    )
  ).lock()  # fmt: skip
  config.optimizer.update(
    name="adam(b1=0.5, b2=0.999, eps=1e-8)", schedule="constant", learning_rate=5e-4, warmup_steps=1, d_model=16,
    clip_norm=0.0,
  )  # fmt: skip
  config.train.update(steps=2000)
  with config.unlocked():
    config.train.update(l1_weight=0.9, low_noise=0.03)
    config.decode = ConfigDict(dict(batch_size=64))
  return config
