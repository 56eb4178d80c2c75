"""What recurrent models share: fields of their configs, embedding, layer, attention of one step, segments of a row.

Letters beside the house's: F hidden units, A gates side by side (`ops/recurrent.py`), K the width that queries and
keys are compared in, U the width of what is attended to, or of several inputs side by side.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.linear import glorot, logits
from attention_zoo.layers.rounding import rounded
from attention_zoo.ops import recurrent
from attention_zoo.ops.additive import additive_logits
from attention_zoo.ops.dot_product import weighted_mean
from attention_zoo.ops.recurrent import CELLS, product
from attention_zoo.protocols import Decoding

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Config:
  """Fields that every recurrent encoder-decoder has. A subclass adds to `choices`: field -> what it may be."""

  vocab_size: int  # one for both languages
  d_model: int = 1000  # of the embeddings
  d_hidden: int = 1000
  dropout: float = 0.0
  init_scale: float = 0.08  # of the first values, see the model's table
  dtype: str = "float32"  # of activations; parameters and states are float32
  matmul_dtype: str = "float32"  # what the operands of linear maps are rounded to; sums are float32

  def choices(self) -> dict[str, tuple[str, ...]]:
    return {"dtype": DTYPES, "matmul_dtype": DTYPES}

  def __post_init__(self):
    for field, choices in self.choices().items():
      if getattr(self, field) not in choices:
        raise ValueError(f"model.{field} must be one of {choices}, got {getattr(self, field)!r}")
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.type is int and value < 1:
        raise ValueError(f"model.{field.name} must be at least 1, got {value!r}")
    if not 0 <= self.dropout <= 1:
      raise ValueError(f"model.dropout must be from 0 to 1, got {self.dropout!r}")
    if self.init_scale <= 0:
      raise ValueError(f"model.init_scale must be above 0, got {self.init_scale!r}")


def uniform(scale):
  """Initialiser: uniform from -scale to scale."""
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -scale, scale)


class Embedding(nn.Module):
  """A table of vectors."""

  vocab_size: int
  width: int
  dtype: str = "float32"
  init: Callable | None = None  # N(0, 1 / width) by default

  def setup(self):
    init = self.init or nn.initializers.normal(self.width**-0.5)
    self.table_VD = self.param("table_VD", init, (self.vocab_size, self.width))

  def __call__(self, tokens):
    return jnp.take(self.table_VD, tokens, axis=0, mode="clip").astype(self.dtype)


class Layer(nn.Module):
  """One recurrent layer: of inputs that are known before the scan (kernel_DA), in the steps of a larger recurrence also
  of inputs that are not (context_UA). Where d_input is 0 there are only those.

  d_output: the width that its output is projected to (Sak et al. 2014); 0: it is not.
  """

  cell: str
  d_input: int
  d_hidden: int
  d_context: int = 0
  matmul_dtype: str = "float32"
  kernel_init: Callable = glorot(1)
  recurrent_init: Callable | None = None  # kernel_init by default
  bias_init: Callable = nn.initializers.zeros
  d_output: int = 0

  def setup(self):
    F = self.d_hidden
    A = CELLS[self.cell].width * F
    if self.d_input:
      self.kernel_DA = self.param("kernel_DA", self.kernel_init, (self.d_input, A))
    if self.d_context:
      self.context_UA = self.param("context_UA", self.kernel_init, (self.d_context, A))
    if self.d_output:
      self.projection_FD = self.param("projection_FD", self.kernel_init, (F, self.d_output))
    name, width = ("recurrent_DA", self.d_output) if self.d_output else ("recurrent_FA", F)
    self.recurrent_FA = self.param(name, self.recurrent_init or self.kernel_init, (width, A))
    self.bias_A = self.param("bias_A", self.bias_init, (A,))

  def __call__(self, x_BTD, **options):
    """`recurrent.layer` and its options."""
    h_BTF, state = self.recur(self.feed_forward(x_BTD), **options)
    return h_BTF.astype(x_BTD.dtype), state

  # The same in two parts

  def feed_forward(self, x_BTD, context_BTU=None):
    """What a step adds to its product with the state before: x W + b, float32, BTA; of any leading dimensions."""
    fed_BTA = product(x_BTD, self.kernel_DA.astype(self.matmul_dtype))
    if self.d_context:
      fed_BTA += product(context_BTU, self.context_UA.astype(self.matmul_dtype))
    return fed_BTA + jnp.expand_dims(self.bias_A, range(fed_BTA.ndim - 1))

  def recur(self, fed_BTA, **options):
    """`recurrent.of_projected` and its options."""
    if self.d_output:
      options["projection_UF"] = self.projection_FD.astype(self.matmul_dtype)
    return recurrent.of_projected(self.cell, fed_BTA, self.recurrent_FA.astype(self.matmul_dtype), **options)

  # In the steps of a larger recurrence, which `recurrent.scan` runs

  def kernels(self) -> dict:
    """What `step` multiplies by. Without a `kernel_DA` the bias is the last row, rounded as the kernels are."""
    rows = [self.recurrent_FA]
    rows += [self.context_UA] if self.d_context else []
    rows += [] if self.d_input else [self.bias_A[None]]
    whole = jnp.concatenate([row.astype(self.matmul_dtype) for row in rows])
    found = CELLS[self.cell].split(whole)
    if self.d_output:
      found["projection"] = self.projection_FD.astype(self.matmul_dtype)
    return {f"{self.name}/{block}": kernel for block, kernel in found.items()}

  def project(self, x_BJTD) -> dict:
    """What is added to the products of `step`, time first."""
    projected_TBJA = product(jnp.moveaxis(x_BJTD, 2, 0), self.kernel_DA.astype(self.matmul_dtype))
    projected_TBJA += self.bias_A[None, None, None]
    return {f"{self.name}/{block}": added for block, added in CELLS[self.cell].split(projected_TBJA).items()}


class Bidirectional(nn.Module):
  """A layer from left to right and one from right to left, each within its segment."""

  layer: Callable[[], Layer]

  def setup(self):
    self.forward, self.backward = self.layer(), self.layer()

  def __call__(self, x_BTD, segments_BT):
    """The outputs of both, BTF."""
    forward_BTF, _ = self.forward(x_BTD, reset_BT=begins(segments_BT))
    backward_BTF, _ = self.backward(x_BTD, reset_BT=begins(segments_BT, reverse=True), reverse=True)
    return forward_BTF, backward_BTF


class Stack(nn.Module):
  """Layers one on the other, with dropout on the input of each."""

  layer: Callable[[int], Layer]  # of the width of its input
  widths: tuple[int, ...]  # of the input of each layer
  dropout: float

  def setup(self):
    self.layers = [self.layer(width, name=f"layer_{i}") for i, width in enumerate(self.widths)]
    self.drop = Dropout(self.dropout)

  def __call__(self, x_BTD, *, state=None, starts=None, train=False, **options):
    """(the last layer's output, what `recurrent.layer` returns beside it for each layer). state, starts: of each."""
    found = []
    for i, layer in enumerate(self.layers):
      own = {"state": state and state[i], "starts": starts and starts[i]}
      x_BTD, after = layer(self.drop(x_BTD, train), **own, **options)
      found.append(after)
    return x_BTD, tuple(found)


def step(multiply, name, cell, state, *inputs, bias=False, projects=False):
  """The next state of the Layer `name`. inputs: those of this step, side by side the U of its context_UA.

  bias: its kernels have the bias as a row. projects: it has a d_output.
  """

  def gates(block, h_BJF):
    ones = [jnp.ones((*h_BJF.shape[:-1], 1), h_BJF.dtype)] if bias else []
    return multiply(f"{name}/{block}", jnp.concatenate([h_BJF, *inputs, *ones], -1))

  new = CELLS[cell].step(gates, state)
  return (multiply(f"{name}/projection", new[0]), *new[1:]) if projects else new


# Attention in a step. The queries are those of J beams; in training J = 1.


class CrossAttention(nn.Module):
  """Keeps the parameters of an attention that runs in the steps of a scan, where nothing can be sown."""

  def sow_weights(self, weights_TBJS):
    """For those who look at them; in training J = 1, as there is one head."""
    self.sow("intermediates", "weights", jnp.moveaxis(weights_TBJS, 0, 2))


class AdditiveAttention(CrossAttention):
  """Bahdanau et al. 2015, A.1.2: weights = softmax_s(v . tanh(W q + U h_s)). Its steps are `additive_step`."""

  d_query: int
  d_memory: int
  width: int
  matmul_dtype: str
  kernel_init: Callable

  def setup(self):
    self.query_FK = self.param("query_FK", self.kernel_init, (self.d_query, self.width))
    self.key_UK = self.param("key_UK", self.kernel_init, (self.d_memory, self.width))
    self.score_K = self.param("score_K", self.kernel_init, (self.width,))

  def kernels(self) -> dict:
    return {"query": self.query_FK.astype(self.matmul_dtype)}

  def memory(self, memory_BSU) -> dict:
    """What the steps read: the keys are projected once."""
    keys_BSK = product(memory_BSU, self.key_UK.astype(self.matmul_dtype)).astype(memory_BSU.dtype)
    return {
      "keys": keys_BSK[:, :, None],
      "values": memory_BSU[:, :, None],
      "score": in_rows(self.score_K, memory_BSU.shape[0])[:, None],
    }


def additive_step(multiply, q_BJF, memory, mask):
  """(what is attended to BJU, weights_BJS). memory: the module's; mask broadcasts to B1JS."""
  q_BJ1K = multiply("query", q_BJF)[:, :, None]
  return mean_of_values(additive_logits_of_rows(q_BJ1K, memory["keys"], memory["score"]), memory, mask)


@jax.checkpoint  # its hidden layer, of every pair of positions, is not kept but computed twice
def additive_logits_of_rows(q_BJ1K, k_BS1K, score_B1K):
  """logits_B1JS = score . tanh(q + k), with a score vector for each row."""
  one = lambda q_J1K, k_S1K, score_1K: additive_logits(q_J1K[None], k_S1K[None].astype(jnp.float32), score_1K)[0]
  return jax.vmap(one)(q_BJ1K, k_BS1K, score_B1K)


def mean_of_values(logits_B1JS, memory, mask, factor_B1JS=None):
  """What a step returns: the mean of the values BJU by the softmax of the logits, and the weights BJS.

  factor_B1JS: what the softmax is multiplied by, without being normalised again.
  """
  scaled = None if factor_B1JS is None else lambda weights: weights * factor_B1JS.astype(weights.dtype)
  out_BJ1U, weights_B1JS, _ = weighted_mean(logits_B1JS, memory["values"], mask=mask, dropout=scaled)
  return out_BJ1U[:, :, 0], weights_B1JS[:, 0]


def attending_layer(layer, attend, x_BJTD, read, same_BTS, state, reset_BT=None):
  """An LSTM that attends to the source by its own output of the step before, and reads what it has found.

  attend: a step such as `additive_step`. read: {"kernels": those of the layer and of the attention, "memory": the
  attention's}. same_BTS: what may be attended to. state: (h_BJF, c_BJF), zeros where reset_BT says that a sentence
  begins. Either J or T is 1.

  Returns (h_TBJF, what is attended to TBJU, weights_TBJS, the next state).
  """
  name, projects = layer.name, bool(layer.d_output)

  def one(multiply, state, inputs, memory):
    reset_B11, same_B11S = inputs
    if reset_B11 is not None:
      state = tuple(jnp.where(reset_B11, 0.0, x_BJF) for x_BJF in state)
    context_BJU, weights_BJS = attend(multiply, state[0], memory, same_B11S)
    state = step(multiply, name, "lstm", state, context_BJU, projects=projects)
    return state, (state[0], context_BJU, weights_BJS)

  reset_TB, same_TBS = time_first(reset_BT), time_first(same_BTS)
  inputs = None if reset_TB is None else reset_TB[:, :, None, None], same_TBS[:, :, None, None]
  state, found = recurrent.scan(one, read["kernels"], layer.project(x_BJTD), state, inputs, read["memory"])
  return *found, state


def zeros(B, d_hidden, num_layers, d_output=0):
  """(h_BJF, c_BJF) of each of so many LSTMs before the first step."""
  return ((jnp.zeros((B, 1, d_output or d_hidden)), jnp.zeros((B, 1, d_hidden))),) * num_layers


class AttendingFirst(nn.Module):
  """What models share whose decoder is LSTMs, the first of them an `attending_layer`, and begins with zeros.

  Tokens and segment ids are int32; segment 0 is padding. A model has a `config`, an Embedding `output`, a
  `cross_attention`, and these:

  encode(source_BS, segments_BS, train=False): what the decoder's steps read, a dict.
  zeros(B): the state before the first step.
  decode(tokens_BJT, read, same_BTS, state, segments_BT=None, train=False): (what the output layer reads BJTD, the next
  state, weights_TBJS). Either J or T is 1. same_BTS: what may be attended to. segments_BT: of the target, where
  sentences begin; None: one goes on.
  """

  attends = True

  def hidden(self, batch, *, train=False):
    """The output BTD for a batch of `data/batches.py`."""
    segments_BT = batch["target_segments"]
    same_BTS = same_segment(segments_BT, batch["source_segments"])
    read = self.encode(batch["source"], batch["source_segments"], train)
    state = self.zeros(segments_BT.shape[0])
    x_B1TD, _, weights_TB1S = self.decode(batch["inputs"][:, None], read, same_BTS, state, segments_BT, train)
    self.cross_attention.sow_weights(weights_TB1S)
    return x_B1TD[:, 0]

  def __call__(self, batch, *, train=False):
    """Logits BTV (float32)."""
    return logits(self.config, self.hidden(batch, train=train), self.output.table_VD)

  def start(self, source_BS, segments_BS, positions_BS):
    same_B1S = same_segment(jnp.ones_like(segments_BS[:, :1]), segments_BS)
    return self.encode(source_BS, segments_BS) | {"same_B1S": same_B1S}, self.zeros(source_BS.shape[0])

  def step(self, tokens_BJT, t, read, state):
    x_BJTD, state, weights_TBJS = self.decode(tokens_BJT, read, read["same_B1S"], state)
    return logits(self.config, x_BJTD, self.output.table_VD), state, weights_TBJS[0]


# Beams as rows, for layers that are scanned for themselves. Either J or T is 1.


def rows_of(x_BJF):
  """Each beam a row of its own."""
  return x_BJF.reshape(x_BJF.shape[0] * x_BJF.shape[1], *x_BJF.shape[2:])


def beams_of(x_BF, J):
  return x_BF.reshape(x_BF.shape[0] // J, J, *x_BF.shape[1:])


# Segments: several sentences in a row, read apart


def begins(segments_BT, reverse=False):
  """True where a segment begins, in the direction of reading: what `reset_BT` asks for."""
  edge = segments_BT[:, 1:] != segments_BT[:, :-1]
  return jnp.pad(edge, ((0, 0), (0, 1) if reverse else (1, 0)), constant_values=True)


def same_segment(target_segments_BT, source_segments_BS):
  """Which source position belongs to which target position, BTS. Padding (0) belongs to nothing."""
  same_BTS = target_segments_BT[:, :, None] == source_segments_BS[:, None]
  return same_BTS & (target_segments_BT > 0)[:, :, None]


def at_edge(x_BSF, same_BTS, last=False):
  """What stands at the first (last) position of the source segment of each target position, BTF.
  Where there is none: anything."""
  S = same_BTS.shape[2]
  where_BT = S - 1 - jnp.argmax(same_BTS[:, :, ::-1], -1) if last else jnp.argmax(same_BTS, -1)
  return jax.vmap(lambda x_SF, where_T: x_SF[where_T])(x_BSF, where_BT)


def time_first(x_BT):
  """The same with its first two dimensions changed over; None stays None."""
  return None if x_BT is None else jnp.moveaxis(x_BT, 1, 0)


def in_rows(x_K, rows):
  """A vector of parameters once for each row [B, K], for the context of a scan: the gradient is then summed over the
  rows after the scan, and not at every step."""
  return jnp.broadcast_to(x_K[None], (rows, len(x_K)))


# Decoding


def make_decoding(model, params, inputs, num_beams) -> Decoding:
  """The Decoding of a model with two methods.

  start(source, segments, positions) -> (read, state): what all steps read, and the first state, leaves [B, 1, ...].
  step(tokens_BJT, t, read, state) -> (logits_BJTV, state, weights_BJS of the attention, or None), one position.
  """
  source = [inputs.get(key) for key in ("source", "source_segments", "source_positions")]  # not all read the last
  read, state = model.apply({"params": params}, *source, method="start")
  B, S = source[0].shape
  cache = {"state": jax.tree.map(lambda x: jnp.broadcast_to(x, (B, num_beams, *x.shape[2:])), state)}
  if model.attends:
    attended_B1S = (source[1] == 0).astype(jnp.float32)[:, None]  # padding counts as covered
    cache["attended_BJS"] = jnp.broadcast_to(attended_B1S, (B, num_beams, S))

  def one(params, tokens_BJT, t, cache):
    logits_BJTV, state, weights_BJS = model.apply(
      {"params": params}, tokens_BJT, t, read, cache["state"], method="step"
    )
    new = {"state": state}
    if model.attends:
      new["attended_BJS"] = cache["attended_BJS"] + weights_BJS.astype(jnp.float32)
    return logits_BJTV, new

  params = rounded(one, params, jnp.zeros((B, num_beams, 1), jnp.int32), jnp.int32(0), cache)
  coverage = (lambda cache: cache["attended_BJS"]) if model.attends else None
  return Decoding(cache, functools.partial(one, params), coverage=coverage)
