"""Every self-attention of this package as one table: what it computes, what its paper says, what must hold
for it."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from attention_zoo.ops import (
  additive,
  dot_product,
  local,
  local_2d,
  masks,
  memory_compressed,
  position_bias,
  relative,
)
from tests.ops import reference

B, N, K, H = 2, 2, 4, 3
LONGEST = 16
IMAGE = {0: (0, 3), 1: (1, 1), 7: (1, 7), 12: (3, 4), 16: (4, 4)}


@dataclasses.dataclass
class Variant:
  """parameters: name -> shape, in which "N" stands for the number of heads. Positions are 0 .. T - 1.

  apply(parameters, q, k, v, extra) -> out; score(parameters) -> a score for `reference.attention`, or
  oracle(parameters, q, k, v, extra) -> out. extra is a random "mask" [B, 1, T, T], "segments" [B, T], "valid"
  [B, T]. step(parameters, q, k, v, index) is one position of a causal one. rank(T): the order of generation.
  """

  name: str
  apply: Callable
  score: Callable = None
  oracle: Callable = None
  parameters: dict = dataclasses.field(default_factory=dict)
  extra: str = "mask"
  causal: bool = False
  visible: Callable = lambda t, s: True
  value: Callable = None
  step: Callable = None
  depth: int = K
  permutes: bool = False
  rank: Callable = np.arange

  def expected(self, parameters, q, k, v, extra):
    parameters = {name: np.asarray(p, np.float64) for name, p in parameters.items()}
    if self.oracle:
      return self.oracle(parameters, q, k, v, extra)
    value = self.value and self.value(parameters)
    return reference.attention(q, k, v, self.score(parameters), self.pairs(q.shape, extra), value)

  def pairs(self, shape, extra):
    """[B, N, T, T]: who sees whom."""
    T, heads = shape[1:3]
    own = np.array([[self.visible(t, s) and (s <= t or not self.causal) for s in range(T)] for t in range(T)])
    own = own.reshape(T, T).astype(bool)
    if self.extra == "segments":
      extra = ((extra[:, :, None] == extra[:, None, :]) & (extra[:, :, None] > 0))[:, None]
    return np.broadcast_to(own & extra if self.extra else own, (len(extra), heads, T, T))


def positions(x):
  return jnp.arange(x.shape[1])


def seen(extra, T):
  return extra & masks.causal(T)


def plain(p, q, k, v, extra):
  return dot_product.dot_product_attention(q, k, v, mask=extra)


def causal(p, q, k, v, extra):
  return dot_product.dot_product_attention(q, k, v, mask=seen(extra, q.shape[1]))


def with_bias(bias, causal):
  """bias(parameters, query positions, key positions), at once and in steps."""

  def apply(p, q, k, v, extra):
    mask = seen(extra, q.shape[1]) if causal else extra
    return dot_product.dot_product_attention(q, k, v, mask=mask, bias=bias(p, positions(q), positions(k)))

  def step(p, q, k, v, i):
    mask = masks.step(k.shape[1], i)
    return dot_product.dot_product_attention(q, k, v, mask=mask, bias=bias(p, i[None], positions(k)))

  return {"apply": apply, "step": step} if causal else {"apply": apply}


def rotary(p, q, k, v, extra):
  q, k = (position_bias.rotate(x, positions(x)[None]) for x in (q, k))
  return dot_product.dot_product_attention(q, k, v, mask=seen(extra, q.shape[1]))


def rotary_step(p, q, k, v, i):
  q, k = position_bias.rotate(q, i[None, None]), position_bias.rotate(k, positions(k)[None])
  return dot_product.dot_product_attention(q, k, v, mask=masks.step(k.shape[1], i))


def steps_of(function, names=(), **options):
  """A `_step` function of arrays and parameters."""
  return lambda p, q, k, v, i: function(q, k, v, *(p[name] for name in names), index=i, **options)


def at_once(function, names=(), extra=None, **options):
  """A function of arrays and parameters, with the extra under its own name."""

  def apply(p, q, k, v, x):
    return function(q, k, v, *(p[name] for name in names), **({extra: x} if extra else {}), **options)

  return apply


def povey(left, right):
  R = left + 1 + right
  options = {"left": left, "right": right}

  def apply(p, q, k, v, extra):
    blocks = {"segments_BT": extra, "block_width": 4}
    return local.time_restricted_attention(q[..., :K], q[..., K:], k, v, **options, **blocks)

  def step(p, q, k, v, i):
    return local.time_restricted_step(q[..., :K], q[..., K:], k, v, index=i, **options)

  return {
    "apply": apply,
    "score": lambda p: reference.povey(left, right, K)[0],
    "value": lambda p: reference.povey(left, right, K)[1],
    "visible": lambda t, s: -left <= s - t <= right,
    "extra": "segments",
    "depth": K + R,
    "causal": right == 0,
    "step": None if right else step,
  }


def compressed(W, stride, causal, chunk=5):
  names = ("kernel_k", "kernel_v", "bias_k", "bias_v")
  function = (
    memory_compressed.masked_memory_compressed_attention
    if causal
    else memory_compressed.memory_compressed_attention
  )

  def oracle(p, q, k, v, valid):
    return reference.memory_compressed(q, k, v, [p[name] for name in names], stride, valid, causal)

  return {
    "apply": at_once(function, names, "valid_BS", stride=stride, chunk=chunk),
    "oracle": oracle,
    "parameters": {
      "kernel_k": (W, "N", K, K),
      "kernel_v": (W, "N", H, H),
      "bias_k": ("N", K),
      "bias_v": ("N", H),
    },
    "extra": "valid",
    "causal": causal,
  }


def two_dimensional(tile, flange, masked):
  function = local_2d.masked_local_attention_2d if masked else local_2d.local_attention_2d
  options = {"tile": tile, "flange": flange}

  def image(x):
    return x.reshape(x.shape[0], *IMAGE[x.shape[1]], *x.shape[2:])

  def apply(p, q, k, v, extra):
    return function(image(q), image(k), image(v), **options).reshape(*q.shape[:3], v.shape[-1])

  def oracle(p, q, k, v, extra):
    T, heads = q.shape[1:3]
    visible = reference.visible_2d(*IMAGE[T], tile, flange, masked)
    visible = np.broadcast_to(visible, (len(q), heads, T, T))
    return reference.attention(q, k, v, reference.scaled_dot, visible)

  def step(p, q, k, v, i):
    position = divmod(i, max(IMAGE[k.shape[1]][1], 1))
    return local_2d.masked_local_step_2d(q, image(k), image(v), position=position, **options)

  def rank(T):
    return reference.block_raster_rank(*IMAGE[T], tile).reshape(-1)

  extras = {"causal": True, "step": step, "rank": rank} if masked else {}
  return {"apply": apply, "oracle": oracle, "extra": None, **extras}


SHAW = {"keys": (5, 1, K), "values": (5, 1, H)}
BOTH_SIDES, PAST = {"table": (2 * LONGEST - 1, "N", K)}, {"table": (LONGEST, "N", K)}
XL = {**PAST, "u": ("N", K), "v": ("N", K)}
T5 = {"table": (8, "N")}
LOCAL = {"extra": "segments"}


def t5(bidirectional):
  options = {"max_distance": 10, "bidirectional": bidirectional}
  return {
    **with_bias(lambda p, t, s: position_bias.t5_bias(p["table"], t, s, **options), not bidirectional),
    "score": lambda p: reference.t5(p["table"], **options),
    "parameters": T5,
    "causal": not bidirectional,
  }


def scaled_dot(p):
  return reference.scaled_dot


VARIANTS = [
  Variant("dot_product", plain, scaled_dot, permutes=True),
  Variant(
    "causal",
    causal,
    scaled_dot,
    causal=True,
    step=lambda p, q, k, v, i: plain(p, q, k, v, masks.step(k.shape[1], i)),
  ),
  Variant(
    "additive",
    at_once(additive.additive_attention, ("w_query", "w_key", "w_score"), "mask"),
    lambda p: reference.additive(p["w_query"], p["w_key"], p["w_score"]),
    parameters={"w_query": ("N", K, 5), "w_key": ("N", K, 5), "w_score": ("N", 5)},
    permutes=True,
  ),
  Variant(
    "concat",
    at_once(additive.concat_attention, ("w", "w_score"), "mask"),
    lambda p: reference.concat(p["w"], p["w_score"]),
    parameters={"w": ("N", 2 * K, 5), "w_score": ("N", 5)},
    permutes=True,
  ),
  Variant(
    "general",
    at_once(additive.general_attention, ("w",), "mask"),
    lambda p: reference.general(p["w"]),
    parameters={"w": ("N", K, K)},
    permutes=True,
  ),
  Variant(
    "location",
    lambda p, q, k, v, extra: additive.location_attention(q, v, p["w"], mask=extra),
    lambda p: reference.location(p["w"]),
    parameters={"w": ("N", LONGEST, K)},
  ),
  Variant(
    "shaw",
    at_once(relative.shaw_attention, SHAW, "mask"),
    lambda p: reference.shaw(p["keys"]),
    value=lambda p: reference.shaw_value(p["values"]),
    parameters=SHAW,
  ),
  Variant(
    "shaw_gather",
    at_once(relative.shaw_gather_attention, SHAW, "mask"),
    lambda p: reference.shaw(p["keys"]),
    value=lambda p: reference.shaw_value(p["values"]),
    parameters=SHAW,
  ),
  Variant(
    "shaw_causal",
    lambda p, q, k, v, extra: relative.shaw_attention(
      q, k, v, p["keys"], p["values"], mask=seen(extra, q.shape[1])
    ),
    lambda p: reference.shaw(p["keys"]),
    value=lambda p: reference.shaw_value(p["values"]),
    parameters={"keys": (5, "N", K), "values": (5, "N", H)},
    causal=True,
    step=steps_of(relative.shaw_step, ("keys", "values")),
  ),
  Variant(
    "music",
    at_once(relative.music_attention, PAST, "mask"),
    lambda p: reference.music(p["table"]),
    parameters=PAST,
    causal=True,
    step=steps_of(relative.skewed_step, PAST),
  ),
  Variant(
    "music_bidirectional",
    at_once(relative.music_bidirectional_attention, BOTH_SIDES, "mask"),
    lambda p: reference.shaw(p["table"]),
    parameters=BOTH_SIDES,
  ),
  Variant(
    "transformer_xl",
    at_once(relative.transformer_xl_attention, XL, "mask"),
    lambda p: reference.transformer_xl(p["table"], p["u"], p["v"]),
    parameters=XL,
    causal=True,
    step=lambda p, q, k, v, i: relative.skewed_step(
      q, k, v, p["table"], index=i, content_bias_NK=p["u"], position_bias_NK=p["v"]
    ),
  ),
  Variant("t5", **t5(True)),
  Variant("t5_causal", **t5(False)),
  Variant(
    "alibi",
    **with_bias(lambda p, t, s: position_bias.alibi_bias(N, t, s), True),
    score=lambda p: reference.alibi(N),
    causal=True,
  ),
  Variant("rotary", rotary, lambda p: reference.rotary, causal=True, step=rotary_step),
  Variant(
    "local_1d",
    at_once(local.local_attention_1d, extra="segments_BT", block_width=4, memory_width=2),
    scaled_dot,
    visible=lambda t, s: t // 4 * 4 - 2 <= s < t // 4 * 4 + 6,
    **LOCAL,
  ),
  Variant(
    "masked_local_1d",
    at_once(local.masked_local_attention_1d, extra="segments_BT", block_width=4),
    scaled_dot,
    visible=lambda t, s: t // 4 - s // 4 <= 1,
    causal=True,
    step=steps_of(local.masked_local_step_1d, block_width=4),
    **LOCAL,
  ),
  Variant(
    "masked_local_1d_long_memory",
    at_once(local.masked_local_attention_1d, extra="segments_BT", block_width=3, memory_width=7),
    scaled_dot,
    visible=lambda t, s: s >= t // 3 * 3 - 7,
    causal=True,
    step=steps_of(local.masked_local_step_1d, block_width=3, memory_width=7),
    **LOCAL,
  ),
  Variant(
    "sliding_window",
    at_once(local.sliding_window_attention, extra="segments_BT", left=3, block_width=4),
    scaled_dot,
    visible=lambda t, s: s >= t - 3,
    causal=True,
    step=steps_of(local.sliding_window_step, left=3),
    **LOCAL,
  ),
  Variant("time_restricted", **povey(2, 1)),
  Variant("time_restricted_causal", **povey(3, 0)),
  Variant(
    "music_local",
    at_once(local.music_local_attention, PAST, "segments_BT", block_width=4),
    lambda p: reference.music(p["table"]),
    parameters=PAST,
    visible=lambda t, s: t // 4 - s // 4 <= 1,
    causal=True,
    step=steps_of(local.music_local_step, PAST, block_width=4),
    **LOCAL,
  ),
  Variant(
    "music_local_bidirectional",
    at_once(local.music_local_bidirectional_attention, BOTH_SIDES, "segments_BT", block_width=4),
    lambda p: reference.shaw(p["table"]),
    parameters=BOTH_SIDES,
    visible=lambda t, s: abs(t // 4 - s // 4) <= 1,
    **LOCAL,
  ),
  Variant("local_2d", **two_dimensional((2, 3), (1, 2), False)),
  Variant("masked_local_2d", **two_dimensional((2, 3), (1, 2), True)),
  Variant("memory_compressed", **compressed(3, 3, False)),
  Variant("masked_memory_compressed", **compressed(3, 3, True)),
  Variant("masked_memory_compressed_overlapping", **compressed(4, 2, True)),
  Variant("masked_memory_compressed_gaps", **compressed(1, 2, True)),
]
CAUSAL = [variant for variant in VARIANTS if variant.causal]


def example(variant, seed, T, batch=B, heads=N):
  """Parameters, (q, k, v) in float32 and the extra, all random."""
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)

  parameters = {
    name: normal(*(heads if size == "N" else size for size in shape))
    for name, shape in variant.parameters.items()
  }
  arrays = normal(batch, T, heads, variant.depth), normal(batch, T, heads, K), normal(batch, T, heads, H)
  extra = {
    "mask": rng.random((batch, 1, T, T)) < 0.7,
    "segments": rng.integers(0, 3, (batch, T)).astype(np.int32),
    "valid": rng.random((batch, T)) < 0.7,
    None: np.ones((batch, T), bool),
  }[variant.extra]
  if variant.extra == "mask" and T > 1:
    extra[:, :, T // 2 :: 5] = False
  return parameters, arrays, extra
