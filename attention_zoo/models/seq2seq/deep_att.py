"""Deep-Att: Zhou, Cao, Wang, Li, Xu 2016, "Deep Recurrent Models with Fast-Forward Connections for Neural Machine
Translation" (TACL 4, arXiv:1606.04199).

An LSTM is taken apart: f = W x + b is what its gates get from below, h = r(f, h of the step before) its output. A
fast-forward connection hands f on to the layer above, past the gates and the recurrence, beside h:

  f^1 = W^1 x,  f^k = W^k [half(f^(k-1)), drop(h^(k-1))],  half: the first half of the elements

What is said of the paper is from memory, but for its title, its idea, its depths and its BLEU.

| what           | the paper                               | here                                                     |
|----------------|-----------------------------------------|----------------------------------------------------------|
| encoder        | two columns of 9 layers; a layer reads  | the same; the first column begins from left to right     |
|                | in the other direction than the one     |                                                          |
|                | below; the columns begin differently    |                                                          |
| interface      | e_t = [h, f of both columns' last layer]| the same                                                 |
|                | times a W_p that leaves a quarter       |                                                          |
| attention      | of the first decoder layer's output of  | the same, additive; its hidden layer of `d_attention` is |
|                | the step before, to that layer alone    | our choice                                               |
| output         | of the last layer                       | reads [half(f), h], as a layer above it would            |
| cell           | LSTM with peepholes                     | LSTM without                                             |
| biases         | not stated                              | in f, so that they go along with it                      |
| first state    | not stated                              | zeros: the decoder knows the source by attention alone   |
| first values   | not stated                              | uniform(-init_scale, init_scale), 0.07                   |
| dropout        | 0.1 on h where it goes up               | `dropout`, the same                                      |
| vocabulary     | words, unknown ones replaced afterwards | pieces; the embeddings are two; config.decode.           |
|                | (PosUnk)                                | replace_unknown                                          |
| packed rows    | one sentence pair a row                 | segments keep the pairs of a row apart; same mathematics |

Only the first decoder layer stands in the recurrence of the attention; the others are scanned one after the other.

Letters beside the house's: F hidden units, A = 4F gates side by side, K the width of what is attended to or of the
attention's hidden layer, U inputs side by side.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from attention_zoo.layers import recurrent as layers
from attention_zoo.layers.dropout import Dropout
from attention_zoo.ops.recurrent import product
from attention_zoo.protocols import Decoding

BATCH = ("source", "source_segments", "inputs", "target_segments")


@dataclasses.dataclass(frozen=True)
class Config(layers.Config):
  """The sizes of the paper's best single model are the defaults."""

  d_model: int = 256
  d_hidden: int = 512
  d_attention: int = 512
  num_encoder_layers: int = 9  # of each of two columns
  num_decoder_layers: int = 7
  dropout: float = 0.1
  init_scale: float = 0.07

  @property
  def d_interface(self):
    """Of e_t: h and f of both columns."""
    return 2 * (1 + 4) * self.d_hidden

  @property
  def d_attended(self):
    return self.d_interface // 4

  @property
  def d_upper(self):
    """Of half(f) beside h, the input of all layers but the first."""
    return (2 + 1) * self.d_hidden


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c = config
  layer = lambda width: 4 * c.d_hidden * (width + c.d_hidden + 1)
  encoder = 2 * (layer(c.d_model) + (c.num_encoder_layers - 1) * layer(c.d_upper))
  decoder = layer(c.d_model + c.d_attended) + (c.num_decoder_layers - 1) * layer(c.d_upper)
  attention = c.d_interface * c.d_attended + c.d_attention * (c.d_hidden + c.d_attended + 1)
  return c.vocab_size * (2 * c.d_model + c.d_upper) + encoder + decoder + attention


def small() -> Config:
  """For tests."""
  return Config(
    vocab_size=11, d_model=8, d_hidden=6, d_attention=4, num_encoder_layers=3, num_decoder_layers=2, dropout=0.0
  )


class DeepAtt(layers.AttendingFirst):
  """T beside J: T positions of each of J beams."""

  config: Config

  def setup(self):
    c = self.config
    init = layers.uniform(c.init_scale)
    embedding = functools.partial(layers.Embedding, c.vocab_size, dtype=c.dtype, init=init)
    layer = functools.partial(
      layers.Layer, "lstm", d_hidden=c.d_hidden, matmul_dtype=c.matmul_dtype, kernel_init=init, bias_init=init
    )
    width = lambda k: c.d_upper if k else c.d_model
    column = lambda name: [layer(width(k), name=f"{name}_{k}") for k in range(c.num_encoder_layers)]
    self.source_embedding, self.target_embedding = embedding(c.d_model), embedding(c.d_model)
    self.first_column, self.second_column = column("encoder_first"), column("encoder_second")
    self.interface_UK = self.param("interface_UK", init, (c.d_interface, c.d_attended))
    self.cross_attention = layers.AdditiveAttention(c.d_hidden, c.d_attended, c.d_attention, c.matmul_dtype, init)
    self.decoder_0 = layer(c.d_model, d_context=c.d_attended)
    self.decoder = [layer(c.d_upper, name=f"decoder_{k}") for k in range(1, c.num_decoder_layers)]
    self.output = embedding(c.d_upper)
    self.dropout = Dropout(c.dropout)

  def upper(self, f_BTA, h_BTF, train):
    """The input of the layer above, of any leading dimensions."""
    half_BTA = f_BTA[..., : f_BTA.shape[-1] // 2].astype(self.config.dtype)
    return jnp.concatenate([half_BTA, self.dropout(h_BTF.astype(self.config.dtype), train)], -1)

  def column(self, stack, x_BSD, segments_BS, reverse, train):
    """[h, f] of the last layer, BSU. reverse: the direction of the first."""
    f_BSA = h_BSF = None
    for k, layer in enumerate(stack):
      f_BSA = layer.feed_forward(self.upper(f_BSA, h_BSF, train) if k else x_BSD)
      h_BSF, _ = layer.recur(f_BSA, reset_BT=layers.begins(segments_BS, reverse), reverse=reverse)
      reverse = not reverse
    return jnp.concatenate([h_BSF, f_BSA], -1)

  def encode(self, source_BS, segments_BS, train=False):
    """What the decoder's steps read."""
    c, x_BSD = self.config, self.source_embedding(source_BS)
    both = (self.first_column, False), (self.second_column, True)
    columns = [self.column(stack, x_BSD, segments_BS, reverse, train) for stack, reverse in both]
    memory_BSK = product(jnp.concatenate(columns, -1), self.interface_UK.astype(c.matmul_dtype)).astype(c.dtype)
    kernels = self.decoder_0.kernels() | self.cross_attention.kernels()
    return {"memory": self.cross_attention.memory(memory_BSK), "kernels": kernels}

  def decode(self, tokens_BJT, read, same_BTS, state, segments_BT=None, train=False):
    """(what the output reads BJTU, the next state, weights_TBJS). state: (h_BJF, c_BJF) of each layer."""
    J, (first, *rest) = tokens_BJT.shape[1], state
    reset_BT = None if segments_BT is None else layers.begins(segments_BT)
    x_BJTD = self.target_embedding(tokens_BJT)
    *found, weights_TBJS, first = layers.attending_layer(
      self.decoder_0, layers.additive_step, x_BJTD, read, same_BTS, first, reset_BT
    )
    h_BTF, context_BTK = (layers.rows_of(jnp.moveaxis(x_TBJF, 0, 2)) for x_TBJF in found)
    f_BTA = self.decoder_0.feed_forward(layers.rows_of(x_BJTD), context_BTK)
    states = [first]
    for layer, own in zip(self.decoder, rest, strict=True):
      f_BTA = layer.feed_forward(self.upper(f_BTA, h_BTF, train))
      h_BTF, own = layer.recur(f_BTA, state=jax.tree.map(layers.rows_of, own), reset_BT=reset_BT)
      states.append(jax.tree.map(lambda x_BF: layers.beams_of(x_BF, J), own))
    return layers.beams_of(self.upper(f_BTA, h_BTF, train), J), tuple(states), weights_TBJS

  def zeros(self, B):
    return layers.zeros(B, self.config.d_hidden, self.config.num_decoder_layers)


Model = DeepAtt


def output_table(params):
  """The table_VD of the output, for losses that do not keep the logits (`training/loss.py`)."""
  return params["output"]["table_VD"]


def decoding(config: Config, params, inputs, *, num_beams) -> Decoding:
  """The Decoding of a batch of sentences. inputs: "source", "source_segments" of `data/batches.py`, BS.

  The cache is the states of the decoder's layers, [B, J, F], and the sum of the attention so far, [B, J, S].
  """
  return layers.make_decoding(DeepAtt(config), params, inputs, num_beams)
