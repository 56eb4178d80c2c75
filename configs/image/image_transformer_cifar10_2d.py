"""The Image Transformer of Parmar et al. 2018 on CIFAR-10 with local 2D attention, in block-raster order.

  python -m attention_zoo.train --config=configs/image/image_transformer_cifar10_2d.py --workdir=DIR

The paper gives one figure for CIFAR-10, 2.90 bits per dimension, of local 1D attention. Ours: not run. Hardware: TPU
v5e:2x4, or another slice of eight chips. Tiles of 8 x 8 pixels and eight pixels of memory above and on both sides:
these sizes are ours, the others those of image_transformer_cifar10.py.
"""

from attention_zoo.configs.image import image_transformer_cifar10


def get_config():
  config = image_transformer_cifar10.get_config()
  config.model.attention = "local_2d(tile=(8, 8), flange=(8, 8))"
  return config
