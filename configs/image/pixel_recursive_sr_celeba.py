"""Pixel Recursive Super Resolution (Dahl et al. 2017, arXiv:1702.00783) on CelebA, from 8 x 8 to 32 x 32.

  python -m attention_zoo.train  --config=configs/image/pixel_recursive_sr_celeba.py --workdir=DIR
  python -m attention_zoo.sample --workdir=DIR --image=small.png --num_samples=8 --output=grid.png

Of people who are shown its images, 11.0 % are fooled into taking them for photographs (at temperature 1.0).
Sizes are from memory, and so is the optimizer. Hardware and ours: not run.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.image import image_transformer_celeba_sr


def get_config():
  config = image_transformer_celeba_sr.get_config()
  config.model = ConfigDict(
    dict(
      name="pixel_recursive_sr",
      num_layers=20,
      features=32,
      kernel_size=5,
      first_kernel_size=7,
      output_features=64,
      blocks=(6, 4, 2),
      dtype="float32",
      matmul_dtype="float32",
    )
  ).lock()
  config.optimizer.update(schedule="constant", learning_rate=4e-4, warmup_steps=1000, d_model=32)
  return config
