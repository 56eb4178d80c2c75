"""A small classifier with a non-local block, on embedded pictures whose class only far parts together can tell.

  python -m attention_zoo.train    --config=configs/vision/nonlocal_markers.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Without the block, a position sees 7 x 7 pixels of 24 x 24: nonlocal_markers_control.py.
Two CPU cores; no files, no network.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.image import factorised_shapes


def get_config():
  config = factorised_shapes.get_config()
  config.task = "image_classification"
  config.model = ConfigDict(
    dict(
      name="nonlocal_net", form="embedded_gaussian", widths=(16,), blocks=(2,), strides=(1,), nonlocal_blocks=(1,),
      expansion=2, stem_kernel_size=3, stem_stride=1, pool=1, dropout=0.0, dtype="float32", matmul_dtype="float32",
    )  # fmt: skip
  ).lock()
  config.data.update(source="markers(train=5000, dev=500, test=500)", size=24, num_classes=2, batch_size=32)
  config.optimizer.update(
    schedule="cosine(decay_steps=600, end_factor=0.1)", learning_rate=3e-3, warmup_steps=50, d_model=32, clip_norm=1.0
  )
  config.train.update(steps=600)
  with config.unlocked():
    config.decode = ConfigDict(dict(batch_size=100))
  return config
