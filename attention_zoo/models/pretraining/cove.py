"""CoVe: McCann, Bradbury, Xiong, Socher 2017, "Learned in Translation: Contextualized Word Vectors" (arXiv:1708.00107):
the encoder of a trained attentional translation model gives vectors of words in their sentence,

  CoVe(w) = encoder(embedding(w)),   and a classifier reads [embedding(w); CoVe(w)].

The translation model is `bahdanau`, whose embedding and encoder config.train.init_from takes, with its vocabulary; they
bear the same names here. With encoder_tuned=False they stay as they were.

| what              | the paper                                    | here                                              |
|-------------------|----------------------------------------------|---------------------------------------------------|
| translation model | two biLSTMs of 300 units each way, Luong's   | RNNsearch: one biGRU, its own attention           |
|                   | attention                                    |                                                   |
| words             | GloVe's 300 numbers, which are not tuned     | pieces of words, learnt by translating            |
| classifier        | biattentive: ReLU, biLSTM, biattention with  | a biLSTM; the head is the task's, with            |
|                   | itself, biLSTM, four poolings, maxout        | config.head.pooling = "concat"                    |
| start of a text   | none                                         | <s>, which the encoder has not seen               |

The paper has 90.3 % on SST-2 with CoVe of its largest translation model and vectors of characters.

Letters beside the house's: U several vectors side by side.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.recurrent import DTYPES, Bidirectional, Embedding, Layer

BATCH = ("inputs", "segments")


@dataclasses.dataclass(frozen=True)
class Config:
  """On RNNsearch's sizes: d_embedding and d_encoder are its d_model and d_hidden."""

  vocab_size: int
  d_embedding: int = 620
  d_encoder: int = 1000
  encoder_tuned: bool = False
  d_hidden: int = 300  # of the biLSTM of the classifier, in each direction
  dropout: float = 0.2
  dtype: str = "float32"  # of activations; parameters and states are float32
  matmul_dtype: str = "float32"  # what the operands of linear maps are rounded to; sums are float32

  def __post_init__(self):
    for field in ("dtype", "matmul_dtype"):
      if getattr(self, field) not in DTYPES:
        raise ValueError(f"model.{field} must be one of {DTYPES}, got {getattr(self, field)!r}")

  @property
  def d_model(self) -> int:
    """The width of the output."""
    return 2 * self.d_hidden


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c = config
  layer = lambda gates, width, units: 2 * gates * units * (width + units + 1)
  reader = layer(4, c.d_embedding + 2 * c.d_encoder, c.d_hidden)
  return c.vocab_size * c.d_embedding + layer(3, c.d_embedding, c.d_encoder) + reader


def small() -> Config:
  """For tests."""
  return Config(vocab_size=11, d_embedding=6, d_encoder=4, encoder_tuned=True, d_hidden=3, dropout=0.0)


def learning_rate_factor(config: Config, path: str, step):
  """0 for what translation has learnt, where it is not tuned."""
  taken = path.startswith(("source_embedding/", "encoder/"))
  return 0.0 if taken and not config.encoder_tuned else 1.0


class CoVe(nn.Module):
  """Tokens and segment ids are int32 BT; segment 0 is padding."""

  config: Config

  def setup(self):
    c = self.config
    self.source_embedding = Embedding(c.vocab_size, c.d_embedding, c.dtype)
    layer = lambda cell, width, units: lambda: Layer(cell, width, units, matmul_dtype=c.matmul_dtype)
    self.encoder = Bidirectional(layer("gru", c.d_embedding, c.d_encoder))
    self.reader = Bidirectional(layer("lstm", c.d_embedding + 2 * c.d_encoder, c.d_hidden))
    self.dropout = Dropout(c.dropout)

  def vectors(self, batch):
    """[embedding(w); CoVe(w)] of each token, BTU."""
    x_BTD = self.source_embedding(batch["inputs"])
    x_BTU = jnp.concatenate([x_BTD, *self.encoder(x_BTD, batch["segments"])], -1)
    return x_BTU if self.config.encoder_tuned else jax.lax.stop_gradient(x_BTU)

  def hidden(self, batch, *, train=False):
    """The output at each token, BTU with U = 2 d_hidden."""
    x_BTU = self.dropout(self.vectors(batch), train)
    return jnp.concatenate(self.reader(x_BTU, batch["segments"]), -1)

  def __call__(self, batch, *, train=False):
    return self.hidden(batch, train=train)


Model = CoVe
