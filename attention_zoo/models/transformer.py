"""The Transformer: "Attention Is All You Need", Vaswani et al. 2017 (arXiv:1706.03762v5).

Deviations and choices where the paper is silent:

| what                   | the paper                     | here                                                            |
|------------------------|-------------------------------|-----------------------------------------------------------------|
| normalisation          | post-LN (Figure 1, sec. 5.4)  | the same; norm="pre" normalises sub-layer inputs and both outputs |
| embeddings             | shared, times sqrt(d_model)   | the same; drawn with deviation d_model^-0.5                     |
| other kernels          | not stated                    | Glorot-uniform over the flattened [D, N K] matrix, as tensor2tensor |
| biases                 | in the feed-forward (eq. 2)   | the same; none in attention and none on the output logits       |
| vocabulary             | about 37,000 shared BPE       | exactly `vocab_size` rows, no padding                           |
| attention dropout      | none in the published setting | `attention_dropout`, 0 by default                               |
| dropout rate           | exact                         | rounded to 1/65,536                                             |
| learned positions      | one table (Table 3, row E)    | one table for the encoder, one for the decoder                  |
| packed rows            | one sentence pair a row       | segment ids keep the pairs of a row apart; same mathematics     |

Letters beyond the house's: I = beam slots in a cache (the slot an entry was written by, as J is the beam that reads it).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers.attention import MultiHeadAttention
from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.feed_forward import FeedForward
from attention_zoo.layers.positions import LearnedPositions, sinusoidal
from attention_zoo.layers.residual import residual
from attention_zoo.ops import masks
from attention_zoo.ops.einsum import einsum


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
  norm: str = "post"  # or "pre"
  positions: str = "sinusoidal"  # or "learned"
  max_length: int = 1024  # of learned positions
  dtype: str = "float32"  # of activations; parameters are float32
  matmul_dtype: str = "float32"  # what the operands of linear maps are rounded to; sums are float32

  def __post_init__(self):
    for field, choices in (
      ("norm", ("post", "pre")),
      ("positions", ("sinusoidal", "learned")),
      ("dtype", ("float32", "bfloat16")),
      ("matmul_dtype", ("float32", "bfloat16")),
    ):
      if getattr(self, field) not in choices:
        raise ValueError(f"model.{field} must be one of {choices}, got {getattr(self, field)!r}")


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters; tests hold every config against it."""
  c = config
  attention = c.num_heads * (2 * c.d_k + 2 * c.d_v) * c.d_model
  feed_forward = 2 * c.d_model * c.d_ff + c.d_ff + c.d_model
  norm = 2 * c.d_model
  encoder = c.num_encoder_layers * (attention + feed_forward + 2 * norm)
  decoder = c.num_decoder_layers * (2 * attention + feed_forward + 3 * norm)
  final_norms = 2 * norm if c.norm == "pre" else 0
  positions = 2 * c.max_length * c.d_model if c.positions == "learned" else 0
  return c.vocab_size * c.d_model + encoder + decoder + final_norms + positions


class Embedding(nn.Module):
  """Shared by source, target and output (section 3.4)."""

  config: Config

  def setup(self):
    c = self.config
    self.table = self.param("table", nn.initializers.normal(c.d_model**-0.5), (c.vocab_size, c.d_model))

  def __call__(self, tokens):
    # Rows first, then the cast: only the rows of the batch are converted.
    rows = jnp.take(self.table, tokens, axis=0, mode="clip")
    return (rows * self.config.d_model**0.5).astype(self.config.dtype)

  def logits(self, x_BTD):
    return einsum("BTD,VD->BTV", x_BTD, self.table, jnp.float32, self.config.matmul_dtype)


class Layer(nn.Module):
  """One block of the encoder, or, with `cross`, of the decoder (Figure 1)."""

  config: Config
  cross: bool

  def setup(self):
    c = self.config
    attention = lambda: MultiHeadAttention(c.num_heads, c.d_k, c.d_v, c.d_model, matmul_dtype=c.matmul_dtype)
    norm = lambda: nn.LayerNorm(dtype=c.dtype)
    self.self_attention, self.self_attention_norm = attention(), norm()
    if self.cross:
      self.cross_attention, self.cross_attention_norm = attention(), norm()
    self.feed_forward, self.feed_forward_norm = FeedForward(c.d_ff, c.matmul_dtype), norm()
    self.dropout = Dropout(c.dropout)
    self.attention_dropout = Dropout(c.attention_dropout)

  def __call__(self, x_BTD, mask, memory_BSD=None, memory_mask=None, *, train=False):
    dropout = lambda x: self.dropout(x, train)
    weights_dropout = (lambda w: self.attention_dropout(w, train)) if self.config.attention_dropout else None
    attend = lambda x: self.self_attention(x, x, mask=mask, dropout=weights_dropout)
    x_BTD = residual(self.config.norm, x_BTD, attend, self.self_attention_norm, dropout)
    if self.cross:
      attend = lambda x: self.cross_attention(x, memory_BSD, mask=memory_mask, dropout=weights_dropout)
      x_BTD = residual(self.config.norm, x_BTD, attend, self.cross_attention_norm, dropout)
    return residual(self.config.norm, x_BTD, self.feed_forward, self.feed_forward_norm, dropout)

  def step(self, x_BJD, t, cache, mask, cross, cross_mask):
    """One target position of every beam. cache: (k_BNTIK, v_BNTIH), written at t; cross: keys and values of the source."""

    def attend(x_BJD):
      nonlocal cache
      new = self.self_attention.keys_values(x_BJD)
      cache = tuple(
        jax.lax.dynamic_update_slice_in_dim(old, fresh[:, :, None].astype(old.dtype), t, 2)
        for old, fresh in zip(cache, new, strict=True)
      )
      flat = (x.reshape(*x.shape[:2], -1, x.shape[-1]) for x in cache)
      return self.self_attention.attend(x_BJD, *flat, mask)

    identity = lambda x: x
    norm = self.config.norm
    x_BJD = residual(norm, x_BJD, attend, self.self_attention_norm, identity)
    attend_source = lambda x: self.cross_attention.attend(x, *cross, cross_mask)
    x_BJD = residual(norm, x_BJD, attend_source, self.cross_attention_norm, identity)
    return residual(norm, x_BJD, self.feed_forward, self.feed_forward_norm, identity), cache


class Stack(nn.Module):
  """N identical layers, and the closing normalisation that pre-LN needs."""

  config: Config
  num_layers: int
  cross: bool

  def setup(self):
    self.layers = [Layer(self.config, self.cross, name=f"layer_{i}") for i in range(self.num_layers)]
    if self.config.norm == "pre":
      self.norm = nn.LayerNorm(dtype=self.config.dtype)

  def finish(self, x):
    return self.norm(x) if self.config.norm == "pre" else x

  def __call__(self, x_BTD, *args, train=False):
    for layer in self.layers:
      x_BTD = layer(x_BTD, *args, train=train)
    return self.finish(x_BTD)

  def step(self, x_BJD, t, caches, mask, crosses, cross_mask):
    steps = []
    for layer, cache, cross in zip(self.layers, caches, crosses, strict=True):
      x_BJD, cache = layer.step(x_BJD, t, cache, mask, cross, cross_mask)
      steps.append(cache)
    return self.finish(x_BJD), steps


class Transformer(nn.Module):
  """Encoder-decoder. Tokens and segment ids are int32; segment 0 is padding; positions count within a segment."""

  config: Config

  def setup(self):
    c = self.config
    self.embedding = Embedding(c)
    if c.positions == "learned":
      self.source_positions = LearnedPositions(c.max_length, c.d_model)
      self.target_positions = LearnedPositions(c.max_length, c.d_model)
    self.encoder = Stack(c, c.num_encoder_layers, cross=False)
    self.decoder = Stack(c, c.num_decoder_layers, cross=True)
    self.dropout = Dropout(c.dropout)

  def embed(self, tokens, positions, side, length):
    """Embeddings plus positions (section 3.4 and 3.5). length: static bound of the positions."""
    if self.config.positions == "learned":
      encoding = getattr(self, f"{side}_positions")(positions, length)
    else:
      encoding = sinusoidal(positions, self.config.d_model)
    return self.embedding(tokens) + encoding.astype(self.config.dtype)

  def encode(self, source_BS, segments_BS, positions_BS, *, train=False):
    """Returns the memory BSD."""
    x_BSD = self.dropout(self.embed(source_BS, positions_BS, "source", source_BS.shape[1]), train)
    return self.encoder(x_BSD, masks.segments(segments_BS, segments_BS), train=train)

  def decode(self, memory_BSD, memory_segments_BS, inputs_BT, segments_BT, positions_BT, *, train=False):
    """inputs_BT: the targets shifted right. Returns the last layer's output BTD; `logits` makes scores of it."""
    T = inputs_BT.shape[1]
    x_BTD = self.dropout(self.embed(inputs_BT, positions_BT, "target", T), train)
    mask = masks.segments(segments_BT, segments_BT) & masks.causal(T)
    memory_mask = masks.segments(segments_BT, memory_segments_BS)
    return self.decoder(x_BTD, mask, memory_BSD, memory_mask, train=train)

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

  # Cached decoding. The cache holds keys and values as they were written, slot I at time T; `ancestry_BJT` says from
  # which slot a hypothesis reads at each time. Choosing beams permutes that small array, never the keys and values.

  def start(self, source_BS, segments_BS, positions_BS, *, num_beams, max_length):
    """Encodes the source. Returns (cross, cache): what steps only read, and what they carry."""
    c = self.config
    B = source_BS.shape[0]
    memory_BSD = self.encode(source_BS, segments_BS, positions_BS)
    cross = {
      "kv": [layer.cross_attention.keys_values(memory_BSD) for layer in self.decoder.layers],
      "mask": masks.padding(segments_BS > 0),
    }
    empty = lambda depth: jnp.zeros((B, c.num_heads, max_length, num_beams, depth), c.dtype)
    cache = {
      "kv": [(empty(c.d_k), empty(c.d_v)) for _ in range(c.num_decoder_layers)],
      "ancestry_BJT": jnp.full((B, num_beams, max_length), -1, jnp.int32),
    }
    return cross, cache

  def step(self, tokens_BJ, t, cross, cache):
    """Feeds the token of position t (the first is BOS) to every hypothesis. Returns (logits_BJV, cache)."""
    B, J = tokens_BJ.shape
    slots_J = jnp.arange(J, dtype=jnp.int32)
    written_BJ1 = jnp.broadcast_to(slots_J[None, :, None], (B, J, 1))
    ancestry_BJT = jax.lax.dynamic_update_slice_in_dim(cache["ancestry_BJT"], written_BJ1, t, 2)
    mask_BJTI = ancestry_BJT[..., None] == slots_J[None, None, None, :]
    mask = mask_BJTI.reshape(B, 1, J, -1)
    length = ancestry_BJT.shape[2]
    x_BJD = self.embed(tokens_BJ, jnp.full((B, J), t, jnp.int32), "target", length)
    x_BJD, kv = self.decoder.step(x_BJD, t, cache["kv"], mask, cross["kv"], cross["mask"])
    return self.logits(x_BJD), {"kv": kv, "ancestry_BJT": ancestry_BJT}


def reorder(cache, parents_BJ):
  """Beam j goes on from hypothesis parents_BJ[:, j]: the `reorder` of `decoding.beam.beam_search`."""
  rows_B1 = jnp.arange(parents_BJ.shape[0])[:, None]
  return cache | {"ancestry_BJT": cache["ancestry_BJT"][rows_B1, parents_BJ]}
