"""Gated PixelCNN (van den Oord et al. 2016b, arXiv:1606.05328) on CIFAR-10: 3.03 bits a dimension.

  python -m attention_zoo.train    --config=configs/image/gated_pixelcnn_cifar10.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

The sizes are those of the paper's model for ImageNet 32 x 32 (20 layers of 384 features, from memory); of the one for
CIFAR-10 it says less, and nothing of its optimizer.

Hardware and ours: not run. TFDS' cifar10 has no dev split: the last 5,000 training images are it.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.image import factorised_shapes


def get_config():
  config = factorised_shapes.get_config()
  config.model = ConfigDict(
    dict(
      name="gated_pixelcnn",
      num_layers=20,
      features=384,
      kernel_size=5,
      first_kernel_size=7,
      output_features=1024,
      dtype="float32",
      matmul_dtype="float32",
    )  # fmt: skip
  ).lock()
  config.data.update(
    source="tfds(name='cifar10')", train_split="train[:45000]", dev_split="train[45000:]", batch_size=128, flip=True
  )
  config.optimizer.update(schedule="constant", learning_rate=1e-3, warmup_steps=1000, d_model=384, clip_norm=1.0)
  config.train.update(steps=200_000, log_every=500, eval_every=5000, checkpoint_every=5000, ema=0.999)
  return config
