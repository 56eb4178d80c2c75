"""The glimpse model: Shao, Gouws, Britz, Goldie, Strope, Kurzweil 2017, "Generating High-Quality and Informative
Conversation Responses with Sequence-to-Sequence Models" (EMNLP; arXiv:1701.03185).

The decoder attends to the source and to the target before it, and is trained on glimpses, segments of the target of a
fixed length, so that long targets can be trained on. What the table says of the paper is from memory, but that it has
attention to the target, glimpses, and stochastic beam search with reranking of segments.

| what           | the paper                             | here                                                        |
|----------------|---------------------------------------|-------------------------------------------------------------|
| glimpses       | each an example of its own, with what | all of a target in one pass; gradients of a glimpse end     |
|                | comes before it given as text         | where it begins, and states and history before are constants|
| target history | read by the encoder, beside the source| the decoder's own states, carried on and attended to        |
| attention      | one, to all of that                   | two: to the source, to the target; the output layer has both|
| scores         | not remembered                        | Luong's "general" (Luong et al. 2015, section 3.1)          |
| output layer   | not remembered                        | tanh of a linear map of both contexts and the state, as     |
|                |                                       | Luong's eq. 5, without input feeding                        |
| cell, sizes    | not remembered                        | LSTMs, num_layers of encoder and decoder                    |
| vocabulary     | words                                 | one of pieces for both sides; the embeddings are two        |
| first values   | not remembered                        | uniform(-init_scale, init_scale)                            |
| dropout        | not remembered                        | `dropout` on the input of each layer and on the output      |
| decoding       | stochastic beam search                | config.decode.search = "stochastic_beam", or any other      |
| packed rows    | one pair a row                        | segments keep the pairs of a row apart; same mathematics    |

A glimpse as long as any target trains as if there were none. All positions attend at once, which takes memory
O(T (S + T)); glimpses in one pass save none of it.

Letters beside the house's: F hidden units, U what the output layer reads, side by side, Z positions of the target's
history, M all beams in one row.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers import recurrent as layers
from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.linear import logits
from attention_zoo.ops import masks
from attention_zoo.ops.dot_product import dot, masked_softmax
from attention_zoo.ops.einsum import einsum
from attention_zoo.ops.recurrent import product
from attention_zoo.protocols import Decoding

BATCH = ("source", "source_segments", "inputs", "target_segments", "target_positions")


@dataclasses.dataclass(frozen=True)
class Config(layers.Config):
  """Sizes of ours: the paper's are not remembered."""

  num_layers: int = 2
  glimpse: int = 10  # target tokens that are trained on together

  @property
  def widths(self):
    """Of the input of each layer."""
    return (self.d_model, *[self.d_hidden] * (self.num_layers - 1))


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c = config
  F = c.d_hidden
  stack = sum(4 * F * (width + F + 1) for width in c.widths)
  return c.vocab_size * (2 * c.d_model + F) + 2 * stack + 2 * F * F + 3 * F * F


def small() -> Config:
  """For tests."""
  return Config(vocab_size=11, d_model=8, d_hidden=6, num_layers=2, glimpse=3)


class Attention(nn.Module):
  """softmax(q^T W m) m over a memory, of which a part is a constant to some of the queries."""

  d_hidden: int
  matmul_dtype: str
  init: nn.initializers.Initializer

  def setup(self):
    self.general_FK = self.param("general_FK", self.init, (self.d_hidden, self.d_hidden))

  def __call__(self, q_BTF, memory_BSF, mask_BTS, learns_BTS=None):
    """(the mean BTF, the weights BTS). mask_BTS: what is attended to. learns_BTS: the pairs of positions that hand
    gradients to the memory; None: all."""
    q_BTNF = product(q_BTF, self.general_FK.astype(self.matmul_dtype)).astype(memory_BSF.dtype)[:, :, None]
    memory_BSNF, mask_BNTS = memory_BSF[:, :, None], mask_BTS[:, None]
    logits_BNTS = dot(q_BTNF, memory_BSNF)
    if learns_BTS is not None:
      learns_BNTS, constant_BSNF = learns_BTS[:, None], jax.lax.stop_gradient(memory_BSNF)
      logits_BNTS = jnp.where(learns_BNTS, logits_BNTS, dot(q_BTNF, constant_BSNF))
    weights_BNTS = masked_softmax(logits_BNTS, mask_BNTS).astype(memory_BSF.dtype)
    self.sow("intermediates", "weights", weights_BNTS)
    mean = lambda weights_BNTS, values_BSNF: einsum("BNTS,BSNF->BTNF", weights_BNTS, values_BSNF)[:, :, 0]
    if learns_BTS is None:
      return mean(weights_BNTS, memory_BSNF), weights_BNTS[:, 0]
    learning_BTF = mean(jnp.where(learns_BNTS, weights_BNTS, 0), memory_BSNF)
    return learning_BTF + mean(jnp.where(learns_BNTS, 0, weights_BNTS), constant_BSNF), weights_BNTS[:, 0]


class Decoder(nn.Module):
  """LSTMs, and attention to what they have put out so far."""

  config: Config
  init: nn.initializers.Initializer

  def setup(self):
    c = self.config
    layer = functools.partial(
      layers.Layer, "lstm", d_hidden=c.d_hidden, matmul_dtype=c.matmul_dtype, kernel_init=self.init, bias_init=self.init
    )
    self.stack = layers.Stack(layer, c.widths, c.dropout)
    self.attention = Attention(c.d_hidden, c.matmul_dtype, self.init)

  def __call__(self, x_BTD, segments_BT, positions_BT, starts, train=False):
    """(outputs BTF, what they attended to BTF) of whole targets. starts: the state before each."""
    glimpse_BT = positions_BT // self.config.glimpse
    first_BT = (positions_BT % self.config.glimpse == 0) & (positions_BT > 0)
    reset_BT = layers.begins(segments_BT)
    h_BTF, _ = self.stack(x_BTD, reset_BT=reset_BT, starts=starts, stop_BT=first_BT, train=train)
    mask_BTS = layers.same_segment(segments_BT, segments_BT) & masks.causal(segments_BT.shape[1])[0]
    found_BTF, _ = self.attention(h_BTF, h_BTF, mask_BTS, glimpse_BT[:, :, None] == glimpse_BT[:, None])
    return h_BTF, found_BTF

  def step(self, x_M1D, t, state, history_MZF):
    """(output M1F, what it attended to M1F, the next state, the history with the output)."""
    h_M1F, state = self.stack(x_M1D, state=state)
    history_MZF = jax.lax.dynamic_update_slice_in_dim(history_MZF, h_M1F, t, 1)
    past_11Z = jnp.arange(history_MZF.shape[1])[None, None] <= t
    found_M1F, _ = self.attention(h_M1F, history_MZF, past_11Z)
    return h_M1F, found_M1F, state, history_MZF


class Glimpse(nn.Module):
  """Tokens and segment ids are int32; segment 0 is padding."""

  config: Config
  attends = True

  def setup(self):
    c, F = self.config, self.config.d_hidden
    init = layers.uniform(c.init_scale)
    embedding = functools.partial(layers.Embedding, c.vocab_size, dtype=c.dtype, init=init)
    layer = functools.partial(
      layers.Layer, "lstm", d_hidden=F, matmul_dtype=c.matmul_dtype, kernel_init=init, bias_init=init
    )
    self.source_embedding, self.target_embedding = embedding(c.d_model), embedding(c.d_model)
    self.encoder = layers.Stack(layer, c.widths, c.dropout)
    self.decoder = Decoder(c, init)
    self.cross_attention = Attention(F, c.matmul_dtype, init)
    self.combine_UF = self.param("combine_UF", init, (3 * F, F))
    self.output = embedding(F)
    self.dropout = Dropout(c.dropout)

  def encode(self, source_BS, segments_BS, same_BTS, train=False):
    """(outputs BSF, the states of all layers after the sentence of each target position, BTF each)."""
    memory_BSF, states = self.encoder(
      self.source_embedding(source_BS), reset_BT=layers.begins(segments_BS), return_states=True, train=train
    )
    return memory_BSF, jax.tree.map(lambda state_BSF: layers.at_edge(state_BSF, same_BTS, last=True), states)

  def combine(self, source_BTF, target_BTF, h_BTF):
    """What the output layer reads: tanh(W [context of the source; of the target; state])."""
    x_BTU = jnp.concatenate([source_BTF, target_BTF, h_BTF], -1)
    return jnp.tanh(product(x_BTU, self.combine_UF.astype(self.config.matmul_dtype))).astype(self.config.dtype)

  def hidden(self, batch, *, train=False):
    """The output BTD for a batch of `data/batches.py`."""
    segments_BT = batch["target_segments"]
    same_BTS = layers.same_segment(segments_BT, batch["source_segments"])
    memory_BSF, starts = self.encode(batch["source"], batch["source_segments"], same_BTS, train)
    x_BTD = self.target_embedding(batch["inputs"])
    h_BTF, target_BTF = self.decoder(x_BTD, segments_BT, batch["target_positions"], starts, train)
    source_BTF, _ = self.cross_attention(h_BTF, memory_BSF, same_BTS)
    return self.dropout(self.combine(source_BTF, target_BTF, h_BTF), train)

  def __call__(self, batch, *, train=False):
    """Logits BTV (float32)."""
    return logits(self.config, self.hidden(batch, train=train), self.output.table_VD)

  def start(self, source_BS, segments_BS, positions_BS):
    same_B1S = layers.same_segment(jnp.ones_like(segments_BS[:, :1]), segments_BS)
    memory_BSF, states = self.encode(source_BS, segments_BS, same_B1S)
    history_B11F = jnp.zeros_like(memory_BSF[:, None, :1])
    return {"memory": memory_BSF, "same_B1S": same_B1S}, (states, history_B11F)

  def step(self, tokens_BJT, t, read, state):
    beams = functools.partial(layers.beams_of, J=tokens_BJT.shape[1])
    x_M1D = self.target_embedding(layers.rows_of(tokens_BJT))
    old, history_MZF = jax.tree.map(layers.rows_of, state)
    h_M1F, target_M1F, new, history_MZF = self.decoder.step(x_M1D, t, old, history_MZF)
    h_BJF, target_BJF = beams(h_M1F)[:, :, 0], beams(target_M1F)[:, :, 0]
    source_BJF, weights_BJS = self.cross_attention(h_BJF, read["memory"], read["same_B1S"])
    x_BJTF = self.combine(source_BJF, target_BJF, h_BJF)[:, :, None]
    return logits(self.config, x_BJTF, self.output.table_VD), jax.tree.map(beams, (new, history_MZF)), weights_BJS


Model = Glimpse


def output_table(params):
  """The table_VD of the output, for losses that do not keep the logits (`training/loss.py`)."""
  return params["output"]["table_VD"]


def decoding(config: Config, params, inputs, *, num_beams) -> Decoding:
  """The Decoding of a batch of sentences. inputs: "source", "source_segments" of `data/batches.py`, BS.

  The cache is the decoder's states, [B, J, F], its outputs so far, [B, J, Z, F], and the sum of the attention to the
  source, [B, J, S].
  """

  def grow(cache, length):
    states, history_BJZF = cache["state"]
    more = ((0, 0), (0, 0), (0, length - history_BJZF.shape[2]), (0, 0))
    return cache | {"state": (states, jnp.pad(history_BJZF, more))}

  return layers.make_decoding(Glimpse(config), params, inputs, num_beams)._replace(grow=grow)
