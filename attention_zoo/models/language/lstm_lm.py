"""A language model of LSTM layers: Zaremba et al. 2014, "Recurrent Neural Network Regularization" (arXiv:1409.2329).

| what         | the paper                        | here                                                              |
|--------------|----------------------------------|-------------------------------------------------------------------|
| cell         | LSTM, equations in section 3     | the same, `ops/recurrent.py`                                      |
| dropout      | between layers, not over time    | the same; rates are rounded to 1/65,536                           |
| first values | uniform; medium 0.05, large 0.04 | embeddings N(0, 1/d_model), kernels Glorot-uniform, forget bias 1 |
| output       | a matrix of its own              | the same, or tied=True: the embedding's table                     |
| state        | handed from batch to batch       | the same with config.data.batching="contiguous"; else zeros       |

Letters beside the house's: F hidden units, M = J T positions of each of J beams, one after the other.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.linear import logits
from attention_zoo.layers.recurrent import Embedding, Layer
from attention_zoo.protocols import Decoding

BATCH = ("inputs", "segments", "positions")  # the last two are not looked at: a row is one text


@dataclasses.dataclass(frozen=True)
class Config:
  """The paper's medium model, but for the vocabulary (10,000 words there)."""

  vocab_size: int
  d_model: int = 650  # of the embedding
  d_hidden: int = 650
  num_layers: int = 2
  dropout: float = 0.5
  tied: bool = False
  dtype: str = "float32"  # of activations; parameters and states are float32
  matmul_dtype: str = "float32"  # what the operands of linear maps are rounded to; sums are float32

  def __post_init__(self):
    for field in ("dtype", "matmul_dtype"):
      if getattr(self, field) not in ("float32", "bfloat16"):
        raise ValueError(f"model.{field} must be float32 or bfloat16, got {getattr(self, field)!r}")
    if self.tied and self.d_model != self.d_hidden:
      raise ValueError(f"a tied output needs d_hidden = d_model, got {self.d_hidden} and {self.d_model}")


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c = config
  first = 4 * c.d_hidden * (c.d_model + c.d_hidden + 1)
  later = 4 * c.d_hidden * (2 * c.d_hidden + 1)
  tables = c.vocab_size * (c.d_model + (0 if c.tied else c.d_hidden))
  return tables + first + (c.num_layers - 1) * later


def small() -> Config:
  """For tests."""
  return Config(vocab_size=11, d_model=8, d_hidden=6, num_layers=2, dropout=0.0)


def forget_gates_open(key, shape, dtype=jnp.float32):
  F = shape[0] // 4
  return jnp.zeros(shape, dtype).at[F : 2 * F].set(1.0)


class LSTMLanguageModel(nn.Module):
  """Tokens are int32. A row is read from left to right whatever its segments say: one text a row."""

  config: Config

  def setup(self):
    c = self.config
    self.embedding = Embedding(c.vocab_size, c.d_model, c.dtype)
    layer = functools.partial(Layer, "lstm", matmul_dtype=c.matmul_dtype, bias_init=forget_gates_open)
    widths = [c.d_model] + [c.d_hidden] * (c.num_layers - 1)
    self.layers = [layer(width, c.d_hidden, name=f"layer_{i}") for i, width in enumerate(widths)]
    if not c.tied:
      self.output = Embedding(c.vocab_size, c.d_hidden, c.dtype)
    self.dropout = Dropout(c.dropout)

  def hidden(self, batch, *, train=False, carry=None):
    """(last layer's output BTD, carry) of a batch of `data/windows.py`. carry: the layers' states, zeros when None."""
    x_BTD, states = self.embedding(batch["inputs"]), []
    for i, layer in enumerate(self.layers):
      x_BTD, state = layer(self.dropout(x_BTD, train), state=carry[i] if carry else None)
      states.append(state)
    return self.dropout(x_BTD, train), tuple(states)

  def logits(self, x_BTD):
    """Scores of all tokens, float32 BTV."""
    table_VD = (self.embedding if self.config.tied else self.output).table_VD
    return logits(self.config, x_BTD, table_VD)

  def __call__(self, batch, *, train=False):
    """Logits BTV (float32)."""
    return self.logits(self.hidden(batch, train=train)[0])

  def step(self, tokens_BT, carry):
    """(logits_BTV, carry) of the next tokens of each row."""
    x_BTD, carry = self.hidden({"inputs": tokens_BT}, carry=carry)
    return self.logits(x_BTD), carry


Model = LSTMLanguageModel


def carry(config: Config, rows: int):
  """The states of all layers before the first token: ((h_BF, c_BF), ...), float32 zeros."""
  zeros = lambda: jnp.zeros((rows, config.d_hidden), jnp.float32)
  return tuple((zeros(), zeros()) for _ in range(config.num_layers))


def output_table(params):
  """The table_VD of the output, for losses that do not keep the logits (`training/loss.py`)."""
  return params["output" if "output" in params else "embedding"]["table_VD"]


def decoding(config: Config, params, inputs, *, num_beams) -> Decoding:
  """The Decoding of a batch of texts with nothing read yet. inputs: {"inputs": tokens [B, any]}."""
  return decoding_of(LSTMLanguageModel(config), carry(config, 1), params, inputs, num_beams=num_beams)


def decoding_of(model, start, params, inputs, *, num_beams) -> Decoding:
  """The Decoding of a model with a method step(tokens_BT, carry) -> (logits_BTV, carry).

  start: the carry of one row before the first token. The cache is the state after each position that has been read,
  [B, J, Z, F], so that a step may go back to t.
  """
  B = inputs["inputs"].shape[0]

  def step(tokens_BJT, t, cache):
    _, J, T = tokens_BJT.shape

    def before(x_BJZF):  # the state after t - 1; zeros at the beginning
      x_BJF = jax.lax.dynamic_index_in_dim(x_BJZF, jnp.maximum(t - 1, 0), 2, keepdims=False)
      return jnp.where(t > 0, x_BJF, 0).reshape(B * J, -1)

    def one(carry, tokens_M):
      logits_M1V, carry = model.apply({"params": params}, tokens_M[:, None], carry, method="step")
      return carry, (logits_M1V[:, 0], carry)

    tokens_TM = jnp.moveaxis(tokens_BJT, 2, 0).reshape(T, B * J)
    _, (logits_TMV, states) = jax.lax.scan(one, jax.tree.map(before, cache), tokens_TM)

    def write(x_BJZF, new_TMF):
      new_BJTF = jnp.moveaxis(new_TMF.reshape(T, B, J, -1), 0, 2)
      return jax.lax.dynamic_update_slice_in_dim(x_BJZF, new_BJTF, t, 2)

    logits_BJTV = jnp.moveaxis(logits_TMV.reshape(T, B, J, -1), 0, 2)
    return logits_BJTV, jax.tree.map(write, cache, states)

  def grow(cache, length):
    room = lambda x_BJZF: jnp.pad(x_BJZF, ((0, 0), (0, 0), (0, length - x_BJZF.shape[2]), (0, 0)))
    return jax.tree.map(room, cache)

  empty = lambda x_1F: jnp.zeros((B, num_beams, 0, x_1F.shape[1]), jnp.float32)
  return Decoding(jax.tree.map(empty, start), step, grow=grow)
