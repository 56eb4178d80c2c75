"""XLNet: Yang, Dai, Yang, Carbonell, Salakhutdinov, Le 2019, "XLNet: Generalized Autoregressive Pretraining for
Language Understanding" (arXiv:1906.08237).

| what                | the paper                                  | here                                           |
|---------------------|--------------------------------------------|------------------------------------------------|
| streams             | content and query, one set of parameters   | the same; queries only where a token is asked  |
| positions           | Transformer-XL's relative sinusoids        | the same, sines and cosines taking turns       |
| relative segments   | one vector for the same, one for another   | the same, by `types`                           |
| layers              | post-LN, GELU, dropout in between too      | the same; GELU exact, no dropout in between    |
| recurrence          | the outputs of the segment before, cached  | the same, `carry`; no gradient goes there      |
| [CLS]               | at the end                                 | <s> at the beginning, </s> at the end          |
| rows of pretraining | two segments, [SEP] and [CLS] behind them  | a window of text: <s> is first seen in tuning  |
| types in it         | of both segments                           | one: the vector for another is first tuned     |
| tokens asked for    | of the text                                | of the window, the </s> behind documents too   |
| first values        | N(0, 0.02^2)                               | tables and biases so, kernels Glorot-uniform   |
| dropout rate        | exact                                      | rounded to 1/65,536                            |

The base model with its 32,000 pieces has 116,718,336 parameters, without the bias of the output.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.feed_forward import ACTIVATIONS, FeedForward
from attention_zoo.layers.linear import Linear
from attention_zoo.layers.positions import sinusoidal
from attention_zoo.ops import masks
from attention_zoo.ops.two_stream import permutation_mask, relative_attention

_normal = nn.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True)
class Config:
  """The base model, but for the vocabulary."""

  vocab_size: int
  d_model: int = 768
  d_ff: int = 3072
  num_heads: int = 12
  d_k: int = 64
  num_layers: int = 12
  dropout: float = 0.1
  attention_dropout: float = 0.1
  norm_epsilon: float = 1e-12
  activation: str = "gelu"
  memory: int = 384  # outputs of each layer that go from batch to batch, where batches are contiguous
  dtype: str = "float32"  # of activations; parameters are float32
  matmul_dtype: str = "float32"  # what the operands of linear maps are rounded to; sums are float32

  def __post_init__(self):
    for field in ("dtype", "matmul_dtype"):
      if getattr(self, field) not in ("float32", "bfloat16"):
        raise ValueError(f"model.{field} must be float32 or bfloat16, got {getattr(self, field)!r}")
    if self.activation not in ACTIVATIONS:
      raise ValueError(f"model.activation must be one of {tuple(ACTIVATIONS)}, got {self.activation!r}")
    if self.d_model % 2:
      raise ValueError(f"model.d_model must be even, got {self.d_model}")


BATCH = ("inputs", "segments", "types")


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c = config
  width = c.num_heads * c.d_k
  attention = 5 * c.d_model * width + 3 * width + 2 * width
  feed_forward = 2 * c.d_model * c.d_ff + c.d_ff + c.d_model
  return c.vocab_size * c.d_model + c.d_model + c.num_layers * (attention + feed_forward + 4 * c.d_model)


def small() -> Config:
  """For tests."""
  return Config(vocab_size=11, d_model=8, d_ff=14, num_heads=2, d_k=4, num_layers=2, dropout=0.0, memory=4)


class Layer(nn.Module):
  config: Config

  def setup(self):
    c = self.config
    D, N, K, H = c.d_model, c.num_heads, c.d_k, c.d_k
    linear = functools.partial(Linear, matmul_dtype=c.matmul_dtype)
    self.query, self.key = linear("BTD,DNK->BTNK", (D, N, K)), linear("BSD,DNK->BSNK", (D, N, K))
    self.value = linear("BSD,DNH->BSNH", (D, N, H))
    self.distance = linear("BRD,DNK->BRNK", (D, N, K))
    self.output = linear("BTNH,NHD->BTD", (N, H, D), num_inputs=2)
    names = ("content_bias_NK", "position_bias_NK", "segment_bias_NK")
    self.biases = [self.param(name, _normal, (N, K)) for name in names]
    self.segments_2NK = self.param("segments_2NK", _normal, (2, N, K))
    norm = functools.partial(nn.LayerNorm, epsilon=c.norm_epsilon, dtype=c.dtype)
    self.attention_norm, self.feed_forward_norm = norm(), norm()
    self.feed_forward = FeedForward(c.d_ff, c.activation, c.matmul_dtype)
    self.dropout, self.attention_dropout = Dropout(c.dropout), Dropout(c.attention_dropout)

  def __call__(self, streams, memory_BZD, distances_RD, seen, *, train=False):
    """streams: (h_BTD, g_BTD or None). seen: what each of them may see. Returns the streams after the layer."""
    h_BTD, _ = streams
    keys_BSD = jnp.concatenate([memory_BZD, h_BTD], 1)
    given = self.key(keys_BSD), self.value(keys_BSD), self.distance(distances_RD[None])[0]
    return tuple(
      None if x_BTD is None else self._one(x_BTD, given, what, train) for x_BTD, what in zip(streams, seen, strict=True)
    )

  def _one(self, x_BTD, given, seen, train):
    k_BSNK, v_BSNH, r_RNK = given
    dropout = functools.partial(self.attention_dropout, train=train)
    out_BTNH = relative_attention(
      self.query(x_BTD), k_BSNK, v_BSNH, r_RNK, *self.biases, self.segments_2NK, **seen, dropout=dropout
    )
    x_BTD = self.attention_norm(x_BTD + self.dropout(self.output(out_BTNH), train))
    return self.feed_forward_norm(x_BTD + self.dropout(self.feed_forward(x_BTD), train))


class XLNet(nn.Module):
  """Tokens, segment ids (0 is padding) and types are int32 BT."""

  config: Config

  def setup(self):
    c = self.config
    self.embedding_table = _Table(c.vocab_size, c.d_model, name="embedding")
    self.query_D = self.param("query_D", _normal, (c.d_model,))
    self.layers = [Layer(c, name=f"layer_{i}") for i in range(c.num_layers)]
    self.dropout = Dropout(c.dropout)

  def streams(self, batch, *, train=False, carry=None):
    """(h_BTD, g_BTD or None, carry).

    batch: "inputs", "segments", "types" BT; with "order" [B, T], where each token stands in the order of factorisation,
    a token sees those that stand before it or where it stands, else it sees all of its row. With "places" [B, any],
    g is the query stream there: it sees what stands before. carry: of `carry`, None: nothing came before.
    """
    c, order_BT = self.config, batch.get("order")
    B, T = batch["inputs"].shape
    memory = carry or _no_carry(c, B, 0)
    Z = memory["segments_BZ"].shape[1]
    segments_BS = jnp.concatenate([memory["segments_BZ"], batch["segments"]], 1)
    real = masks.padding(segments_BS > 0)
    # A token of the memory comes before all, and is of the first kind of segment.
    types_BS = jnp.concatenate([jnp.zeros((B, Z), jnp.int32), batch["types"]], 1)
    if order_BT is None:
      order_BT = jnp.zeros((B, T), jnp.int32)
    order_BS = jnp.concatenate([jnp.full((B, Z), -1, jnp.int32), order_BT], 1)
    distances_RD = sinusoidal(jnp.arange(-(T - 1), Z + T), c.d_model).astype(c.dtype)
    take = lambda x_BT, places_BT: jnp.take_along_axis(x_BT, places_BT, 1)

    def seen(places_BT, itself):
      rows_BTS = (Z + places_BT)[:, :, None] - jnp.arange(Z + T)[None, None] + T - 1
      same_BTS = take(batch["types"], places_BT)[:, :, None] == types_BS[:, None]
      mask = permutation_mask(take(order_BT, places_BT), order_BS, itself=itself) & real
      return {"rows_BTS": rows_BTS, "same_BTS": same_BTS, "mask": mask}

    every_BT = jnp.broadcast_to(jnp.arange(T)[None], (B, T))
    h_BTD = self.dropout(self.embedding_table(batch["inputs"], c.dtype), train)
    g_BTD, to = None, (seen(every_BT, True), None)
    if (places_BT := batch.get("places")) is not None:
      g_BTD = self.dropout(jnp.broadcast_to(self.query_D.astype(c.dtype), (*places_BT.shape, c.d_model)), train)
      to = to[0], seen(places_BT, False)
    kept, segments_BZ = [], memory["segments_BZ"]
    for layer, memory_BZD in zip(self.layers, memory["layers"], strict=True):
      kept.append(_last(memory_BZD, h_BTD))
      h_BTD, g_BTD = layer((h_BTD, g_BTD), memory_BZD.astype(c.dtype), distances_RD, to, train=train)
    new = {"layers": tuple(kept), "segments_BZ": _last(segments_BZ, batch["segments"])}
    finish = lambda x_BTD: None if x_BTD is None else self.dropout(x_BTD, train)
    return finish(h_BTD), finish(g_BTD), new if carry else {}

  def hidden(self, batch, *, train=False, carry=None):
    """(the content stream BTD, carry)."""
    h_BTD, _, carry = self.streams(batch, train=train, carry=carry)
    return h_BTD, carry

  def __call__(self, batch, *, train=False):
    """(h_BTD, g_BTD) in the order of the text, each token asked for."""
    order_BT = jnp.broadcast_to(jnp.arange(batch["inputs"].shape[1])[None], batch["inputs"].shape)
    return self.streams(batch | {"order": order_BT, "places": order_BT}, train=train)[:2]


class _Table(nn.Module):
  vocab_size: int
  d_model: int

  def setup(self):
    self.table_VD = self.param("table_VD", _normal, (self.vocab_size, self.d_model))

  def __call__(self, tokens, dtype):
    return jnp.take(self.table_VD, tokens, axis=0, mode="clip").astype(dtype)


Model = XLNet


def _last(old, new):
  """The last of both along the second dimension, as many as the old has."""
  joined = jnp.concatenate([old, new.astype(old.dtype)], 1)
  return jax.lax.stop_gradient(joined[:, new.shape[1] :])


def _no_carry(config, rows, size):
  layer = jnp.zeros((rows, size, config.d_model), config.dtype)
  return {"layers": (layer,) * config.num_layers, "segments_BZ": jnp.zeros((rows, size), jnp.int32)}


def carry(config: Config, rows: int):
  """What the first batch is handed: a memory in which nothing can be seen."""
  return _no_carry(config, rows, config.memory)


def output_table(params):
  """The table_VD by which outputs are multiplied, the embedding's."""
  return params["embedding"]["table_VD"]
