"""A small SAGAN on embedded pictures of two far markers of one colour.

  python -m attention_zoo.train    --config=configs/vision/sagan_markers.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

"distant drawn" of the evaluation is how well the two markers of drawn images agree; 1 in real ones. Without attention:
sagan_markers_control.py. Two CPU cores; no files, no network. Not run to its end.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.image import factorised_shapes


def get_config():
  config = factorised_shapes.get_config()
  config.task = "gan"
  config.model = ConfigDict(
    dict(name="sagan", features=16, d_noise=32, attention_size=16, dtype="float32", matmul_dtype="float32")
  ).lock()
  config.data.update(source="markers(train=5000, dev=200, test=500, only='same')", size=32, batch_size=32)
  config.optimizer.update(
    name="adam(b1=0.0, b2=0.9)", schedule="constant", learning_rate=4e-4, warmup_steps=1, d_model=16
  )
  config.train.update(steps=2000, learning_rate_factors=(("^generator/", 0.25),), ema=0.99)
  with config.unlocked():
    config.decode = ConfigDict(dict(batch_size=64))
  return config
