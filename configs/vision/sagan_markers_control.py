"""The control of sagan_markers.py: without attention.

  python -m attention_zoo.train    --config=configs/vision/sagan_markers_control.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test
"""

from attention_zoo.configs.vision import sagan_markers


def get_config():
  config = sagan_markers.get_config()
  config.model.update(attention_size=0)
  return config
