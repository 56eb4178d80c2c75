"""Sequence to sequence without attention: Sutskever, Vinyals, Le 2014 (arXiv:1409.3215).

| what         | the paper                         | here                                                            |
|--------------|-----------------------------------|-----------------------------------------------------------------|
| cell         | LSTM of Graves 2013, peepholes    | LSTM without peepholes; or cell="rnn", "gru"                    |
| source       | words reversed, </s> read last    | all reversed, </s> first; reverse_source=False: as it stands    |
| vocabulary   | 160,000 and 80,000 words          | one of pieces for both; the embeddings are two, as there        |
| first values | uniform(-0.08, 0.08)              | uniform(-init_scale, init_scale), 0.08                          |
| dropout      | none                              | `dropout`, 0 by default, on the input of each layer, the output |
| packed rows  | one sentence pair a row           | segments keep the pairs of a row apart; same mathematics        |

Letters beside the house's: F hidden units.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers import recurrent as layers
from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.linear import logits
from attention_zoo.ops.recurrent import CELLS
from attention_zoo.protocols import Decoding

BATCH = ("source", "source_segments", "inputs", "target_segments")


@dataclasses.dataclass(frozen=True)
class Config(layers.Config):
  """The paper's sizes are the defaults."""

  num_layers: int = 4
  cell: str = "lstm"  # or "rnn", "gru"
  reverse_source: bool = True

  def choices(self):
    return super().choices() | {"cell": tuple(CELLS)}

  @property
  def widths(self):
    """Of the input of each layer."""
    return (self.d_model, *[self.d_hidden] * (self.num_layers - 1))


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c = config
  stack = sum(CELLS[c.cell].width * c.d_hidden * (width + c.d_hidden + 1) for width in c.widths)
  return c.vocab_size * (2 * c.d_model + c.d_hidden) + 2 * stack


def small() -> Config:
  """For tests."""
  return Config(vocab_size=11, d_model=8, d_hidden=6, num_layers=2)


class Sutskever(nn.Module):
  """Tokens and segment ids are int32; segment 0 is padding."""

  config: Config
  attends = False

  def setup(self):
    c = self.config
    init = layers.uniform(c.init_scale)
    embedding = functools.partial(layers.Embedding, c.vocab_size, dtype=c.dtype, init=init)
    layer = functools.partial(
      layers.Layer, c.cell, d_hidden=c.d_hidden, matmul_dtype=c.matmul_dtype, kernel_init=init, bias_init=init
    )
    self.source_embedding, self.target_embedding = embedding(c.d_model), embedding(c.d_model)
    self.encoder, self.decoder = (layers.Stack(layer, c.widths, c.dropout) for _ in range(2))
    self.output = embedding(c.d_hidden)
    self.dropout = Dropout(c.dropout)

  def encode(self, source_BS, segments_BS, same_BTS, train=False):
    """The states of all layers after the sentence of each target position, BTF each."""
    reverse = self.config.reverse_source
    reset_BS = layers.begins(segments_BS, reverse)
    _, states = self.encoder(
      self.source_embedding(source_BS), reset_BT=reset_BS, reverse=reverse, return_states=True, train=train
    )
    return jax.tree.map(lambda state_BSF: layers.at_edge(state_BSF, same_BTS, last=not reverse), states)

  def hidden(self, batch, *, train=False):
    """The output BTD for a batch of `data/batches.py`."""
    same_BTS = layers.same_segment(batch["target_segments"], batch["source_segments"])
    starts = self.encode(batch["source"], batch["source_segments"], same_BTS, train)
    reset_BT = layers.begins(batch["target_segments"])
    x_BTD = self.target_embedding(batch["inputs"])
    x_BTD, _ = self.decoder(x_BTD, reset_BT=reset_BT, starts=starts, train=train)
    return self.dropout(x_BTD, train)

  def __call__(self, batch, *, train=False):
    """Logits BTV (float32)."""
    return logits(self.config, self.hidden(batch, train=train), self.output.table_VD)

  def start(self, source_BS, segments_BS, positions_BS):
    same_B1S = layers.same_segment(jnp.ones_like(segments_BS[:, :1]), segments_BS)
    return None, self.encode(source_BS, segments_BS, same_B1S)

  def step(self, tokens_BJT, t, read, state):
    B, J, _ = tokens_BJT.shape
    rows = lambda x: x.reshape(B * J, *x.shape[2:])
    beams = lambda x: x.reshape(B, J, *x.shape[1:])
    x_BTD, state = self.decoder(self.target_embedding(rows(tokens_BJT)), state=jax.tree.map(rows, state))
    return beams(logits(self.config, x_BTD, self.output.table_VD)), jax.tree.map(beams, state), None


Model = Sutskever


def output_table(params):
  """The table_VD of the output, for losses that do not keep the logits (`training/loss.py`)."""
  return params["output"]["table_VD"]


def decoding(config: Config, params, inputs, *, num_beams) -> Decoding:
  """The Decoding of a batch of sentences. inputs: "source", "source_segments" of `data/batches.py`, BS.

  The cache is the decoder's states, [B, J, F].
  """
  return layers.make_decoding(Sutskever(config), params, inputs, num_beams)
