"""Performance RNN: Simon and Oore 2017, "Performance RNN: Generating Music with Expressive Timing and Dynamics".

Three LSTM layers on the events of a performance, `models/language/lstm_lm.py` with other sizes.

| what     | the paper (Magenta)              | here                                                                 |
|----------|----------------------------------|----------------------------------------------------------------------|
| events   | 388, one-hot                     | the same, `data/events.py`; embedded, which is a one-hot's linear map |
| layers   | three of 512 units               | the same                                                             |
| output   | a linear map with biases         | without biases; tied=True: the embedding's table                     |
| rows     | about 30 s of music, from zeros  | the same, or the state handed on: config.data.batching="contiguous"  |
| dropout  | none                             | the same                                                             |
"""

import dataclasses

from attention_zoo.models.language import lstm_lm
from attention_zoo.models.language.lstm_lm import BATCH, Model, carry, decoding, output_table, parameter_count

__all__ = ["BATCH", "Config", "Model", "carry", "decoding", "output_table", "parameter_count", "small"]


@dataclasses.dataclass(frozen=True)
class Config(lstm_lm.Config):
  """The paper's, but for the vocabulary."""

  d_model: int = 512
  d_hidden: int = 512
  num_layers: int = 3
  dropout: float = 0.0


def small() -> Config:
  """For tests."""
  return Config(vocab_size=11, d_model=8, d_hidden=6)
