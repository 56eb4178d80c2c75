"""The bidirectional language model of ELMo: Peters et al. 2018, "Deep contextualized word representations"
(arXiv:1802.05365), section 3.1; its words by the character CNN of Kim et al. 2016.

One LSTM reads a text from left to right and predicts the next word, another from right to left the word before. They
share what makes a vector of a word and the output, and nothing else. The task is bidirectional_language_modeling.

| what            | the paper and its code                      | here                                                 |
|-----------------|---------------------------------------------|------------------------------------------------------|
| words           | 2,048 filters, 2 highways, 512 wide         | the same                                             |
| layers          | 2 LSTMs, 4,096 units projected to 512, the  | the same                                             |
|                 | second added to what it reads               |                                                      |
| clipping        | cells and projections to +-3                | none: an option of the optimizer clips gradients     |
| output          | 793,471 words, sampled softmax              | the vocabulary's, the whole softmax; no bias         |
| dropout         | 0.1 on what each layer reads                | the same, rounded to 1/65,536                        |
| state           | handed from batch to batch                  | sentences by themselves, several in a row            |
| first values    | scaled by fans; forget bias 1               | Glorot-uniform; forget bias 1                        |

Letters beside the house's: W characters of a word, F hidden units, U both directions side by side.
"""

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp

from attention_zoo.layers import characters
from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.linear import Linear, logits
from attention_zoo.layers.recurrent import DTYPES, Embedding, Layer, begins

BATCH = ("characters", "segments", "positions")

FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))


@dataclasses.dataclass(frozen=True)
class Config:
  """The paper's model, but for the vocabulary of the output."""

  vocab_size: int
  word_length: int = 50  # characters of a word, with its beginning and end
  d_character: int = 16
  filters: tuple = FILTERS  # ((width, number), ..)
  num_highway: int = 2
  d_model: int = 512
  d_hidden: int = 4096
  num_layers: int = 2
  dropout: float = 0.1
  dtype: str = "float32"  # of activations; parameters and states are float32
  matmul_dtype: str = "float32"  # what the operands of linear maps are rounded to; sums are float32

  def __post_init__(self):
    check_filters("model.filters", self.filters, self.word_length)
    for field in ("dtype", "matmul_dtype"):
      if getattr(self, field) not in DTYPES:
        raise ValueError(f"model.{field} must be one of {DTYPES}, got {getattr(self, field)!r}")


def check_filters(name, filters, word_length):
  """Raises ValueError unless they are pairs of whole numbers above 0, none wider than a word has room for."""
  pairs = [pair for pair in filters if isinstance(pair, (tuple, list)) and len(pair) == 2]
  if not pairs or len(pairs) != len(filters) or not all(type(n) is int and n > 0 for pair in pairs for n in pair):
    raise ValueError(f"{name} must be pairs (width, number), got {filters!r:.200}")
  if (widest := max(width for width, _ in pairs)) > word_length:
    raise ValueError(f"{name} has a filter over {widest} characters, and model.word_length = {word_length}")
  if word_length < characters.LEAST_WIDTH:
    raise ValueError(f"model.word_length must be at least {characters.LEAST_WIDTH}, got {word_length}")


def count_core(config: Config) -> int:
  """Parameters without those of the output."""
  c, units = config, sum(number for _, number in config.filters)
  words = characters.count_cnn(c.d_character, c.filters) + c.num_highway * characters.count_highway(units)
  layer = 4 * c.d_hidden * (2 * c.d_model + 1) + c.d_hidden * c.d_model
  return words + (units + 1) * c.d_model + 2 * c.num_layers * layer


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  return count_core(config) + config.vocab_size * config.d_model


def small() -> Config:
  """For tests."""
  return Config(
    vocab_size=11, word_length=5, d_character=3, filters=((1, 2), (2, 3)), num_highway=1, d_model=4, d_hidden=6,
    dropout=0.0,
  )  # fmt: skip


def forget_gates_open(key, shape, dtype=jnp.float32):
  F = shape[0] // 4
  return jnp.zeros(shape, dtype).at[F : 2 * F].set(1.0)


class Core(nn.Module):
  """All but the output: what others take from a trained model."""

  config: Config

  def setup(self):
    c = self.config
    units = sum(number for _, number in c.filters)
    filters = tuple((width, number) for width, number in c.filters)
    self.spelling = characters.CharacterCNN(c.d_character, filters, "relu", c.matmul_dtype)
    self.highways = [characters.Highway(units, c.matmul_dtype, name=f"highway_{i}") for i in range(c.num_highway)]
    self.projection = Linear("BTF,FD->BTD", (units, c.d_model), use_bias=True, matmul_dtype=c.matmul_dtype)
    layer = functools.partial(
      Layer, "lstm", c.d_model, c.d_hidden, d_output=c.d_model, matmul_dtype=c.matmul_dtype,
      bias_init=forget_gates_open,
    )  # fmt: skip
    self.forward = [layer(name=f"forward_{i}") for i in range(c.num_layers)]
    self.backward = [layer(name=f"backward_{i}") for i in range(c.num_layers)]
    self.dropout = Dropout(c.dropout)

  def words(self, characters_BTW):
    """The vectors of words, BTD, which know nothing of their neighbours."""
    x_BTF = self.spelling(characters_BTW)
    for highway in self.highways:
      x_BTF = highway(x_BTF)
    return self.projection(x_BTF).astype(self.config.dtype)

  def read(self, x_BTD, segments_BT, *, reverse=False, train=False):
    """The output of each layer of one direction, a list of BTD. Segments do not see each other."""
    found = []
    for i, layer in enumerate(self.backward if reverse else self.forward):
      y_BTD, _ = layer(self.dropout(x_BTD, train), reset_BT=begins(segments_BT, reverse), reverse=reverse)
      x_BTD = y_BTD + x_BTD if i else y_BTD
      found.append(x_BTD)
    return found

  def __call__(self, characters_BTW, segments_BT, *, train=False):
    """What both directions make of each word that they have read, a list of BTU: its vector, twice, then the output of
    each layer. Rows are texts from <s> to </s>."""
    x_BTD = self.words(characters_BTW)
    both = [(x_BTD, x_BTD)]
    directions = [self.read(x_BTD, segments_BT, reverse=reverse, train=train) for reverse in (False, True)]
    both += zip(*directions, strict=True)
    return [jnp.concatenate(pair, -1) for pair in both]


class BiLM(nn.Module):
  """Characters BTW, segments and positions BT, all int32: of the words to predict, each text ending with </s>."""

  config: Config

  def setup(self):
    c = self.config
    self.core = Core(c)
    self.output = Embedding(c.vocab_size, c.d_model, c.dtype)

  def hidden(self, batch, *, train=False):
    """(forward BTD, from which each word is predicted after those before it; backward BTD, from which the one before
    each is, after those behind)."""
    characters_BTW, segments_BT = batch["characters"], batch["segments"]
    begin_11W = characters.begin_of_text(characters_BTW.shape[2])[None, None]
    x_BTD, begin_11D = self.core.words(characters_BTW), self.core.words(begin_11W)
    before_BTD = jnp.pad(x_BTD[:, :-1], ((0, 0), (1, 0), (0, 0)))
    before_BTD = jnp.where((batch["positions"] == 0)[:, :, None], begin_11D, before_BTD)
    *_, forward_BTD = self.core.read(before_BTD, segments_BT, train=train)
    *_, backward_BTD = self.core.read(x_BTD, segments_BT, reverse=True, train=train)
    return forward_BTD, backward_BTD

  def __call__(self, batch, *, train=False):
    """Logits of the word at each place and of the one before it, float32 2BTV."""
    both = self.hidden(batch, train=train)
    return jnp.stack([logits(self.config, x_BTD, self.output.table_VD) for x_BTD in both])


Model = BiLM


def output_table(params):
  """The table_VD of both outputs, for losses that do not keep the logits (`training/loss.py`)."""
  return params["output"]["table_VD"]
