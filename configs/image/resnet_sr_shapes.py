"""A small ResNet that enlarges the embedded shapes from 4 x 4 to 16 x 16 pixels, each value blind to the others.

  python -m attention_zoo.train    --config=configs/image/resnet_sr_shapes.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test --report

Two CPU cores; no files, no network. Not run to its end.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.image import super_resolution_quickstart


def get_config():
  config = super_resolution_quickstart.get_config()
  config.model = ConfigDict(
    dict(name="resnet_sr", features=16, blocks=(2, 1, 1), dtype="float32", matmul_dtype="float32")
  ).lock()
  config.optimizer.update(
    schedule="cosine(decay_steps=600, end_factor=0.1)", learning_rate=2e-3, warmup_steps=50, d_model=16, clip_norm=1.0
  )
  config.train.update(steps=600)
  return config
