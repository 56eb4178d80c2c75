"""Global and local attention on stacked LSTMs: Luong, Pham, Manning 2015, "Effective Approaches to Attention-based
Neural Machine Translation" (arXiv:1508.04025).

| what          | the paper                            | here                                                         |
|---------------|--------------------------------------|--------------------------------------------------------------|
| scores        | dot, general, concat (section 3.1)   | the same; "location" is in `ops/additive.py` alone           |
| local-m       | p_t = t                              | at most the source's last position, so that none sees nothing|
| local windows | only the window is computed          | all positions are, those outside get 0                       |
| input feeding | h~ beside the embedding              | the same; input_feeding=False leaves it out                  |
| first state   | the encoder's last one (section 2)   | the same, of every layer; h~ is 0 before the first step      |
| source        | as it is, or reversed                | reverse_source, </s> first; positions are of the sentence    |
| biases        | not stated                           | rounded as kernels are, but for those of the first layer     |
| vocabulary    | 50,000 words of each language        | one of pieces for both; the embeddings are two, as there     |
| first values  | uniform(-0.1, 0.1)                   | uniform(-init_scale, init_scale), 0.1                        |
| dropout       | 0.2, as Zaremba et al. 2014          | `dropout` on the input of each layer and on the output; what |
|               |                                      | is fed back is left whole                                    |
| packed rows   | one sentence pair a row              | segments keep the pairs of a row apart; same mathematics     |

Without input feeding all positions attend at once; with the score concat that takes memory O(T S F).

Letters beside the house's: F hidden units, A gates side by side, K the width of a score's hidden layer, U inputs side
by side.
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
from attention_zoo.ops.dot_product import dot
from attention_zoo.ops.recurrent import product
from attention_zoo.protocols import Decoding

BATCH = ("source", "source_segments", "source_positions", "inputs", "target_segments", "target_positions")


@dataclasses.dataclass(frozen=True)
class Config(layers.Config):
  """The paper's sizes are the defaults, and its best attention: local-p with the score general."""

  num_layers: int = 4
  attention: str = "local-p"  # or "global", "local-m"
  score: str = "general"  # or "dot", "concat"
  window: int = 10  # D: a local attention sees that many positions on either side of p_t
  input_feeding: bool = True
  reverse_source: bool = True
  dropout: float = 0.2
  init_scale: float = 0.1

  def choices(self):
    attention, score = ("global", "local-m", "local-p"), ("dot", "general", "concat")
    return super().choices() | {"attention": attention, "score": score}

  @property
  def widths(self):
    """Of the input of each layer of the encoder."""
    return (self.d_model, *[self.d_hidden] * (self.num_layers - 1))


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c = config
  F = c.d_hidden
  stack = sum(4 * F * (width + F + 1) for width in c.widths)
  score = {"dot": 0, "general": F * F, "concat": 2 * F * F + F}[c.score]
  position = F * F + F if c.attention == "local-p" else 0
  fed = 4 * F * F if c.input_feeding else 0
  return c.vocab_size * (2 * c.d_model + F) + 2 * stack + fed + score + position + 2 * F * F


def small() -> Config:
  """For tests."""
  return Config(vocab_size=11, d_model=8, d_hidden=6, num_layers=2, attention="global", dropout=0.0)


class Attention(layers.CrossAttention):
  """The parameters of score and position, and what the steps read; the steps are `_attend`."""

  config: Config

  def setup(self):
    c, F = self.config, self.config.d_hidden
    init = layers.uniform(c.init_scale)
    if c.score == "general":
      self.general_FK = self.param("general_FK", init, (F, F))
    if c.score == "concat":
      self.query_FK, self.key_UK = (self.param(name, init, (F, F)) for name in ("query_FK", "key_UK"))
      self.score_K = self.param("score_K", init, (F,))
    if c.attention == "local-p":
      self.position_FK = self.param("position_FK", init, (F, F))
      self.position_K = self.param("position_K", init, (F,))

  def kernels(self):
    c = self.config
    found = {}
    if c.score == "concat":
      found["query"] = self.query_FK
    if c.attention == "local-p":
      found["position"] = self.position_FK
    return {name: kernel.astype(c.matmul_dtype) for name, kernel in found.items()}

  def memory(self, memory_BSF, positions_BS):
    c, keys_BSF = self.config, memory_BSF
    if c.score != "dot":
      # h^T W h_s = h^T (W h_s): keys are projected once, and not a query at every step.
      kernel = self.general_FK.T if c.score == "general" else self.key_UK
      keys_BSF = product(memory_BSF, kernel.astype(c.matmul_dtype)).astype(memory_BSF.dtype)
    found = {"keys": keys_BSF[:, :, None], "values": memory_BSF[:, :, None], "positions": positions_BS}
    if c.score == "concat":
      found["score"] = layers.in_rows(self.score_K, memory_BSF.shape[0])[:, None]
    if c.attention == "local-p":
      found["position"] = layers.in_rows(self.position_K, memory_BSF.shape[0])
    return found


def _attend(c, multiply, h_BJF, memory, same_B1JS, position_BJ):
  """(attentional vector h~ BJF (eq. 5), weights_BJS). position_BJ: of the target token in its sentence."""
  if c.score == "concat":
    q_BJ1K = multiply("query", h_BJF)[:, :, None]
    logits_B1JS = layers.additive_logits_of_rows(q_BJ1K, memory["keys"], memory["score"])
  else:
    q_BJ1F = h_BJF[:, :, None].astype(memory["keys"].dtype)
    logits_B1JS = dot(q_BJ1F, memory["keys"])
  mask, factor_B1JS = same_B1JS, None
  if c.attention != "global":
    length_BJ = jnp.sum(same_B1JS[:, 0], -1).astype(jnp.float32)
    if c.attention == "local-m":
      p_BJ = jnp.minimum(position_BJ.astype(jnp.float32), length_BJ - 1)
    else:  # eq. 9
      p_BJK = jnp.tanh(multiply("position", h_BJF)) * memory["position"][:, None]
      p_BJ = length_BJ * jax.nn.sigmoid(p_BJK.sum(-1))
    off_B1JS = memory["positions"][:, None, None].astype(jnp.float32) - p_BJ[:, None, :, None]
    mask = mask & (jnp.abs(off_B1JS) <= c.window)
    if c.attention == "local-p":  # eq. 10: a Gaussian around p_t, with deviation D / 2
      factor_B1JS = jnp.exp(-(off_B1JS**2) / (2 * (c.window / 2) ** 2))
  context_BJF, weights_BJS = layers.mean_of_values(logits_B1JS, memory, mask, factor_B1JS)
  return jnp.tanh(multiply("combine", jnp.concatenate([context_BJF, h_BJF], -1))), weights_BJS


def _step(c, multiply, state, inputs, memory):
  """One target position: all layers and, where its result is fed to the next, the attention.
  Puts out (h~, weights), or the last layer's h alone."""
  states, fed = state  # fed: (h~,), or ()
  reset_B11, starts, keep, same_B11S, position_B1 = inputs
  if reset_B11 is not None:
    states = jax.tree.map(lambda start, old: jnp.where(reset_B11, start, old), starts, states)
    fed = tuple(jnp.where(reset_B11, 0.0, x) for x in fed)
  new, x = [], fed
  for i, own in enumerate(states):
    if i and keep is not None:
      x = (x[0] * keep[i - 1],)
    own = layers.step(multiply, f"decoder_{i}", "lstm", own, *x, bias=i > 0)
    new, x = [*new, own], own[:1]
  if not c.input_feeding:
    return (tuple(new), ()), x[0]
  attentional_BJF, weights_BJS = _attend(c, multiply, x[0], memory, same_B11S, position_B1)
  return (tuple(new), (attentional_BJF,)), (attentional_BJF, weights_BJS)


class Luong(nn.Module):
  """Tokens and segment ids are int32; segment 0 is padding. T beside J: T positions of each of J beams."""

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
    # Above the first layer all inputs are known only in the steps.
    first = layer(c.d_model, d_context=F if c.input_feeding else 0, name="decoder_0")
    self.decoder = [first] + [layer(0, d_context=F, name=f"decoder_{i}") for i in range(1, c.num_layers)]
    self.cross_attention = Attention(c)
    self.combine_UF = self.param("combine_UF", init, (2 * F, F))
    self.output = embedding(F)
    self.dropout = Dropout(c.dropout)

  def encode(self, source_BS, segments_BS, positions_BS, same_BTS, train=False):
    """(what the decoder's steps read, the states of all layers after the sentence of each target position)."""
    reverse = self.config.reverse_source
    memory_BSF, states = self.encoder(
      self.source_embedding(source_BS), reset_BT=layers.begins(segments_BS, reverse), reverse=reverse,
      return_states=True, train=train,
    )  # fmt: skip
    kernels = {"combine": self.combine_UF.astype(self.config.matmul_dtype)} | self.cross_attention.kernels()
    for layer in self.decoder:
      kernels |= layer.kernels()
    read = {"memory": self.cross_attention.memory(memory_BSF, positions_BS), "kernels": kernels}
    return read, jax.tree.map(lambda state_BSF: layers.at_edge(state_BSF, same_BTS, last=not reverse), states)

  def decode(self, tokens_BJT, read, same_BTS, positions_BT, state, reset_BT=None, starts=None, train=False):
    """(h~ BJTF, the next state, weights_TBJS). Either J or T is 1.

    same_BTS: what may be attended to. positions_BT: in the sentence. reset_BT: where a sentence begins, from the states
    in `starts` (BTF each). state: ((h_BJF, c_BJF) of each layer, (h~,) where it is fed).
    """
    c = self.config
    x_BJTD = self.dropout(self.target_embedding(tokens_BJT), train)
    reset_TB, position_TB, same_TBS = (layers.time_first(x) for x in (reset_BT, positions_BT, same_BTS))
    keep = None
    if train and c.dropout and c.num_layers > 1:
      B, J, T = tokens_BJT.shape
      ones_BTJF = jnp.ones((B, T, J, c.d_hidden))  # rows first, as they are split over devices
      keep = [layers.time_first(self.dropout(ones_BTJF, train)) for _ in range(c.num_layers - 1)]
    inputs = (
      None if reset_TB is None else reset_TB[:, :, None, None],
      jax.tree.map(lambda x_BTF: layers.time_first(x_BTF)[:, :, None], starts),
      keep,
      same_TBS[:, :, None, None],
      position_TB[:, :, None],
    )
    step, added = functools.partial(_step, c), self.decoder[0].project(x_BJTD)
    kernels, memory = read["kernels"], read["memory"]
    state, found = recurrent.scan(step, kernels, added, state, inputs, memory)
    if c.input_feeding:
      attentional_BJTF, weights_TBJS = jnp.moveaxis(found[0], 0, 2), found[1]
    else:  # all positions at once
      multiply = lambda name, x: product(x, kernels[name])
      B, J, T = tokens_BJT.shape
      h_BTF = jnp.moveaxis(found, 0, 2).reshape(B, J * T, c.d_hidden)
      h_BTF, weights_BTS = _attend(c, multiply, h_BTF, memory, same_BTS[:, None], positions_BT)
      attentional_BJTF = h_BTF.reshape(B, J, T, -1)
      weights_TBJS = jnp.moveaxis(weights_BTS.reshape(B, J, T, -1), 2, 0)
    return self.dropout(attentional_BJTF.astype(c.dtype), train), state, weights_TBJS

  def _first(self, states):
    """The decoder's state before the first step: states (BJF each) and an h~ of zeros."""
    return states, (jnp.zeros_like(states[0][0]),) if self.config.input_feeding else ()

  def hidden(self, batch, *, train=False):
    """The output BTD for a batch of `data/batches.py`."""
    c, segments_BT = self.config, batch["target_segments"]
    same_BTS = layers.same_segment(segments_BT, batch["source_segments"])
    source = (batch[name] for name in ("source", "source_segments", "source_positions"))
    read, starts = self.encode(*source, same_BTS, train)
    state = self._first(jax.tree.map(lambda x_BTF: x_BTF[:, :1], starts))
    x_B1TD, _, weights_TB1S = self.decode(
      batch["inputs"][:, None], read, same_BTS, batch["target_positions"], state, layers.begins(segments_BT), starts,
      train=train,
    )  # fmt: skip
    if c.attention == "local-p":  # the Gaussian leaves less than 1; what is looked at are distributions
      weights_TB1S /= jnp.maximum(weights_TB1S.sum(-1, keepdims=True), jnp.finfo(jnp.float32).tiny)
    self.cross_attention.sow_weights(weights_TB1S)
    return x_B1TD[:, 0]

  def __call__(self, batch, *, train=False):
    """Logits BTV (float32)."""
    return logits(self.config, self.hidden(batch, train=train), self.output.table_VD)

  def start(self, source_BS, segments_BS, positions_BS):
    same_B1S = layers.same_segment(jnp.ones_like(segments_BS[:, :1]), segments_BS)
    read, states = self.encode(source_BS, segments_BS, positions_BS, same_B1S)
    return read | {"same_B1S": same_B1S}, self._first(states)

  def step(self, tokens_BJT, t, read, state):
    positions_B1 = jnp.full((tokens_BJT.shape[0], 1), t)
    x_BJTD, state, weights_TBJS = self.decode(tokens_BJT, read, read["same_B1S"], positions_B1, state)
    return logits(self.config, x_BJTD, self.output.table_VD), state, weights_TBJS[0]


Model = Luong


def output_table(params):
  """The table_VD of the output, for losses that do not keep the logits (`training/loss.py`)."""
  return params["output"]["table_VD"]


def decoding(config: Config, params, inputs, *, num_beams) -> Decoding:
  """The Decoding of a batch of sentences. inputs: "source", "source_segments", "source_positions" of
  `data/batches.py`, BS.

  The cache is the decoder's states and what is fed back, [B, J, F], and the sum of the attention so far, [B, J, S].
  """
  return layers.make_decoding(Luong(config), params, inputs, num_beams)
