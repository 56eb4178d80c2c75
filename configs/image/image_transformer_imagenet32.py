"""The Image Transformer of Parmar et al. 2018 on ImageNet at 32 x 32: local 1D attention, 256-way softmax.

  python -m attention_zoo.train    --config=configs/image/image_transformer_imagenet32.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=dev

The paper: 3.77 bits per dimension on the validation images. Ours: not run. Hardware: TPU v5e:2x4, or another slice of
eight chips. 12 layers of width 512 with 8 heads and dropout 0.1, from memory; the rest is that of
image_transformer_cifar10.py.
"""

from attention_zoo.configs.image import image_transformer_cifar10


def get_config():
  config = image_transformer_cifar10.get_config()
  config.model.update(num_heads=8, d_k=64, d_v=64, dropout=0.1)
  config.data.update(
    source="tfds(name='downsampled_imagenet/32x32')", train_split="train", dev_split="validation", test_split="",
    flip=False,
  )  # fmt: skip
  config.train.update(steps=1_000_000)
  return config
