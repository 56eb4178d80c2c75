"""The control of nonlocal_markers.py: as many parameters, in a block that sees its own position alone.

  python -m attention_zoo.train    --config=configs/vision/nonlocal_markers_control.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test
"""

from attention_zoo.configs.vision import nonlocal_markers


def get_config():
  config = nonlocal_markers.get_config()
  config.model.update(form="local")
  return config
