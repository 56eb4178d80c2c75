"""A small Transformer with absolute positions on the Bach chorales that music21 brings: quickstart.py's counterpart.

  python -m attention_zoo.train --config=configs/music/quickstart_transformer.py --workdir=DIR
"""

from attention_zoo.configs.music import chorales_transformer, quickstart


def get_config():
  config = quickstart.get_config()
  plain = chorales_transformer.get_config().model
  names = ("d_model", "d_ff", "num_heads", "d_k", "d_v", "num_layers", "dropout", "dtype", "matmul_dtype")
  plain.update({name: config.model[name] for name in names})
  config.model = plain
  config.optimizer.d_model = plain.d_model
  return config
