"""A small Image Transformer that enlarges the embedded shapes from 4 x 4 to 16 x 16 pixels: minutes on two CPU cores.

  python -m attention_zoo.train    --config=configs/image/super_resolution_quickstart.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test --report
"""

from attention_zoo.configs.image import quickstart


def get_config():
  config = quickstart.get_config()
  config.task = "super_resolution"
  with config.unlocked():
    config.model.update(name="image_transformer_sr", num_encoder_layers=1)
    config.data.update(num_classes=0, low_size=4)
  return config
