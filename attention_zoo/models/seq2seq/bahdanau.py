"""RNNsearch: Bahdanau, Cho, Bengio 2015, "Neural Machine Translation by Jointly Learning to Align and Translate"
(arXiv:1409.0473), as appendix A has it.

| what          | the paper                              | here                                                       |
|---------------|----------------------------------------|------------------------------------------------------------|
| vocabulary    | 30,000 words of each language          | one of pieces for both; the embeddings are two, as there   |
| gated unit    | z lets the new state in                | z keeps the old one, `ops/recurrent.py`: the same with -z  |
| biases        | left out "to make them less cluttered" | in the gates and in the output layer; not in attention     |
| first values  | recurrent kernels orthogonal, others   | the same; the attention's are Gaussian as well (0.01, and  |
|               | N(0, 0.01^2), attention's N(0,         | v too, so that gradients reach it); another deviation is   |
|               | 0.001^2), its v and all biases 0       | `init_scale`                                               |
| dropout       | none                                   | `dropout`, 0 by default, on embeddings and on the output   |
| optimizer     | Adadelta                               | the config's                                               |
| packed rows   | one sentence pair a row                | segments keep the pairs of a row apart; same mathematics   |

Letters beside the house's: F hidden units n, A gates side by side, K the alignment model's width n', U = 2F of an
annotation or of all that the output layer reads.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers import recurrent as layers
from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.linear import logits
from attention_zoo.ops import recurrent
from attention_zoo.ops.recurrent import product
from attention_zoo.protocols import Decoding

BATCH = ("source", "source_segments", "inputs", "target_segments")


@dataclasses.dataclass(frozen=True)
class Config(layers.Config):
  """The paper's RNNsearch, under its sizes: m = d_model, n = d_hidden, n' = d_attention, l = d_maxout."""

  d_model: int = 620
  d_attention: int = 1000
  d_maxout: int = 500
  init_scale: float = 0.01


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c = config
  m, n = c.d_model, c.d_hidden
  tables = c.vocab_size * (2 * m + c.d_maxout)
  encoder = 2 * 3 * n * (m + n + 1)
  decoder = 3 * n * (m + n + 2 * n + 1) + n * n
  attention = c.d_attention * (n + 2 * n + 1)
  return tables + encoder + decoder + attention + 2 * c.d_maxout * (n + m + 2 * n + 1)


def small() -> Config:
  """For tests."""
  return Config(vocab_size=11, d_model=8, d_hidden=6, d_attention=5, d_maxout=4)


class Bahdanau(nn.Module):
  """Tokens and segment ids are int32; segment 0 is padding. T beside J: T positions of each of J beams."""

  config: Config
  attends = True

  def setup(self):
    c = self.config
    n, kernel_init = c.d_hidden, nn.initializers.normal(c.init_scale)
    embedding = functools.partial(layers.Embedding, c.vocab_size, dtype=c.dtype, init=kernel_init)
    self.source_embedding, self.target_embedding = embedding(c.d_model), embedding(c.d_model)
    layer = functools.partial(
      layers.Layer, "gru", c.d_model, n, matmul_dtype=c.matmul_dtype, kernel_init=kernel_init,
      recurrent_init=orthogonal_blocks,
    )  # fmt: skip
    self.encoder = layers.Bidirectional(layer)
    self.initial_FF = self.param("initial_FF", kernel_init, (n, n))
    self.decoder = layer(d_context=2 * n)
    self.cross_attention = layers.AdditiveAttention(n, 2 * n, c.d_attention, c.matmul_dtype, kernel_init)
    self.readout_UA = self.param("readout_UA", kernel_init, (n + c.d_model + 2 * n, 2 * c.d_maxout))
    self.readout_bias_A = self.param("bias_readout_A", nn.initializers.zeros, (2 * c.d_maxout,))
    self.output = embedding(c.d_maxout)
    self.dropout = Dropout(c.dropout)

  def encode(self, source_BS, segments_BS, train=False):
    """(what the decoder's steps read, the states of the backward layer BSF)."""
    x_BSD = self.dropout(self.source_embedding(source_BS), train)
    forward_BSF, backward_BSF = self.encoder(x_BSD, segments_BS)
    memory = self.cross_attention.memory(jnp.concatenate([forward_BSF, backward_BSF], -1))
    return {"memory": memory, "kernels": self.decoder.kernels() | self.cross_attention.kernels()}, backward_BSF

  def first_state(self, backward_BSF, same_BTS):
    """s_0 = tanh(W_s h_1), of the backward layer and of the sentence of each target position; BTF."""
    first_BTF = layers.at_edge(backward_BSF, same_BTS)
    return jnp.tanh(product(first_BTF, self.initial_FF.astype(self.config.matmul_dtype)))

  def decode(self, tokens_BJT, read, same_BTS, state, reset_BT=None, starts_BTF=None, train=False):
    """(the maxout layer's output BJTD, the next state, weights_TBJS).

    same_BTS: what may be attended to. reset_BT: where a sentence begins, from the state in starts_BTF.
    """
    c = self.config
    x_BJTD = self.dropout(self.target_embedding(tokens_BJT), train)
    reset_TB, starts_TBF, same_TBS = (layers.time_first(x) for x in (reset_BT, starts_BTF, same_BTS))
    inputs = (
      None if reset_TB is None else reset_TB[:, :, None, None],
      None if starts_TBF is None else starts_TBF[:, :, None],
      same_TBS[:, :, None, None],
    )
    added = self.decoder.project(x_BJTD)
    state, (before, context, weights) = recurrent.scan(_step, read["kernels"], added, state, inputs, read["memory"])
    before_BJTF, context_BJTU = (jnp.moveaxis(x_TBJF, 0, 2) for x_TBJF in (before, context))
    x_BJTU = jnp.concatenate([before_BJTF, x_BJTD, context_BJTU], -1)
    x_BJTA = product(x_BJTU, self.readout_UA.astype(c.matmul_dtype)) + self.readout_bias_A[None, None, None]
    x_BJTD = x_BJTA.reshape(*x_BJTA.shape[:3], c.d_maxout, 2).max(-1).astype(c.dtype)
    return self.dropout(x_BJTD, train), state, weights

  def hidden(self, batch, *, train=False):
    """The output BTD for a batch of `data/batches.py`."""
    same_BTS = layers.same_segment(batch["target_segments"], batch["source_segments"])
    read, backward_BSF = self.encode(batch["source"], batch["source_segments"], train)
    starts_BTF = self.first_state(backward_BSF, same_BTS)
    nothing = (jnp.zeros_like(starts_BTF[:, :1]),)
    reset_BT = layers.begins(batch["target_segments"])
    x_B1TD, _, weights_TB1S = self.decode(
      batch["inputs"][:, None], read, same_BTS, nothing, reset_BT, starts_BTF, train=train
    )
    self.cross_attention.sow_weights(weights_TB1S)
    return x_B1TD[:, 0]

  def __call__(self, batch, *, train=False):
    """Logits BTV (float32)."""
    return logits(self.config, self.hidden(batch, train=train), self.output.table_VD)

  def start(self, source_BS, segments_BS, positions_BS):
    read, backward_BSF = self.encode(source_BS, segments_BS)
    read["same_B1S"] = layers.same_segment(jnp.ones_like(segments_BS[:, :1]), segments_BS)
    return read, (self.first_state(backward_BSF, read["same_B1S"]),)

  def step(self, tokens_BJT, t, read, state):
    x_BJTD, state, weights_TBJS = self.decode(tokens_BJT, read, read["same_B1S"], state)
    return logits(self.config, x_BJTD, self.output.table_VD), state, weights_TBJS[0]


def _step(multiply, state, inputs, memory):
  """s_{i-1} -> s_i. Puts out s_{i-1}, the context c_i and the weights."""
  reset_B11, start_B1F, same_B11S = inputs
  if reset_B11 is not None:
    state = (jnp.where(reset_B11, start_B1F, state[0]),)
  context_BJU, weights_BJS = layers.additive_step(multiply, state[0], memory, same_B11S)
  return layers.step(multiply, "decoder", "gru", state, context_BJU), (state[0], context_BJU, weights_BJS)


Model = Bahdanau


def orthogonal_blocks(key, shape, dtype=jnp.float32):
  """The kernel FA of each gate orthogonal by itself."""
  F, A = shape
  one = nn.initializers.orthogonal()
  return jnp.concatenate([one(key, (F, F), dtype) for key in jax.random.split(key, A // F)], axis=1)


def output_table(params):
  """The table_VD of the output, for losses that do not keep the logits (`training/loss.py`)."""
  return params["output"]["table_VD"]


def decoding(config: Config, params, inputs, *, num_beams) -> Decoding:
  """The Decoding of a batch of sentences. inputs: "source", "source_segments" of `data/batches.py`, BS.

  The cache is the decoder's state, [B, J, F], and the sum of the attention of the steps so far, [B, J, S].
  """
  return layers.make_decoding(Bahdanau(config), params, inputs, num_beams)
