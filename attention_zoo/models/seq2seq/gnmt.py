"""GNMT: Wu et al. 2016, "Google's Neural Machine Translation System" (arXiv:1609.08144).

| what           | the paper                               | here                                                     |
|----------------|-----------------------------------------|----------------------------------------------------------|
| attention      | by the first decoder layer's output of  | the same (eq. 4, section 3.3); before the first step that|
|                | the step before, to all decoder layers  | output is 0                                              |
| residuals      | from the third layer on (section 3.1)   | the same, in both stacks; what is attended to is not part|
|                |                                         | of them                                                  |
| first state    | not stated                              | zeros: the decoder knows the source by attention alone   |
| vocabulary     | 32,000 shared word pieces               | pieces, too; the embeddings are two                      |
| first values   | uniform(-0.04, 0.04)                    | uniform(-init_scale, init_scale), 0.04                   |
| dropout        | 0.2 on English-German                   | `dropout` on the input of each layer and on the output   |
| objective      | likelihood, then expected GLEU by RL    | likelihood                                               |
| cell clipping  | states within [-1, 1] for quantization  | none                                                     |
| beam search    | length and coverage penalty (eq. 14)    | config.decode.alpha and config.decode.coverage_penalty   |
| packed rows    | one sentence pair a row                 | segments keep the pairs of a row apart; same mathematics |

Only the first decoder layer stands in the recurrence of the attention; the others are scanned one after the other.

Letters beside the house's: F hidden units, A gates side by side, K the attention's hidden layer, U inputs side by side.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from attention_zoo.layers import recurrent as layers
from attention_zoo.layers.dropout import Dropout
from attention_zoo.protocols import Decoding

BATCH = ("source", "source_segments", "inputs", "target_segments")


@dataclasses.dataclass(frozen=True)
class Config(layers.Config):
  """The paper's sizes are the defaults; its dropout is 0.2 on English-German."""

  d_model: int = 1024
  d_hidden: int = 1024
  d_attention: int = 1024
  num_layers: int = 8  # of encoder and decoder; the encoder's first is a pair, one for each direction
  init_scale: float = 0.04

  def __post_init__(self):
    super().__post_init__()
    if self.num_layers < 2:
      raise ValueError(f"model.num_layers must be at least 2, got {self.num_layers}")


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c = config
  F = c.d_hidden
  layer = lambda width: 4 * F * (width + F + 1)
  encoder = 2 * layer(c.d_model) + layer(2 * F) + (c.num_layers - 2) * layer(F)
  decoder = layer(c.d_model + F) + (c.num_layers - 1) * layer(2 * F)
  attention = c.d_attention * (2 * F + 1)
  return c.vocab_size * (2 * c.d_model + F) + encoder + decoder + attention


def small() -> Config:
  """For tests."""
  return Config(vocab_size=11, d_model=8, d_hidden=6, d_attention=4, num_layers=3)


class GNMT(layers.AttendingFirst):
  """T beside J: T positions of each of J beams."""

  config: Config

  def setup(self):
    c, F = self.config, self.config.d_hidden
    init = layers.uniform(c.init_scale)
    embedding = functools.partial(layers.Embedding, c.vocab_size, dtype=c.dtype, init=init)
    layer = functools.partial(
      layers.Layer, "lstm", d_hidden=F, matmul_dtype=c.matmul_dtype, kernel_init=init, bias_init=init
    )
    self.source_embedding, self.target_embedding = embedding(c.d_model), embedding(c.d_model)
    self.encoder_0 = layers.Bidirectional(functools.partial(layer, c.d_model))
    upper = range(1, c.num_layers)
    self.encoder = [layer(2 * F if i == 1 else F, name=f"encoder_{i}") for i in upper]
    self.decoder_0 = layer(c.d_model, d_context=F)
    self.decoder = [layer(2 * F, name=f"decoder_{i}") for i in upper]
    self.cross_attention = layers.AdditiveAttention(F, F, c.d_attention, c.matmul_dtype, init)
    self.output = embedding(F)
    self.dropout = Dropout(c.dropout)

  def encode(self, source_BS, segments_BS, train=False):
    """What the decoder's steps read."""
    x_BSD = self.dropout(self.source_embedding(source_BS), train)
    x_BSD = jnp.concatenate(self.encoder_0(x_BSD, segments_BS), -1)
    for i, layer in enumerate(self.encoder, 1):
      h_BSD, _ = layer(self.dropout(x_BSD, train), reset_BT=layers.begins(segments_BS))
      x_BSD = h_BSD + x_BSD if i >= 2 else h_BSD
    kernels = self.decoder_0.kernels() | self.cross_attention.kernels()
    return {"memory": self.cross_attention.memory(x_BSD), "kernels": kernels}

  def decode(self, tokens_BJT, read, same_BTS, state, segments_BT=None, train=False):
    """(the last layer's output BJTD, the next state, weights_TBJS). state: (h_BJF, c_BJF) of each layer."""
    (B, J, T), (first, *rest) = tokens_BJT.shape, state
    reset_BT = None if segments_BT is None else layers.begins(segments_BT)
    x_BJTD = self.dropout(self.target_embedding(tokens_BJT), train)
    *found, weights_TBJS, first = layers.attending_layer(
      self.decoder_0, layers.additive_step, x_BJTD, read, same_BTS, first, reset_BT
    )
    x_BTF, context_BTF = (layers.rows_of(jnp.moveaxis(x_TBJF, 0, 2)).astype(self.config.dtype) for x_TBJF in found)
    states = [first]
    for i, (layer, own) in enumerate(zip(self.decoder, rest, strict=True), 1):
      input_BTU = self.dropout(jnp.concatenate([x_BTF, context_BTF], -1), train)
      h_BTF, own = layer(input_BTU, state=jax.tree.map(layers.rows_of, own), reset_BT=reset_BT)
      x_BTF = h_BTF + x_BTF if i >= 2 else h_BTF
      states.append(jax.tree.map(lambda x_BF: layers.beams_of(x_BF, J), own))
    return self.dropout(x_BTF.reshape(B, J, T, -1), train), tuple(states), weights_TBJS

  def zeros(self, B):
    return layers.zeros(B, self.config.d_hidden, self.config.num_layers)


Model = GNMT


def output_table(params):
  """The table_VD of the output, for losses that do not keep the logits (`training/loss.py`)."""
  return params["output"]["table_VD"]


def decoding(config: Config, params, inputs, *, num_beams) -> Decoding:
  """The Decoding of a batch of sentences. inputs: "source", "source_segments" of `data/batches.py`, BS.

  The cache is the states of the decoder's layers, [B, J, F], and the sum of the attention so far, [B, J, S].
  """
  return layers.make_decoding(GNMT(config), params, inputs, num_beams)
