"""What all Transformers of the zoo share: fields of their configs, embedding, layer, stack,
and how many parameters those have.

Letters beside the house's: M = J T, the T new positions of each of J beams in cached decoding (`ops/cache.py`).
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo import grammar
from attention_zoo.layers import positions as positions_lib
from attention_zoo.layers import residual
from attention_zoo.layers.attention import MultiHeadAttention
from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.feed_forward import ACTIVATIONS, FeedForward
from attention_zoo.layers.mixture_of_experts import MixtureOfExperts
from attention_zoo.layers.positions import Positions
from attention_zoo.layers.rounding import rounded
from attention_zoo.ops import cache as cache_lib
from attention_zoo.ops import masks, variant
from attention_zoo.protocols import Decoding

DTYPES = ("float32", "bfloat16")
CHOICES = {
  "residual": residual.KINDS,
  "positions": positions_lib.KINDS,
  "position_mode": positions_lib.MODES,
  "activation": tuple(ACTIVATIONS),
  "dtype": DTYPES,
  "matmul_dtype": DTYPES,
}


class Layers(NamedTuple):
  """The layers of one stack.

  attention: what a config may write, "local(block_width=256), memory_compressed": the layers take these self-attentions
  in turn, first, second, first, .... causal: whether self-attention must not see the future. cross: whether a layer
  attends to a memory too.
  """

  number: int
  attention: str
  causal: bool
  cross: bool = False


@dataclasses.dataclass(frozen=True)
class Config:
  """Fields that a Transformer's Config has, under the names of Vaswani et al. 2017; the defaults are its base model."""

  vocab_size: int
  d_model: int = 512
  d_ff: int = 2048
  num_heads: int = 8
  d_k: int = 64
  d_v: int = 64
  dropout: float = 0.1
  attention_dropout: float = 0.0
  residual: str = "post"  # where the normalisation stands; or "pre", or "none": no residual connections
  norm_epsilon: float = 1e-6
  bias: bool = False  # of attention's linear maps; those of the feed-forward network always have one
  feed_forward: str = "dense"  # or "mixture_of_experts(num_experts=4, k=2)"
  activation: str = "relu"  # or "gelu", "gelu_tanh", "swish"
  scale_embedding: bool = True  # times sqrt(d_model)
  output_bias: bool = False  # of the logits
  positions: str = "sinusoidal"  # or "learned", "scalar", "none"
  position_mode: str = "add"  # or "add_every_layer", "concatenate"
  max_length: int = 1024  # of learned positions, and of what else is indexed by position
  dtype: str = "float32"  # of activations; parameters are float32
  matmul_dtype: str = "float32"  # what the operands of linear maps are rounded to; sums are float32
  remat: bool = False  # training keeps the inputs of layers only and computes the rest anew: less memory, more time
  scan_layers: bool = False  # a stack is a loop over its layers: less to compile, but their parameters are copied

  def __post_init__(self):
    for field, choices in CHOICES.items():
      if getattr(self, field) not in choices:
        raise ValueError(f"model.{field} must be one of {choices}, got {getattr(self, field)!r}")
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.type is int and value < (low := field.metadata.get("low", 1)):
        raise ValueError(f"model.{field.name} must be at least {low}, got {value!r}")
      if field.type is float and not 0 <= value <= 1:
        raise ValueError(f"model.{field.name} must be from 0 to 1, got {value!r}")
    for field, layers in self.stacks().items():
      self._check(field, lambda layers=layers: self.variants(layers))
      if self.scan_layers and self.turns(layers) > 1:
        raise ValueError(f"model.scan_layers needs layers that are alike, but model.{field} = {layers.attention!r}")
    self._check("feed_forward", self.make_feed_forward)

  def _check(self, field, make):
    try:
      make()
    except (TypeError, ValueError) as error:
      raise ValueError(f"model.{field}: {error}") from error

  def stacks(self) -> dict[str, Layers]:
    """The stacks of the model, by the name of the field that holds their attention."""
    raise NotImplementedError

  def variants(self, layers: Layers) -> list[variant.Variant]:
    """The self-attention of each layer. Raises ValueError, for one that is not used too."""
    sizes = variant.Sizes(self.d_model, self.num_heads, self.d_k, self.d_v, self.max_length, layers.causal)
    in_turn = [variant.make(text, sizes, self.more_attentions()) for text in grammar.split(layers.attention)]
    return [in_turn[i % len(in_turn)] for i in range(layers.number)]

  def more_attentions(self) -> tuple:
    """Functions beside those that every model takes, see `variant.make`."""
    return ()

  def turns(self, layers: Layers) -> int:
    """How many self-attentions the layers take in turn."""
    return len(grammar.split(layers.attention))

  def make_feed_forward(self):
    name, options = grammar.parse(self.feed_forward)
    if name == "dense":
      return FeedForward(self.d_ff, self.activation, self.matmul_dtype, **options)
    if name != "mixture_of_experts":
      raise ValueError(f"{name!r} is not one of dense, mixture_of_experts")
    if self.activation != "relu":
      raise ValueError(f"the experts have the activation relu, not {self.activation!r}")
    return MixtureOfExperts(self.d_ff, matmul_dtype=self.matmul_dtype, **options)

  @property
  def packs(self) -> bool:
    """Whether several sentences in a row give what they give in rows of their own."""
    return all(attention.packs for layers in self.stacks().values() for attention in self.variants(layers))

  @property
  def bounded(self) -> bool:
    """Whether nothing longer than max_length can be computed, because some parameter has a row for each position."""
    variants = [attention for layers in self.stacks().values() for attention in self.variants(layers)]
    return self.positions == "learned" or any(attention.max_length for attention in variants)


class Embedding(nn.Module):
  """One table for every place that has tokens, and for the output (section 3.4)."""

  config: Config

  def setup(self):
    c = self.config
    self.table_VD = self.param("table_VD", nn.initializers.normal(c.d_model**-0.5), (c.vocab_size, c.d_model))

  def __call__(self, tokens):
    # Rows first, then the cast: only the rows of the batch are converted.
    rows = jnp.take(self.table_VD, tokens, axis=0, mode="clip")
    scale = self.config.d_model**0.5 if self.config.scale_embedding else 1
    return (rows * scale).astype(self.config.dtype)


def make_positions(c):
  return Positions(c.positions, c.position_mode, c.max_length, c.d_model, c.matmul_dtype)


class Layer(nn.Module):
  """One block (Figure 1): self-attention, with `cross` attention to a memory, and a feed-forward network."""

  config: Config
  attention: variant.Variant
  cross: bool = False

  def setup(self):
    c = self.config
    attention = functools.partial(
      MultiHeadAttention, c.num_heads, c.d_k, c.d_v, c.d_model, use_bias=c.bias, matmul_dtype=c.matmul_dtype
    )
    norm = functools.partial(nn.LayerNorm, epsilon=c.norm_epsilon, dtype=c.dtype)
    self.self_attention, self.self_attention_norm = attention(attention=self.attention), norm()
    if self.cross:
      self.cross_attention, self.cross_attention_norm = attention(), norm()
    self.feed_forward, self.feed_forward_norm = c.make_feed_forward(), norm()
    self.dropout = Dropout(c.dropout)
    self.attention_dropout = Dropout(c.attention_dropout)

  def enter(self, x, norm):
    return residual.enter(self.config.residual, x, norm)

  def leave(self, x, h, norm, train=False):
    return residual.leave(self.config.residual, x, self.dropout(h, train), norm)

  def __call__(
    self, x_BTD, segments_BT, mask, memory_BSD=None, memory_segments_BS=None, memory_mask=None, marks=None, *,
    train=False,
  ):  # fmt: skip
    """mask, memory_mask: what the segments (and causality) let x_BTD attend to of itself and of memory_BSD; broadcast
    to BNTS. marks: see `Variant`. Returns BTD."""
    dropout = functools.partial(self.attention_dropout, train=train) if self.config.attention_dropout else None

    h_BTD = self.enter(x_BTD, self.self_attention_norm)
    h_BTD = self.self_attention(h_BTD, h_BTD, mask=mask, segments_BT=segments_BT, marks=marks, dropout=dropout)
    x_BTD = self.leave(x_BTD, h_BTD, self.self_attention_norm, train)
    if self.cross:
      h_BTD = self.enter(x_BTD, self.cross_attention_norm)
      segments = {"segments_BT": segments_BT, "memory_segments_BS": memory_segments_BS}
      h_BTD = self.cross_attention(h_BTD, memory_BSD, mask=memory_mask, **segments, dropout=dropout)
      x_BTD = self.leave(x_BTD, h_BTD, self.cross_attention_norm, train)
    h_BTD = self.enter(x_BTD, self.feed_forward_norm)
    h_BTD = self.feed_forward(h_BTD, segments_BT, train=train)
    return self.leave(x_BTD, h_BTD, self.feed_forward_norm, train)

  def step(self, x_BMD, t, cache, ancestry_BJZ, memory=None, memory_mask=None, marks=None):
    """The positions t .. t + T - 1 of every beam. cache: of the self-attention; memory: its keys and values.

    Returns (x_BMD, cache).
    """
    h_BMD = self.enter(x_BMD, self.self_attention_norm)
    h_BMD, cache = self.self_attention.step(h_BMD, t, cache, ancestry_BJZ, marks)
    x_BMD = self.leave(x_BMD, h_BMD, self.self_attention_norm)
    if self.cross:
      h_BMD = self.enter(x_BMD, self.cross_attention_norm)
      h_BMD = self.cross_attention.attend(h_BMD, *memory, memory_mask)
      x_BMD = self.leave(x_BMD, h_BMD, self.cross_attention_norm)
    h_BMD = self.enter(x_BMD, self.feed_forward_norm)
    # Each token is a row of its own: it does not compete for experts with those beside it.
    h_BMD = self.feed_forward(h_BMD.reshape(-1, 1, h_BMD.shape[-1])).reshape(h_BMD.shape)
    return self.leave(x_BMD, h_BMD, self.feed_forward_norm), cache


class Stack(nn.Module):
  """Layers one on the other, and the closing normalisation that pre-LN needs.

  To be called once in an `apply`: at each call dropout draws the same. An interceptor of Flax sees a layer when it is
  traced.
  """

  config: Config
  layers: Layers

  def setup(self):
    variants = self.config.variants(self.layers)
    self.blocks = [Layer(self.config, v, self.layers.cross, name=f"layer_{i}") for i, v in enumerate(variants)]
    if self.config.residual == "pre":
      self.norm = nn.LayerNorm(epsilon=self.config.norm_epsilon, dtype=self.config.dtype)

  def finish(self, x):
    return self.norm(x) if self.config.residual == "pre" else x

  def __call__(
    self, x_BTD, segments_BT, memory_BSD=None, memory_segments_BS=None, *, signal_BTD=None, marks=None, train=False
  ):
    """Tokens attend to those of their own segment; segment 0 is padding. marks: see `Variant`.

    signal_BTD: what the input of each layer but the first is added to ("add_every_layer"). Returns BTD.
    """
    mask = masks.segments(segments_BT, segments_BT)
    if self.layers.causal:
      mask = mask & masks.causal(x_BTD.shape[1])
    memory_mask = masks.segments(segments_BT, memory_segments_BS) if self.layers.cross else None

    inputs = segments_BT, mask, memory_BSD, memory_segments_BS, memory_mask, marks
    if self.is_initializing() or self.is_mutable_collection("intermediates"):  # the layers are looked at
      for i, layer in enumerate(self.blocks):
        x_BTD = layer(_signalled(x_BTD, signal_BTD, i), *inputs, train=train)
      return self.finish(x_BTD)

    run = functools.partial(_run, config=self.config, layers=self.layers, train=train)
    if self.config.remat:
      run = jax.checkpoint(run, static_argnums=0, prevent_cse=not self.config.scan_layers)
    each = [self._parts(layer) for layer in self.blocks]
    if self.config.scan_layers:

      def body(x_BTD, layer):
        i, params, rngs = layer
        return run(0, params, rngs, _signalled(x_BTD, signal_BTD, i), inputs)

      layers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
      x_BTD, sown = jax.lax.scan(body, x_BTD, (jnp.arange(len(each)), *layers))
    else:
      of_layers = []
      for i, layer in enumerate(each):
        x_BTD, own = run(i % self.config.turns(self.layers), *layer, _signalled(x_BTD, signal_BTD, i), inputs)
        of_layers.append(own)
      sown = jax.tree.map(lambda *leaves: jnp.stack(leaves), *of_layers)
    for collection, total in (("losses", jnp.sum), ("figures", jnp.mean)):  # of mixtures of experts
      for name, of_layers in sown.get(collection, {}).items():
        self.sow(collection, name, total(of_layers))
    return self.finish(x_BTD)

  def _parts(self, layer):
    """(parameters of a layer, the random keys that it draws from)."""
    return layer.variables["params"], {name: rng.as_jax_rng() for name, rng in layer.scope.rngs.items()}

  def step(self, x_BMD, t, cache, ancestry_BJZ, memory=None, memory_mask=None, *, signal_BMD=None, marks=None):
    """`Layer.step` of all layers; cache and memory: those of each. Returns (x_BMD, cache)."""
    caches = []
    for i, layer in enumerate(self.blocks):
      inputs = _signalled(x_BMD, signal_BMD, i), t, cache[i], ancestry_BJZ, memory[i] if self.layers.cross else None
      turn, params = i % self.config.turns(self.layers), layer.variables["params"]
      x_BMD, layer_cache = _step(turn, params, *inputs, memory_mask, marks, config=self.config, layers=self.layers)
      caches.append(layer_cache)
    return self.finish(x_BMD), caches


def _signalled(x_BTD, signal_BTD, i):
  """The input of layer i."""
  if signal_BTD is None:
    return x_BTD
  return x_BTD + jnp.where(i > 0, signal_BTD, 0)


# Functions under jit are traced once for all layers that are alike.


@functools.partial(jax.jit, static_argnums=0, static_argnames=("config", "layers", "train"))
def _run(turn, params, rngs, x_BTD, inputs, *, config, layers, train):
  """(BTD, {collection: {name: value}} of what is sown) of the layer with the attention whose turn it is."""
  layer = Layer(config, config.variants(layers)[turn], layers.cross, parent=None)
  x_BTD, sown = layer.apply({"params": params}, x_BTD, *inputs, train=train, rngs=rngs, mutable=["losses", "figures"])
  sown = {name: found["feed_forward"] for name, found in sown.items()}
  return x_BTD, {name: {key: value for key, (value,) in found.items()} for name, found in sown.items()}


@functools.partial(jax.jit, static_argnums=0, static_argnames=("config", "layers"))
def _step(turn, params, *inputs, config, layers):
  layer = Layer(config, config.variants(layers)[turn], layers.cross, parent=None)
  return layer.apply({"params": params}, *inputs, method="step")


# Cached decoding, for the models


def in_one_row(tokens_BJT, t):
  """(tokens_BM, positions_BM): what every beam reads at t .. t + T - 1, side by side."""
  B, J, T = tokens_BJT.shape
  positions_BJT = jnp.broadcast_to(t + jnp.arange(T, dtype=jnp.int32), (B, J, T))
  return tokens_BJT.reshape(B, J * T), positions_BJT.reshape(B, J * T)


def make_decoding(config, layers: Layers, step, params, batch, num_beams) -> Decoding:
  """The Decoding of `batch` rows, with a cache that is empty and has no room (`grow` gives it some).

  layers: those with the cache. step: (params, tokens_BJT, t, cache) -> (logits_BJTV, cache).
  Raises UserError for an attention that cannot decode.
  """
  variants = config.variants(layers)
  start = functools.partial(cache_lib.start, variants, batch, num_beams, dtype=config.dtype)
  if {config.dtype, config.matmul_dtype} != {"float32"}:
    params = rounded(step, params, jnp.zeros((batch, num_beams, 1), jnp.int32), jnp.int32(0), start(length=1))
  return Decoding(
    start(length=0),
    functools.partial(step, params),
    functools.partial(cache_lib.reorder, variants),
    functools.partial(cache_lib.grow, variants),
    config.max_length if config.bounded else None,
  )


# Closed forms of the number of parameters


def count_layers(config, layers: Layers) -> int:
  """Of a Stack."""
  c = config

  def attention(query_depth, output_depth):
    weights = c.num_heads * (query_depth + c.d_k + c.d_v + output_depth) * c.d_model
    return weights + c.bias * (c.num_heads * (query_depth + c.d_k + c.d_v) + c.d_model)

  total = 0
  for v in c.variants(layers):
    total += attention(v.query_depth or c.d_k, v.output_depth or c.d_v)
    total += sum(math.prod(parameter.shape) for parameter in v.parameters.values())
  norm = 2 * c.d_model
  total += layers.number * (_count_feed_forward(c) + 2 * norm)
  if layers.cross:
    total += layers.number * (attention(c.d_k, c.d_v) + norm)
  return total + (norm if c.residual == "pre" else 0)


def _count_feed_forward(c):
  name, options = grammar.parse(c.feed_forward)
  if name == "dense":
    return 2 * c.d_model * c.d_ff + c.d_ff + c.d_model
  return options["num_experts"] * (2 * c.d_model + 2 * c.d_model * c.d_ff)


def count_output(config) -> int:
  """Of the embedding's table, and of the bias of the logits."""
  return config.vocab_size * (config.d_model + config.output_bias)


def count_positions(c) -> int:
  """Of a Positions."""
  total = c.max_length * c.d_model if c.positions == "learned" else 0
  if c.position_mode == "concatenate" and c.positions != "none":
    total += (c.d_model + (1 if c.positions == "scalar" else c.d_model)) * c.d_model
  return total
