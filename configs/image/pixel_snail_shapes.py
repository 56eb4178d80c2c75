"""A small class-conditional PixelSNAIL on the embedded shapes, 16 x 16.

  python -m attention_zoo.train  --config=configs/image/pixel_snail_shapes.py --workdir=DIR
  python -m attention_zoo.sample --workdir=DIR --output=grid.png

Two CPU cores; no files, no network. Not run to its end.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.image import gated_pixelcnn_shapes


def get_config():
  config = gated_pixelcnn_shapes.get_config()
  config.model = ConfigDict(
    dict(
      name="pixel_snail",
      features=24,
      num_blocks=2,
      num_layers=1,
      d_k=8,
      d_v=12,
      num_components=5,
      dropout=0.0,
      dtype="float32",
      matmul_dtype="float32",
    )  # fmt: skip
  ).lock()
  config.optimizer.d_model = 24
  return config
