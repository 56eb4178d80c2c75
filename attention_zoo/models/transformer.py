"""The Transformer: "Attention Is All You Need", Vaswani et al. 2017 (arXiv:1706.03762v5).

Deviations and choices where the paper is silent:

| what                   | the paper                     | here                                                            |
|------------------------|-------------------------------|-----------------------------------------------------------------|
| normalisation          | post-LN (Figure 1, sec. 5.4)  | the same; residual="pre" normalises sub-layer inputs and both outputs |
| embeddings             | shared, times sqrt(d_model)   | the same; drawn with deviation d_model^-0.5                     |
| other kernels          | not stated                    | Glorot-uniform over the flattened [D, N K] matrix, as tensor2tensor |
| biases                 | in the feed-forward (eq. 2)   | the same; none in attention and none on the output logits       |
| vocabulary             | about 37,000 shared BPE       | exactly `vocab_size` rows, no padding                           |
| attention dropout      | none in the published setting | `attention_dropout`, 0 by default                               |
| dropout rate           | exact                         | rounded to 1/65,536                                             |
| learned positions      | one table (Table 3, row E)    | one table for the encoder, one for the decoder                  |
| self-attention         | scaled dot-product            | the same; others of ops/ by name: encoder_attention, decoder_attention |
| feed-forward           | dense                         | the same; or "mixture_of_experts(num_experts=.., k=..)", Shazeer et al. 2017 |
| packed rows            | one sentence pair a row       | segment ids keep the pairs of a row apart; same mathematics     |

Letters beside the house's: M = J T, the T new positions of each of J beams in cached decoding (`ops/cache.py`).
"""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers import positions as positions_lib
from attention_zoo.layers import residual as residual_lib
from attention_zoo.layers.attention import MultiHeadAttention
from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.feed_forward import FeedForward
from attention_zoo.layers.mixture_of_experts import MixtureOfExperts
from attention_zoo.layers.positions import Positions
from attention_zoo.layers.residual import residual
from attention_zoo.ops import cache as cache_lib
from attention_zoo.ops import masks, variant
from attention_zoo.ops.einsum import einsum
from attention_zoo.protocols import Decoding


@dataclasses.dataclass(frozen=True)
class Config:
  """The paper's hyperparameters under the paper's names; the defaults are the base model."""

  vocab_size: int
  d_model: int = 512
  d_ff: int = 2048
  num_heads: int = 8
  d_k: int = 64
  d_v: int = 64
  num_encoder_layers: int = 6
  num_decoder_layers: int = 6
  dropout: float = 0.1
  attention_dropout: float = 0.0
  residual: str = "post"  # where the normalisation stands; or "pre", or "none": no residual connections
  encoder_attention: str = "dot_product"  # self-attention, any that ops/variant.py finds
  decoder_attention: str = "dot_product"
  feed_forward: str = "dense"  # or "mixture_of_experts(num_experts=4, k=2)"
  positions: str = "sinusoidal"  # or "learned", "scalar", "none"
  position_mode: str = "add"  # or "add_every_layer", "concatenate"
  max_length: int = 1024  # of learned positions, and of what else is indexed by position
  dtype: str = "float32"  # of activations; parameters are float32
  matmul_dtype: str = "float32"  # what the operands of linear maps are rounded to; sums are float32
  remat: bool = False  # training keeps the inputs of layers only and computes the rest anew: less memory, more time

  def __post_init__(self):
    for field, choices in (
      ("residual", residual_lib.KINDS),
      ("positions", positions_lib.KINDS),
      ("position_mode", positions_lib.MODES),
      ("dtype", ("float32", "bfloat16")),
      ("matmul_dtype", ("float32", "bfloat16")),
    ):
      if getattr(self, field) not in choices:
        raise ValueError(f"model.{field} must be one of {choices}, got {getattr(self, field)!r}")
    for field in ("encoder_attention", "decoder_attention", "feed_forward"):
      try:
        getattr(self, f"make_{field}")()
      except (TypeError, ValueError) as error:
        raise ValueError(f"model.{field}: {error}") from error

  def make_encoder_attention(self):
    return self._attention(self.encoder_attention, causal=False)

  def make_decoder_attention(self):
    return self._attention(self.decoder_attention, causal=True)

  def _attention(self, text, causal):
    sizes = variant.Sizes(self.d_model, self.num_heads, self.d_k, self.d_v, self.max_length, causal)
    return variant.make(text, sizes)

  def make_feed_forward(self):
    name, options = variant.parse(self.feed_forward)
    kinds = {"dense": FeedForward, "mixture_of_experts": MixtureOfExperts}
    if name not in kinds:
      raise ValueError(f"{name!r} is not one of {', '.join(kinds)}")
    return kinds[name](self.d_ff, matmul_dtype=self.matmul_dtype, **options)

  @property
  def packs(self) -> bool:
    """Whether several sentences in a row give what they give in rows of their own."""
    return self.make_encoder_attention().packs and self.make_decoder_attention().packs

  @property
  def bounded(self) -> bool:
    """Whether nothing longer than max_length can be computed, because some parameter has a row for each position."""
    attentions = self.make_encoder_attention(), self.make_decoder_attention()
    return self.positions == "learned" or any(attention.max_length for attention in attentions)


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters; tests hold every config against it."""
  c = config

  def attention(variant):
    depths = (variant.query_depth or c.d_k) + c.d_k + c.d_v + (variant.output_depth or c.d_v)
    own = sum(math.prod(parameter.shape) for parameter in variant.parameters.values())
    return c.num_heads * depths * c.d_model + own

  plain = c.num_heads * (2 * c.d_k + 2 * c.d_v) * c.d_model
  norm = 2 * c.d_model
  encoder = attention(c.make_encoder_attention()) + _feed_forward_count(c) + 2 * norm
  decoder = attention(c.make_decoder_attention()) + plain + _feed_forward_count(c) + 3 * norm
  final_norms = 2 * norm if c.residual == "pre" else 0
  positions = 2 * c.max_length * c.d_model if c.positions == "learned" else 0
  if c.position_mode == "concatenate" and c.positions != "none":
    positions += 2 * (c.d_model + (1 if c.positions == "scalar" else c.d_model)) * c.d_model
  layers = c.num_encoder_layers * encoder + c.num_decoder_layers * decoder
  return c.vocab_size * c.d_model + layers + final_norms + positions


def _feed_forward_count(c):
  name, options = variant.parse(c.feed_forward)
  if name == "dense":
    return 2 * c.d_model * c.d_ff + c.d_ff + c.d_model
  return options["num_experts"] * (2 * c.d_model + 2 * c.d_model * c.d_ff)


class Embedding(nn.Module):
  """Shared by source, target and output (section 3.4)."""

  config: Config

  def setup(self):
    c = self.config
    self.table_VD = self.param("table_VD", nn.initializers.normal(c.d_model**-0.5), (c.vocab_size, c.d_model))

  def __call__(self, tokens):
    # Rows first, then the cast: only the rows of the batch are converted.
    rows = jnp.take(self.table_VD, tokens, axis=0, mode="clip")
    return (rows * self.config.d_model**0.5).astype(self.config.dtype)

  def logits(self, x_BTD):
    return einsum("BTD,VD->BTV", x_BTD, self.table_VD, jnp.float32, self.config.matmul_dtype)


class Layer(nn.Module):
  """One block of the encoder, or, with `cross`, of the decoder (Figure 1)."""

  config: Config
  cross: bool

  def setup(self):
    c = self.config
    own = c.make_decoder_attention() if self.cross else c.make_encoder_attention()
    attention = lambda **kind: MultiHeadAttention(
      c.num_heads, c.d_k, c.d_v, c.d_model, matmul_dtype=c.matmul_dtype, **kind
    )
    norm = lambda: nn.LayerNorm(dtype=c.dtype)
    self.self_attention, self.self_attention_norm = attention(attention=own), norm()
    if self.cross:
      self.cross_attention, self.cross_attention_norm = attention(), norm()
    self.feed_forward, self.feed_forward_norm = c.make_feed_forward(), norm()
    self.dropout = Dropout(c.dropout)
    self.attention_dropout = Dropout(c.attention_dropout)

  def __call__(self, x_BTD, segments_BT, mask, memory_BSD=None, memory_mask=None, *, train=False):
    kind = self.config.residual
    dropout = lambda x: self.dropout(x, train)
    weights_dropout = (lambda w: self.attention_dropout(w, train)) if self.config.attention_dropout else None
    attend = lambda x: self.self_attention(x, x, mask=mask, segments_BT=segments_BT, dropout=weights_dropout)
    x_BTD = residual(kind, x_BTD, attend, self.self_attention_norm, dropout)
    if self.cross:
      attend = lambda x: self.cross_attention(x, memory_BSD, mask=memory_mask, dropout=weights_dropout)
      x_BTD = residual(kind, x_BTD, attend, self.cross_attention_norm, dropout)
    feed_forward = lambda x: self.feed_forward(x, segments_BT, train=train)
    return residual(kind, x_BTD, feed_forward, self.feed_forward_norm, dropout)

  def step(self, x_BMD, t, cache, ancestry_BJZ, cross, cross_mask):
    """Target positions t .. t + T - 1 of every beam. cache: of the self-attention; cross: keys and values of the source."""

    def attend(x_BMD):
      nonlocal cache
      out_BMD, cache = self.self_attention.step(x_BMD, t, cache, ancestry_BJZ)
      return out_BMD

    def feed_forward(x_BMD):
      # Each token is a row of its own: it does not compete for experts with those beside it.
      return self.feed_forward(x_BMD.reshape(-1, 1, x_BMD.shape[-1])).reshape(x_BMD.shape)

    identity = lambda x: x
    kind = self.config.residual
    x_BMD = residual(kind, x_BMD, attend, self.self_attention_norm, identity)
    attend_source = lambda x: self.cross_attention.attend(x, *cross, cross_mask)
    x_BMD = residual(kind, x_BMD, attend_source, self.cross_attention_norm, identity)
    return residual(kind, x_BMD, feed_forward, self.feed_forward_norm, identity), cache


class Stack(nn.Module):
  """N identical layers, and the closing normalisation that pre-LN needs.

  again: what happens to the input of each layer but the first: the timing signal of "add_every_layer", or nothing.
  """

  config: Config
  num_layers: int
  cross: bool

  def setup(self):
    self.layers = [Layer(self.config, self.cross, name=f"layer_{i}") for i in range(self.num_layers)]
    if self.config.residual == "pre":
      self.norm = nn.LayerNorm(dtype=self.config.dtype)

  def finish(self, x):
    return self.norm(x) if self.config.residual == "pre" else x

  def __call__(self, x_BTD, again, *args, train=False):
    def run(layer, x_BTD):
      return layer(x_BTD, *args, train=train)

    if self.config.remat:
      run = nn.remat(run)
    for i, layer in enumerate(self.layers):
      x_BTD = run(layer, again(x_BTD) if i else x_BTD)
    return self.finish(x_BTD)

  def step(self, x_BMD, again, t, caches, ancestry_BJZ, crosses, cross_mask):
    steps = []
    for i, (layer, cache, cross) in enumerate(zip(self.layers, caches, crosses, strict=True)):
      x_BMD, cache = layer.step(again(x_BMD) if i else x_BMD, t, cache, ancestry_BJZ, cross, cross_mask)
      steps.append(cache)
    return self.finish(x_BMD), steps


class Transformer(nn.Module):
  """Encoder-decoder. Tokens and segment ids are int32; segment 0 is padding; positions count within a segment."""

  config: Config

  def setup(self):
    c = self.config
    self.embedding = Embedding(c)
    places = lambda: Positions(c.positions, c.position_mode, c.max_length, c.d_model, c.matmul_dtype)
    self.source_positions, self.target_positions = places(), places()
    self.encoder = Stack(c, c.num_encoder_layers, cross=False)
    self.decoder = Stack(c, c.num_decoder_layers, cross=True)
    self.dropout = Dropout(c.dropout)

  def embed(self, tokens, positions, side, length):
    """(embeddings with positions (section 3.4 and 3.5), what adds the positions to the input of a later layer).

    length: static bound of the positions.
    """
    place = lambda x: getattr(self, f"{side}_positions")(x, positions, length)
    every_layer = self.config.position_mode == "add_every_layer"
    return place(self.embedding(tokens)), place if every_layer else lambda x: x

  def encode(self, source_BS, segments_BS, positions_BS, *, train=False):
    """Returns the memory BSD."""
    x_BSD, again = self.embed(source_BS, positions_BS, "source", source_BS.shape[1])
    mask = masks.segments(segments_BS, segments_BS)
    return self.encoder(self.dropout(x_BSD, train), again, segments_BS, mask, train=train)

  def decode(self, memory_BSD, memory_segments_BS, inputs_BT, segments_BT, positions_BT, *, train=False):
    """inputs_BT: the targets shifted right. Returns the last layer's output BTD; `logits` makes scores of it."""
    T = inputs_BT.shape[1]
    x_BTD, again = self.embed(inputs_BT, positions_BT, "target", T)
    mask = masks.segments(segments_BT, segments_BT) & masks.causal(T)
    memory_mask = masks.segments(segments_BT, memory_segments_BS)
    x_BTD = self.dropout(x_BTD, train)
    return self.decoder(x_BTD, again, segments_BT, mask, memory_BSD, memory_mask, train=train)

  def logits(self, x_BTD):
    return self.embedding.logits(x_BTD)

  def hidden(self, batch, *, train=False):
    """The decoder's output BTD for a batch of `data/batches.py`."""
    memory_BSD = self.encode(batch["source"], batch["source_segments"], batch["source_positions"], train=train)
    return self.decode(
      memory_BSD, batch["source_segments"], batch["inputs"], batch["target_segments"], batch["target_positions"],
      train=train,
    )  # fmt: skip

  def __call__(self, batch, *, train=False):
    """Logits BTV (float32)."""
    return self.logits(self.hidden(batch, train=train))

  # Cached decoding: see `decoding`.

  def keys_values(self, source_BS, segments_BS, positions_BS):
    """What the steps only read: the source's keys and values for each decoder layer, their mask, the table of the logits."""
    memory_BSD = self.encode(source_BS, segments_BS, positions_BS)
    return {
      "layers": [layer.cross_attention.keys_values(memory_BSD) for layer in self.decoder.layers],
      "mask": masks.padding(segments_BS > 0),
      "table_VD": self.embedding.table_VD.astype(self.config.matmul_dtype),
    }

  def step(self, tokens_BJT, t, cross, cache):
    """Feeds the tokens of positions t .. t + T - 1 (the first is BOS) to every hypothesis. Returns (logits_BJTV, cache)."""
    B, J, T = tokens_BJT.shape
    ancestry_BJZ = cache_lib.extend(cache["ancestry_BJZ"], t, T)
    positions_BJT = jnp.broadcast_to(t + jnp.arange(T, dtype=jnp.int32), (B, J, T))
    flat = lambda x: x.reshape(B, J * T)
    x_BMD, again = self.embed(flat(tokens_BJT), flat(positions_BJT), "target", ancestry_BJZ.shape[2])
    x_BMD, layers = self.decoder.step(x_BMD, again, t, cache["layers"], ancestry_BJZ, cross["layers"], cross["mask"])
    logits_BMV = einsum("BMD,VD->BMV", x_BMD, cross["table_VD"], jnp.float32, self.config.matmul_dtype)
    return logits_BMV.reshape(B, J, T, -1), {"layers": layers, "ancestry_BJZ": ancestry_BJZ}


def decoding(config: Config, params, inputs, *, num_beams) -> Decoding:
  """The Decoding of a batch of sentences: encodes them, and has an empty cache (`grow` gives it room).

  inputs: "source", "source_segments", "source_positions" of `data/batches.py`, BS. Raises UserError if the decoder's attention
  cannot decode.
  """
  model = Transformer(config)
  variants = [config.make_decoder_attention()] * config.num_decoder_layers
  source = [inputs[key] for key in ("source", "source_segments", "source_positions")]
  cache = cache_lib.start(variants, len(source[0]), num_beams, 0, config.dtype)
  cross = model.apply({"params": params}, *source, method="keys_values")
  params = _rounded(params, config)

  def step(tokens_BJT, t, cache):
    return model.apply({"params": params}, tokens_BJT, t, cross, cache, method="step")

  return Decoding(
    cache,
    step,
    functools.partial(cache_lib.reorder, variants),
    functools.partial(cache_lib.grow, variants),
    config.max_length if config.bounded else None,
  )


def _rounded(params, config: Config):
  """The parameters with kernels rounded to matmul_dtype, as every product takes them: once rather than at each step."""

  def round_kernel(path, leaf):
    return leaf.astype(config.matmul_dtype) if path[-1].key.startswith(("kernel_", "experts_")) else leaf

  return jax.tree_util.tree_map_with_path(round_kernel, params)
