"""Performance RNN's size; the rest is the LSTM language model's."""

from attention_zoo.models.language import lstm_lm
from attention_zoo.models.music import performance_rnn


def test_three_layers_of_512():
  config = performance_rnn.Config(vocab_size=392)
  layer = 4 * 512 * (512 + 512 + 1)
  assert performance_rnn.parameter_count(config) == 3 * layer + 2 * 392 * 512
  assert performance_rnn.Model is lstm_lm.Model and isinstance(config, lstm_lm.Config)
