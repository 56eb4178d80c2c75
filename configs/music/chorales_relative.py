"""Music Transformer on Bach's chorales, relative attention by position alone: Huang et al. 2018 (arXiv:1809.04281).

Commands, data and sizes as in chorales_transformer.py. Paper: 0.357 nats a token on the validation split (from
memory). Ours: not run. Hardware: one accelerator of 16 GB.
"""

from attention_zoo.configs.music import chorales_transformer, music_transformer


def get_config():
  config = chorales_transformer.get_config()
  music = music_transformer.get_config().model
  music.update({name: config.model[name] for name in ("d_model", "d_ff", "d_k", "d_v", "num_layers", "dropout")})
  music.attention = "music(max_distance=512)"
  config.model = music
  config.optimizer.d_model = music.d_model
  return config
