"""BERT: Devlin, Chang, Lee, Toutanova 2018, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding" (arXiv:1810.04805). RoBERTa (Liu et al. 2019, arXiv:1907.11692) is num_types=1, norm_epsilon=1e-5 and
other data (`tasks/masked_language_modeling.py`).

| what                 | the paper                              | here                                           |
|----------------------|----------------------------------------|------------------------------------------------|
| embeddings           | token + segment + position, normalised | the same; segments of a text are its `types`   |
| layers               | post-LN, GELU, biases everywhere       | the same; GELU exact, as in the published code |
| pooler               | tanh of a linear map of [CLS]          | the same; pooler=False: none                   |
| output of masks, NSP | part of the model                      | the task's head, beside the model's parameters |
| first values         | truncated normal, 0.02                 | tables N(0, 0.02^2), kernels Glorot-uniform    |
| several texts a row  | one                                    | one; packed ones are kept apart by `segments`  |
| dropout rate         | exact                                  | rounded to 1/65,536                            |

BERT-base with its 30,522 pieces has 109,482,240 parameters, BERT-large 335,141,888, both with the pooler and without
the outputs.

Letters beside the house's: U width of the pooler's output.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from attention_zoo.layers import transformer as layers
from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.linear import Linear
from attention_zoo.layers.positions import Positions

_DEVIATION = 0.02


@dataclasses.dataclass(frozen=True)
class Config(layers.Config):
  """BERT-base, but for the vocabulary."""

  d_model: int = 768
  d_ff: int = 3072
  num_heads: int = 12
  attention_dropout: float = 0.1
  norm_epsilon: float = 1e-12
  bias: bool = True
  activation: str = "gelu"
  scale_embedding: bool = False
  positions: str = "learned"
  max_length: int = 512
  num_layers: int = 12
  attention: str = "dot_product"  # any that ops/variant.py finds and that is not causal
  num_types: int = 2  # kinds of segments; 1: they are not told apart
  pooler: bool = True

  def __post_init__(self):
    super().__post_init__()
    if self.num_types > 9:
      raise ValueError(f"model.num_types must be from 1 to 9, got {self.num_types}")

  def stacks(self):
    return {"attention": layers.Layers(self.num_layers, self.attention, causal=False)}


BATCH = ("inputs", "segments", "positions", "types")


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c = config
  tables = c.vocab_size * c.d_model + layers.count_positions(c) + c.num_types * c.d_model
  pooler = c.pooler * (c.d_model + 1) * c.d_model
  return tables + 2 * c.d_model + layers.count_layers(c, c.stacks()["attention"]) + pooler


def small() -> Config:
  """For tests."""
  return Config(vocab_size=11, d_model=8, d_ff=14, num_heads=2, d_k=4, d_v=4, num_layers=2, max_length=16, dropout=0.0)


class Embedding(layers.Embedding):
  """Rows of normal values of one deviation, whatever the width."""

  def setup(self):
    c = self.config
    self.table_VD = self.param("table_VD", nn.initializers.normal(_DEVIATION), (c.vocab_size, c.d_model))


class Bert(nn.Module):
  """Tokens, segment ids (0 is padding), positions and types are int32 BT."""

  config: Config

  def setup(self):
    c = self.config
    self.embedding = Embedding(c)
    self.positions = Positions(c.positions, c.position_mode, c.max_length, c.d_model, c.matmul_dtype, _DEVIATION)
    self.types = _Types(c.num_types, c.d_model)
    self.embedding_norm = nn.LayerNorm(epsilon=c.norm_epsilon, dtype=c.dtype)
    self.encoder = layers.Stack(c, c.stacks()["attention"])
    if c.pooler:
      self.pooler = Linear("BD,DU->BU", (c.d_model, c.d_model), use_bias=True, matmul_dtype=c.matmul_dtype)
    self.dropout = Dropout(c.dropout)

  def hidden(self, batch, *, train=False):
    """The last layer's output BTD."""
    length, positions = batch["inputs"].shape[1], batch["positions"]
    x_BTD = self.positions(self.embedding(batch["inputs"]), positions, length)
    x_BTD = self.embedding_norm(x_BTD + self.types(batch["types"]).astype(x_BTD.dtype))
    signal_BTD = self.positions.signal(positions, length, x_BTD.dtype)
    return self.encoder(self.dropout(x_BTD, train), batch["segments"], signal_BTD=signal_BTD, train=train)

  def pooled(self, x_BTD):
    """What stands for the whole row, BU."""
    if not self.config.pooler:
      raise ValueError("model.pooler = False: there is nothing pooled")
    return jnp.tanh(self.pooler(x_BTD[:, 0]))

  def __call__(self, batch, *, train=False):
    """(BTD, BU), or BTD where there is no pooler."""
    x_BTD = self.hidden(batch, train=train)
    return (x_BTD, self.pooled(x_BTD)) if self.config.pooler else x_BTD


class _Types(nn.Module):
  number: int
  d_model: int

  @nn.compact
  def __call__(self, types_BT):
    table = self.param(f"table_{self.number}D", nn.initializers.normal(_DEVIATION), (self.number, self.d_model))
    return jnp.take(table, types_BT, axis=0, mode="clip")


Model = Bert


def output_table(params):
  """The table_VD by which outputs of masks are multiplied, the embedding's."""
  return params["embedding"]["table_VD"]
