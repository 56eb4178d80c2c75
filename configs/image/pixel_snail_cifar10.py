"""PixelSNAIL (Chen et al. 2018, arXiv:1712.09763) on CIFAR-10: 2.85 bits a dimension.

  python -m attention_zoo.train    --config=configs/image/pixel_snail_cifar10.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Its optimizer is PixelCNN++'s (from memory).

Hardware and ours: not run. TFDS' cifar10 has no dev split: the last 5,000 training images are it.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.image import pixelcnn_pp_cifar10


def get_config():
  config = pixelcnn_pp_cifar10.get_config()
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
  config.data.batch_size = 64
  config.optimizer.d_model = 256
  config.train.steps = 1_000_000
  return config
