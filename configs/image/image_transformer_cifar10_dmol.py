"""The Image Transformer of Parmar et al. 2018 on CIFAR-10 with a mixture of ten discretised logistics for each pixel.

  python -m attention_zoo.train --config=configs/image/image_transformer_cifar10_dmol.py --workdir=DIR

The paper: 2.90 bits per dimension on test. Ours: not run. Hardware: TPU v5e:2x4, or another slice of eight chips. The
positions are pixels, a third as many; the sizes are those of image_transformer_cifar10.py.
"""

from attention_zoo.configs.image import image_transformer_cifar10


def get_config():
  config = image_transformer_cifar10.get_config()
  config.model.head = "dmol"
  return config
