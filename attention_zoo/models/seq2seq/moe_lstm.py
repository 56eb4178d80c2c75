"""LSTMs with mixtures of experts: Shazeer, Mirhoseini, Maziarz, Davis, Le, Hinton, Dean 2017, "Outrageously Large
Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer" (arXiv:1701.06538), the translation model of appendix E:
GNMT with fewer layers, a mixture before the last layer of the encoder and of the decoder.

What is said of the paper is from memory, but for equations 1 to 11 and its BLEU.

| what           | the paper                               | here                                                     |
|----------------|-----------------------------------------|----------------------------------------------------------|
| layers         | 3 and 2 LSTMs of 2048 cells, each       | the same; the encoder's first is a pair, one for each    |
|                | projected to 512 units                  | direction (GNMT), whose outputs are added                |
| attention      | sum_k v_k tanh(q W)_k tanh(h U)_k       | the same, by the first decoder layer's output of the step|
|                |                                         | before, to both decoder layers; its width is our choice  |
| residuals      | around all LSTMs and mixtures           | the same; what is attended to is not part of them        |
| mixture        | its output goes through a sigmoid       | the same                                                 |
| gating         | hierarchical, two of each level: four   | flat, the k best of all                                  |
|                | experts for a token                     |                                                          |
| room           | each expert takes who comes to it       | in training `capacity_factor` times its fair share of    |
|                |                                         | `group_rows` rows; in evaluation the same as the paper,  |
|                |                                         | at the cost of all experts                               |
| balance        | importance and load of the batch of all | the same, of the whole batch over all devices, but for   |
|                | devices                                 | train.accumulate, where it is of each part               |
| first state    | not stated                              | zeros                                                    |
| first values   | not stated                              | uniform(-init_scale, init_scale), 0.04; experts Glorot   |
| dropout        | on the output of embeddings, LSTMs and  | `dropout`, the same                                      |
|                | mixtures                                |                                                          |
| vocabulary     | 32,000 shared word pieces               | pieces, too; the embeddings are two                      |
| packed rows    | one sentence pair a row                 | segments keep the pairs of a row apart, but for the room |
|                |                                         | of experts in training                                   |

Only the first decoder layer stands in the recurrence of the attention; the second is scanned after it, and the mixture
sees all positions at once.

Letters beside the house's: F cells, A gates side by side, K the attention's width, U inputs side by side.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from attention_zoo.layers import recurrent as layers
from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.mixture_of_experts import ManyExperts
from attention_zoo.protocols import Decoding

BATCH = ("source", "source_segments", "inputs", "target_segments")


@dataclasses.dataclass(frozen=True)
class Config(layers.Config):
  """The paper's sizes are the defaults. d_model: of all layers' inputs and outputs; d_hidden: cells of an LSTM; d_ff:
  hidden units of an expert."""

  d_model: int = 512
  d_hidden: int = 2048
  d_attention: int = 512
  d_ff: int = 2048
  num_encoder_layers: int = 3
  num_decoder_layers: int = 2
  num_experts: int = 2048
  k: int = 4  # experts of a token
  capacity_factor: float = 2.0
  group_rows: int = 64
  balance: float = 0.01  # w_importance and w_load
  dropout: float = 0.4
  init_scale: float = 0.04

  def __post_init__(self):
    super().__post_init__()
    for name in ("num_encoder_layers", "num_decoder_layers"):
      if getattr(self, name) < 2:
        raise ValueError(f"model.{name} must be at least 2, got {getattr(self, name)}")
    if self.k > self.num_experts:
      raise ValueError(f"model.k must be at most model.num_experts = {self.num_experts}, got {self.k}")
    if self.capacity_factor <= 0:
      raise ValueError(f"model.capacity_factor must be above 0, got {self.capacity_factor!r}")


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c = config
  D, F = c.d_model, c.d_hidden
  layer = lambda width: 4 * F * (width + D + 1) + F * D
  encoder = (c.num_encoder_layers + 1) * layer(D)
  decoder = c.num_decoder_layers * layer(2 * D)
  attention = c.d_attention * (2 * D + 1)
  mixture = 2 * c.num_experts * D * (1 + c.d_ff)
  return 3 * c.vocab_size * D + encoder + decoder + attention + 2 * mixture


def small() -> Config:
  """For tests."""
  return Config(
    vocab_size=11, d_model=8, d_hidden=6, d_attention=4, d_ff=4, num_experts=4, k=2, group_rows=2, dropout=0.0
  )


class ProductAttention(layers.AdditiveAttention):
  """weights = softmax_s(sum_k v_k tanh(q W)_k tanh(h_s U)_k): products of matrices alone. Its steps are `_attend`."""

  def memory(self, memory_BSU):
    read = super().memory(memory_BSU)
    score_B11K = read.pop("score")[:, None]
    keys_BS1K = jnp.tanh(read["keys"].astype(jnp.float32)) * score_B11K
    return read | {"keys": keys_BS1K[:, :, 0].astype(self.matmul_dtype)}


def _attend(multiply, q_BJF, memory, mask):
  """(what is attended to BJU, weights_BJS)."""
  keys_BSK = memory["keys"]
  q_BJK = jnp.tanh(multiply("query", q_BJF)).astype(keys_BSK.dtype)
  logits_BJS = jnp.einsum("BJK,BSK->BJS", q_BJK, keys_BSK, preferred_element_type=jnp.float32)
  return layers.mean_of_values(logits_BJS[:, None], memory, mask)


class MoELSTM(layers.AttendingFirst):
  """T beside J: T positions of each of J beams."""

  config: Config

  def setup(self):
    c, D = self.config, self.config.d_model
    init = layers.uniform(c.init_scale)
    embedding = functools.partial(layers.Embedding, c.vocab_size, D, dtype=c.dtype, init=init)
    layer = functools.partial(
      layers.Layer, "lstm", d_hidden=c.d_hidden, d_output=D, matmul_dtype=c.matmul_dtype, kernel_init=init,
      bias_init=init,
    )  # fmt: skip
    mixture = functools.partial(
      ManyExperts, c.d_ff, c.num_experts, c.k, c.capacity_factor, c.balance, c.matmul_dtype, group_rows=c.group_rows
    )
    self.source_embedding, self.target_embedding = embedding(), embedding()
    self.encoder_0 = layers.Bidirectional(functools.partial(layer, D))
    self.encoder = [layer(D, name=f"encoder_{i}") for i in range(1, c.num_encoder_layers)]
    self.decoder_0 = layer(D, d_context=D)
    self.decoder = [layer(2 * D, name=f"decoder_{i}") for i in range(1, c.num_decoder_layers)]
    self.encoder_mixture, self.decoder_mixture = mixture(), mixture()
    self.cross_attention = ProductAttention(D, D, c.d_attention, c.matmul_dtype, init)
    self.output = embedding()
    self.dropout = Dropout(c.dropout)

  def mixed(self, mixture, x_BTD, segments_BT, train):
    y_BTD = jax.nn.sigmoid(mixture(x_BTD, segments_BT, train=train).astype(jnp.float32)).astype(x_BTD.dtype)
    return x_BTD + self.dropout(y_BTD, train)

  def encode(self, source_BS, segments_BS, train=False):
    """What the decoder's steps read."""
    x_BSD = self.dropout(self.source_embedding(source_BS), train)
    x_BSD = x_BSD + self.dropout(sum(self.encoder_0(x_BSD, segments_BS)), train)
    for layer in self.encoder:
      if layer is self.encoder[-1]:
        x_BSD = self.mixed(self.encoder_mixture, x_BSD, segments_BS, train)
      h_BSD, _ = layer(x_BSD, reset_BT=layers.begins(segments_BS))
      x_BSD = x_BSD + self.dropout(h_BSD, train)
    kernels = self.decoder_0.kernels() | self.cross_attention.kernels()
    return {"memory": self.cross_attention.memory(x_BSD), "kernels": kernels}

  def decode(self, tokens_BJT, read, same_BTS, state, segments_BT=None, train=False):
    """(the last layer's output BJTD, the next state, weights_TBJS). state: (h_BJD, c_BJF) of each layer."""
    J, (first, *rest), dtype = tokens_BJT.shape[1], state, self.config.dtype
    reset_BT = None if segments_BT is None else layers.begins(segments_BT)
    x_BJTD = self.dropout(self.target_embedding(tokens_BJT), train)
    *found, weights_TBJS, first = layers.attending_layer(
      self.decoder_0, _attend, x_BJTD, read, same_BTS, first, reset_BT
    )
    h_BTD, context_BTD = (layers.rows_of(jnp.moveaxis(x_TBJD, 0, 2)).astype(dtype) for x_TBJD in found)
    x_BTD = layers.rows_of(x_BJTD) + self.dropout(h_BTD, train)
    states = [first]
    for layer, own in zip(self.decoder, rest, strict=True):
      if layer is self.decoder[-1]:
        x_BTD = self.mixed(self.decoder_mixture, x_BTD, segments_BT, train)
      own = jax.tree.map(layers.rows_of, own)
      h_BTD, own = layer(jnp.concatenate([x_BTD, context_BTD], -1), state=own, reset_BT=reset_BT)
      x_BTD = x_BTD + self.dropout(h_BTD, train)
      states.append(jax.tree.map(lambda x_BF: layers.beams_of(x_BF, J), own))
    return layers.beams_of(x_BTD, J), tuple(states), weights_TBJS

  def zeros(self, B):
    c = self.config
    return layers.zeros(B, c.d_hidden, c.num_decoder_layers, c.d_model)


Model = MoELSTM


def output_table(params):
  """The table_VD of the output, for losses that do not keep the logits (`training/loss.py`)."""
  return params["output"]["table_VD"]


def decoding(config: Config, params, inputs, *, num_beams) -> Decoding:
  """The Decoding of a batch of sentences. inputs: "source", "source_segments" of `data/batches.py`, BS.

  The cache is the states of the decoder's layers, [B, J, F], and the sum of the attention so far, [B, J, S].
  """
  return layers.make_decoding(MoELSTM(config), params, inputs, num_beams)
