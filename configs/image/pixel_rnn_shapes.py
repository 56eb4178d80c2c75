"""A small PixelRNN with Diagonal BiLSTMs on the embedded shapes, 16 x 16.

  python -m attention_zoo.train  --config=configs/image/pixel_rnn_shapes.py --workdir=DIR
  python -m attention_zoo.sample --workdir=DIR --output=grid.png

Two CPU cores; no files, no network. Not run to its end.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.image import gated_pixelcnn_shapes


def get_config():
  config = gated_pixelcnn_shapes.get_config()
  config.model = ConfigDict(
    dict(
      name="pixel_rnn",
      layer="diagonal_bilstm",
      num_layers=2,
      d_hidden=24,
      first_kernel_size=5,
      output_features=48,
      dtype="float32",
      matmul_dtype="float32",
    )  # fmt: skip
  ).lock()
  config.data.num_classes = 0
  config.optimizer.d_model = 24
  return config
