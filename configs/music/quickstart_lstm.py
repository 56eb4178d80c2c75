"""A small Performance RNN on the Bach chorales that music21 brings: quickstart.py's counterpart.

  python -m attention_zoo.train --config=configs/music/quickstart_lstm.py --workdir=DIR
"""

from attention_zoo.configs.music import performance_rnn, quickstart


def get_config():
  config = quickstart.get_config()
  config.model = performance_rnn.get_config().model
  config.model.update(d_model=96, d_hidden=192, num_layers=3, dtype="float32", matmul_dtype="float32")
  config.data.update(batching="contiguous", row_length=64)
  config.optimizer.d_model = 96
  return config
