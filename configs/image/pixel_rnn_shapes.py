"""A small PixelRNN with Diagonal BiLSTMs on the embedded shapes, 16 x 16.

  python -m attention_zoo.train  --config=configs/image/pixel_rnn_shapes.py --workdir=DIR
  python -m attention_zoo.sample --workdir=DIR --output=grid.png

Two CPU cores; no files, no network. Not run to its end.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.image import factorised_shapes


def get_config():
  config = factorised_shapes.get_config()
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
  config.data.update(source="shapes(train=5000, dev=200, test=500)", size=16, batch_size=16)
  config.optimizer.update(
    schedule="cosine(decay_steps=600, end_factor=0.1)", learning_rate=2e-3, d_model=24, clip_norm=1.0
  )
  config.train.update(steps=600, dev_samples=4)
  return config
