"""ULMFiT: Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification" (arXiv:1801.06146), on
the AWD-LSTM of Merity, Keskar, Socher 2017 (arXiv:1708.02182).

Three runs, each taking the one before by config.train.init_from: language_modeling on general text, language_modeling
on the text of the task, classification with config.head.pooling = "concat" and config.head.width = 50. The schedule is
"slanted_triangular".

| what                  | the papers                                | here                                             |
|-----------------------|-------------------------------------------|--------------------------------------------------|
| weight drop           | 0.5 of the recurrent kernels, once a      | the same; rates are rounded to 1/65,536          |
|                       | batch                                     |                                                  |
| variational dropout   | 0.4 of the input and of the output, 0.3   | the same                                         |
|                       | between layers, one mask a row            |                                                  |
| embedding dropout     | 0.05 of the words, in all of a batch      | the same                                         |
| output                | the embedding's table                     | the same, no bias                                |
| discriminative rates  | each layer 1 / 2.6 of the one above it    | the same, rate_decay; a head has learning_rate,  |
|                       |                                           | so the last LSTM 1 / 2.6 of it. The table counts |
|                       |                                           | as the lowest, also in a language model, whose   |
|                       |                                           | output it is too                                 |
| gradual unfreezing    | a layer an epoch, from the top            | a layer every unfreeze_every steps; moments of   |
|                       |                                           | frozen ones go on                                |
| length of a batch     | 70 words, at random more or less          | config.data.row_length                           |
| classifier            | batch normalisation before each map       | none                                             |
| long texts            | BPT3C: read in parts, the state kept,     | cut to config.data.row_length                    |
|                       | gradients into the last ones              |                                                  |
| end of a text         | -                                         | </s>: pretraining predicts it and never reads    |
|                       |                                           | it, a classifier reads it last                   |
| activations           | penalised, and their changes              | not                                              |
| both directions       | a second model for the text backward      | forward alone                                    |

The paper has 4.6 % errors on IMDb with both directions; 5.0 % forward alone (from memory).

Letters beside the house's: F hidden units, A gates side by side.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from attention_zoo.layers.dropout import LockedDropout, dropout
from attention_zoo.layers.linear import logits
from attention_zoo.layers.recurrent import DTYPES, Embedding, Layer, uniform
from attention_zoo.models.language import lstm_lm
from attention_zoo.ops import recurrent

BATCH = ("inputs", "segments", "positions")  # the last two are not looked at: a row is one text


@dataclasses.dataclass(frozen=True)
class Config:
  """The paper's model, but for the vocabulary (about 238,000 words of WikiText-103, from memory)."""

  vocab_size: int
  d_model: int = 400  # of the embedding and of the last layer
  d_hidden: int = 1150
  num_layers: int = 3
  embedding_dropout: float = 0.05
  input_dropout: float = 0.4
  hidden_dropout: float = 0.3
  output_dropout: float = 0.4
  weight_dropout: float = 0.5
  rate_decay: float = 1.0  # the learning rate of each layer is that of the one above it divided by this; tuning: 2.6
  unfreeze_every: int = dataclasses.field(default=0, metadata={"low": 0})  # steps; 0: all layers learn from the start
  dtype: str = "float32"  # of activations; parameters and states are float32
  matmul_dtype: str = "float32"  # what the operands of linear maps are rounded to; sums are float32

  def __post_init__(self):
    for field in ("dtype", "matmul_dtype"):
      if getattr(self, field) not in DTYPES:
        raise ValueError(f"model.{field} must be one of {DTYPES}, got {getattr(self, field)!r}")
    if self.rate_decay < 1:
      raise ValueError(f"model.rate_decay must be at least 1, got {self.rate_decay}")

  @property
  def widths(self) -> list[int]:
    """Of the embedding and of the output of each layer."""
    return [self.d_model, *[self.d_hidden] * (self.num_layers - 1), self.d_model]


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  widths = config.widths
  layers = sum(4 * F * (D + F + 1) for D, F in zip(widths, widths[1:], strict=False))
  return config.vocab_size * config.d_model + layers


def small() -> Config:
  """For tests."""
  return Config(
    vocab_size=11, d_model=6, d_hidden=8, num_layers=2, embedding_dropout=0.0, input_dropout=0.0, hidden_dropout=0.0,
    output_dropout=0.0, weight_dropout=0.0,
  )  # fmt: skip


def depth(config: Config, path: str) -> int:
  """How many layers stand above a parameter: 0 for the head of a task, 1 for the last LSTM, .."""
  name = path.split("/")[0]
  if name == "embedding":
    return config.num_layers + 1
  return config.num_layers - int(name.removeprefix("layer_")) if name.startswith("layer_") else 0


def learning_rate_factor(config: Config, path: str, step):
  """Discriminative rates (section 3.2) and gradual unfreezing (section 3.3) of the parameter at that path."""
  below = depth(config, path)
  factor = config.rate_decay**-below
  if not (config.unfreeze_every and below):
    return factor
  return factor * jnp.where(step >= below * config.unfreeze_every, 1.0, 0.0)


class WeightDropped(Layer):
  """An LSTM whose recurrent kernel loses some of its weights, the same at all steps of a batch."""

  weight_dropout: float = 0.0

  def __call__(self, x_BTD, *, train=False, state=None):
    kernel_FA = self.recurrent_FA
    if train and self.weight_dropout:
      kernel_FA = dropout(kernel_FA, self.weight_dropout, self.make_rng("dropout"))
    kernel_FA = kernel_FA.astype(self.matmul_dtype)
    h_BTF, state = recurrent.of_projected(self.cell, self.feed_forward(x_BTD), kernel_FA, state=state)
    return h_BTF.astype(x_BTD.dtype), state


class AWDLSTM(nn.Module):
  """Tokens are int32. A row is read from left to right whatever its segments say: one text a row."""

  config: Config

  def setup(self):
    c = self.config
    self.embedding = Embedding(c.vocab_size, c.d_model, c.dtype, uniform(0.1))
    make = lambda i, D, F: WeightDropped(
      "lstm", D, F, matmul_dtype=c.matmul_dtype, kernel_init=uniform(F**-0.5), bias_init=uniform(F**-0.5),
      weight_dropout=c.weight_dropout, name=f"layer_{i}",
    )  # fmt: skip
    self.layers = [make(i, *pair) for i, pair in enumerate(zip(c.widths, c.widths[1:], strict=False))]
    self.input_dropout, self.hidden_dropout = LockedDropout(c.input_dropout), LockedDropout(c.hidden_dropout)
    self.output_dropout = LockedDropout(c.output_dropout)

  def embed(self, tokens_BT, train):
    x_BTD = self.embedding(tokens_BT)
    rate = self.config.embedding_dropout
    if train and rate:
      kept_V1 = dropout(jnp.ones((self.config.vocab_size, 1), x_BTD.dtype), rate, self.make_rng("dropout"))
      x_BTD *= jnp.take(kept_V1, tokens_BT, axis=0, mode="clip")
    return x_BTD

  def hidden(self, batch, *, train=False, carry=None):
    """(last layer's output BTD, carry) of a batch of `data/windows.py`. carry: the layers' states, zeros when None."""
    x_BTD, states = self.input_dropout(self.embed(batch["inputs"], train), train), []
    for i, layer in enumerate(self.layers):
      x_BTD = self.hidden_dropout(x_BTD, train) if i else x_BTD
      x_BTD, state = layer(x_BTD, train=train, state=carry[i] if carry else None)
      states.append(state)
    return self.output_dropout(x_BTD, train), tuple(states)

  def logits(self, x_BTD):
    """Scores of all tokens, float32 BTV."""
    return logits(self.config, x_BTD, self.embedding.table_VD)

  def __call__(self, batch, *, train=False):
    """Logits BTV (float32)."""
    return self.logits(self.hidden(batch, train=train)[0])

  def step(self, tokens_BT, carry):
    """(logits_BTV, carry) of the next tokens of each row."""
    x_BTD, carry = self.hidden({"inputs": tokens_BT}, carry=carry)
    return self.logits(x_BTD), carry


Model = AWDLSTM


def carry(config: Config, rows: int):
  """The states of all layers before the first token: ((h_BF, c_BF), ...), float32 zeros."""
  zeros = lambda width: jnp.zeros((rows, width), jnp.float32)
  return tuple((zeros(width), zeros(width)) for width in config.widths[1:])


def output_table(params):
  """The table_VD of the output, for losses that do not keep the logits (`training/loss.py`)."""
  return params["embedding"]["table_VD"]


def decoding(config: Config, params, inputs, *, num_beams):
  """The Decoding of a batch of texts with nothing read yet. inputs: {"inputs": tokens [B, any]}."""
  return lstm_lm.decoding_of(AWDLSTM(config), carry(config, 1), params, inputs, num_beams=num_beams)
