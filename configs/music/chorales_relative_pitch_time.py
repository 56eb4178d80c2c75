"""Music Transformer on Bach's chorales, with relative pitch and time besides: Huang et al. 2018 (arXiv:1809.04281).

Commands, data and sizes as in chorales_transformer.py. Paper: 0.335 nats a token on the validation split. Ours: not
run. Hardware: one accelerator of 16 GB.
"""

from attention_zoo.configs.music import chorales_relative


def get_config():
  config = chorales_relative.get_config()
  config.model.pitch_and_time = True
  return config
