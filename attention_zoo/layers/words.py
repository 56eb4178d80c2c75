"""The words of a tagger: a row of a table, and what is made of its characters, side by side; and the recurrent layers
on them.

Letters beside the house's: W characters of a word, U several vectors side by side.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from attention_zoo.layers import characters
from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.linear import Linear
from attention_zoo.layers.recurrent import DTYPES, Bidirectional, Embedding, Layer

UNKNOWN = 3  # the id of a word that the vocabulary lacks, `data/tokenizer.py`
CELLS = {"lstm": 4, "gru": 3}
SPELLINGS = ("cnn", "lstm", "gru", "none")


@dataclasses.dataclass(frozen=True)
class Config:
  """Fields that models of whole words have."""

  vocab_size: int
  d_word: int = 100
  word_length: int = 50  # characters of a word, with its beginning and end
  spelling: str = "lstm"  # what reads the characters: "cnn", "lstm", "gru" or "none"
  d_character: int = 25
  d_spelling: int = 25  # filters, or units in each direction
  filter_width: int = 3  # of "cnn"
  spell_unknown: bool = False  # whether a word without an id has a vector of its characters in place of <unk>'s
  cell: str = "lstm"  # or "gru"
  d_hidden: int = 100  # in each direction
  num_layers: int = 1
  dropout: float = 0.5  # of what each layer reads
  dtype: str = "float32"  # of activations; parameters and states are float32
  matmul_dtype: str = "float32"  # what the operands of linear maps are rounded to; sums are float32

  def __post_init__(self):
    choices = {"spelling": SPELLINGS, "cell": tuple(CELLS), "dtype": DTYPES, "matmul_dtype": DTYPES}
    for field, known in choices.items():
      if getattr(self, field) not in known:
        raise ValueError(f"model.{field} must be one of {known}, got {getattr(self, field)!r}")
    if self.spell_unknown and self.spelling == "none":
      raise ValueError('model.spell_unknown=True needs characters: model.spelling must not be "none"')
    if self.word_length < (least := max(characters.LEAST_WIDTH, self.filter_width)):
      raise ValueError(f"model.word_length must be at least {least}, got {self.word_length}")

  @property
  def d_model(self) -> int:
    """The width of the output."""
    return 2 * self.d_hidden

  @property
  def width_of_spelling(self) -> int:
    return {"cnn": 1, "none": 0}.get(self.spelling, 2) * self.d_spelling


def count_words(config: Config) -> int:
  """The number of the parameters of Words."""
  c = config
  found = c.vocab_size * c.d_word
  if c.spelling == "cnn":
    found += characters.count_cnn(c.d_character, ((c.filter_width, c.d_spelling),))
  elif c.spelling != "none":
    found += characters.count_rnn(c.d_character, c.d_spelling, c.spelling)
  return found + c.spell_unknown * (c.width_of_spelling + 1) * c.d_word


def count_layer(config: Config, width) -> int:
  """The number of the parameters of one layer in both directions, whose input has this width."""
  return 2 * CELLS[config.cell] * config.d_hidden * (width + config.d_hidden + 1)


class Words(nn.Module):
  """The vectors of words BTU, U = d_word and the width of the spelling. The table may begin with published vectors
  (config.data.word_vectors)."""

  config: Config

  def setup(self):
    c = self.config
    self.table = Embedding(c.vocab_size, c.d_word, c.dtype)
    if c.spelling == "cnn":
      filters = ((c.filter_width, c.d_spelling),)
      self.spelling = characters.CharacterCNN(c.d_character, filters, "tanh", c.matmul_dtype)
    elif c.spelling != "none":
      self.spelling = characters.CharacterRNN(c.d_character, c.d_spelling, c.spelling, c.matmul_dtype)
    if c.spell_unknown:
      self.unknown = Linear(
        "BTU,UD->BTD", (c.width_of_spelling, c.d_word), use_bias=True, matmul_dtype=c.matmul_dtype
      )

  def __call__(self, inputs_BT, characters_BTW):
    word_BTD = self.table(inputs_BT)
    if self.config.spelling == "none":
      return word_BTD
    spelt_BTU = self.spelling(characters_BTW).astype(word_BTD.dtype)
    if self.config.spell_unknown:
      word_BTD = jnp.where((inputs_BT == UNKNOWN)[:, :, None], self.unknown(spelt_BTU), word_BTD)
    return jnp.concatenate([word_BTD, spelt_BTU], -1)


class Layers(nn.Module):
  """Recurrent layers in both directions, one on the other, each reading what the one below puts out: BTU, U = 2F.

  width: of the first one's input. more: of what is put beside the output of the first one.
  """

  config: Config
  width: int
  more: int = 0

  def setup(self):
    c = self.config
    widths = [self.width, c.d_model + self.more, *[c.d_model] * c.num_layers][: c.num_layers]
    make = lambda width: lambda: Layer(c.cell, width, c.d_hidden, matmul_dtype=c.matmul_dtype)
    self.layers = [Bidirectional(make(width), name=f"layer_{i}") for i, width in enumerate(widths)]
    self.dropout = Dropout(c.dropout)

  def __call__(self, x_BTU, segments_BT, *, beside_BTU=None, train=False):
    for i, layer in enumerate(self.layers):
      x_BTU = jnp.concatenate(layer(self.dropout(x_BTU, train), segments_BT), -1)
      if i == 0 and beside_BTU is not None:
        x_BTU = jnp.concatenate([x_BTU, beside_BTU], -1)
    return x_BTU


def count_layers(config: Config, width, more=0) -> int:
  """The number of the parameters of Layers."""
  c = config
  widths = [width, c.d_model + more, *[c.d_model] * c.num_layers][: c.num_layers]
  return sum(count_layer(c, width) for width in widths)
