"""Cached decoding of every causal attention is what it gives for whole sequences: prompts, steps,
blocks, beams, growth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo import grammar
from attention_zoo.errors import UserError
from attention_zoo.ops import cache as cache_lib
from attention_zoo.ops import variant
from tests.ops.against import assert_close

B, J, N, K, H, LENGTH = 2, 3, 2, 4, 3, 12
SIZES = variant.Sizes(8, N, K, H, max_length=16, causal=True)
OTHERS = [
  "additive(width=5)", "local(block_width=2)", "local(block_width=3, memory_width=4)",
  "local(block_width=4, memory_width=0)", "memory_compressed", "memory_compressed(width=4, stride=2)",
  "memory_compressed(width=1, stride=2)", "music_local(block_width=2)", "shaw(max_distance=2, shared=False)",
  "sliding_window(width=2)", "time_restricted(left=3)",
]  # fmt: skip
NAMED = {grammar.parse(text)[0] for text in OTHERS}
ALL = sorted(OTHERS + [name for name in variant.by_name() if name not in NAMED])
# (position, number of new positions): a prompt, a step, a block of which two are kept, a step, a block.
SCHEDULE = [(0, 4), (4, 1), (5, 4), (7, 1), (8, 4)]


def draw(rng, *shape):
  return rng.standard_normal(shape).astype(np.float32)


def parameters_of(attention):
  rng = np.random.default_rng(0)
  return {name: draw(rng, *parameter.shape) for name, parameter in attention.parameters.items()}


def sequences(attention, seed, T=LENGTH):
  """q, k, v of T positions of every hypothesis."""
  rng = np.random.default_rng(seed)
  return [draw(rng, B, J, T, N, depth) for depth in (attention.query_depth or K, K, H)]


def whole(attention, p, q, k, v):
  """The hypotheses as rows, all positions at once."""
  rows = [x.reshape(-1, *x.shape[2:]) for x in (q, k, v)]
  T = q.shape[2]
  mask, segments_BT = jnp.tri(T, dtype=bool)[None, None], jnp.ones((B * J, T), jnp.int32)
  out = attention.attend(p, *rows, mask=mask, segments_BT=segments_BT, dropout=None)
  return out.reshape(B, J, *out.shape[1:])


@pytest.mark.parametrize("text", ALL)
def test_steps_equal_all_at_once(text):
  attention = variant.make(text, SIZES)
  p, rng = parameters_of(attention), np.random.default_rng(1)
  parents = [rng.integers(0, J, (B, J)) for _ in SCHEDULE[1:]] + [np.tile(np.arange(J), (B, 1))]
  new = [sequences(attention, seed, T) for seed, (_, T) in enumerate(SCHEDULE)]

  @jax.jit
  def decode(p, new, parents):
    cache = cache_lib.start([attention], B, J, 5, jnp.float32)
    # What nobody has written yet is rubbish.
    cache["layers"] = jax.tree.map(lambda x: x + 1e3, cache["layers"])
    outs = []
    for (t, T), qkv, parents_BJ in zip(SCHEDULE, new, parents, strict=True):
      if t == 5:
        cache = cache_lib.grow([attention], cache, LENGTH)
      ancestry_BJZ = cache_lib.extend(cache["ancestry_BJZ"], t, T)
      out, layer = attention.step(p, *qkv, jnp.int32(t), cache["layers"][0], ancestry_BJZ)
      outs.append(out)
      cache = cache_lib.reorder([attention], {"layers": [layer], "ancestry_BJZ": ancestry_BJZ}, parents_BJ)
    return outs

  at_once = jax.jit(lambda p, *qkv: whole(attention, p, *qkv))
  outs = decode(p, new, parents)
  history = [np.zeros((B, J, 0, *x.shape[3:]), np.float32) for x in (*new[0], outs[0])]
  for (t, _), qkv, out, parents_BJ in zip(SCHEDULE, new, outs, parents, strict=True):
    history = [np.concatenate([old[:, :, :t], x], 2) for old, x in zip(history, (*qkv, out), strict=True)]
    if t == 5:  # the block, before most of it is written over
      padded = [np.pad(x, [(0, LENGTH - 9 if axis == 2 else 0) for axis in range(5)]) for x in history[:3]]
      assert_close(history[3], at_once(p, *padded)[:, :, :9])
    history = [x[np.arange(B)[:, None], parents_BJ] for x in history]
  assert_close(history[3], at_once(p, *history[:3]))


@pytest.mark.parametrize(
  ("text", "before"),
  [
    ("sliding_window(width=2)", 2),
    ("time_restricted(left=2)", 2),
    ("local(block_width=2)", 3),
    ("music_local(block_width=2)", 3),
    ("memory_compressed", 2),
  ],
)
def test_what_is_far_is_not_read(text, before):
  """Nor compressed again: keys and values from long ago become NaN, and the step does not notice."""
  attention = variant.make(text, SIZES)

  @jax.jit
  def run(p, nine, one, factor):
    cache = cache_lib.start([attention], B, J, LENGTH, jnp.float32)
    ancestry_BJZ = cache_lib.extend(cache["ancestry_BJZ"], 0, 10)
    _, layer = attention.step(p, *nine, jnp.int32(0), cache["layers"][0], ancestry_BJZ)
    positions = layer["positions"] if isinstance(layer, dict) else layer
    spoilt = tuple(x_BNSK.at[:, :, J : (9 - before) * J].multiply(factor) for x_BNSK in positions)
    layer = layer | {"positions": spoilt} if isinstance(layer, dict) else spoilt
    return attention.step(p, *one, jnp.int32(9), layer, ancestry_BJZ)[0]

  inputs = parameters_of(attention), sequences(attention, 1, 9), sequences(attention, 2, 1)
  wanted = np.asarray(run(*inputs, 1.0))
  assert np.isfinite(wanted).all()
  np.testing.assert_array_equal(run(*inputs, jnp.nan), wanted)


def running_mean(sizes):
  """out_t = mean of v_s, s <= t: its cache is a sum for each hypothesis, which no ancestry can follow."""

  def attend(p, q_BTNK, k_BTNK, v_BTNH, *, mask=None, segments_BT=None, dropout=None):
    return jnp.cumsum(v_BTNH, 1) / jnp.arange(1, v_BTNH.shape[1] + 1)[None, :, None, None]

  def init_cache(batch, beams, length, dtype):
    return jnp.zeros((batch, beams, sizes.num_heads, sizes.d_v), dtype)

  def step(p, q_BJTNK, k_BJTNK, v_BJTNH, t, cache, ancestry_BJZ):
    sums = cache[:, :, None] + jnp.cumsum(v_BJTNH, 2)
    return sums / (t + jnp.arange(1, sums.shape[2] + 1))[None, None, :, None, None], sums[:, :, -1]

  def reorder(cache, parents_BJ):
    return jnp.take_along_axis(cache, parents_BJ[:, :, None, None], 1)

  return variant.Variant(attend, init_cache, step, reorder)


def test_a_cache_of_another_kind_is_reordered_and_kept_when_it_grows():
  attention = running_mean(SIZES)
  (q, k, v), (q1, k1, v1) = sequences(attention, 1, 3), sequences(attention, 2, 1)
  cache = cache_lib.start([attention], B, J, 3, jnp.float32)
  out, layer = attention.step({}, q, k, v, jnp.int32(0), cache["layers"][0], cache["ancestry_BJZ"])
  assert_close(out, whole(attention, {}, q, k, v))
  parents_BJ = np.array([[2, 0, 0], [1, 1, 2]])
  cache = cache_lib.grow([attention], cache | {"layers": [layer]}, 4)
  cache = cache_lib.reorder([attention], cache, parents_BJ)
  out, _ = attention.step({}, q1, k1, v1, jnp.int32(3), cache["layers"][0], cache["ancestry_BJZ"])
  rows = np.arange(B)[:, None]
  joined = [np.concatenate([old[rows, parents_BJ], x], 2) for old, x in zip((q, k, v), (q1, k1, v1), strict=True)]
  assert_close(out[:, :, 0], whole(attention, {}, *joined)[:, :, 3])


def test_what_cannot_decode_says_so(monkeypatch):
  """And never decodes as something else: an attention without a step, and one that sees the future."""

  def lasting(sizes):
    return variant.Variant(lambda p, q, k, v, **options: v)

  monkeypatch.setattr(variant, "by_name", lambda: {"lasting": lasting, "running_mean": running_mean})
  for text, causal in (("lasting", True), ("running_mean", False)):
    attention = variant.make(text, variant.Sizes(8, N, K, H, causal=causal))
    with pytest.raises(UserError, match=f"the attention '{text}' has no step: it cannot decode"):
      cache_lib.start([variant.make("running_mean", SIZES), attention], B, J, 3, jnp.float32)


def test_only_what_has_a_row_for_each_position_is_bounded():
  assert {text for text in ALL if variant.make(text, SIZES).max_length} == {"music"}
  assert variant.make("music", SIZES).max_length == SIZES.max_length


def test_parameters_are_named_with_their_dimensions():
  for text in ALL:
    for name, parameter in variant.make(text, SIZES).parameters.items():
      letters = name.rpartition("_")[2]
      sizes = {"N": N, "K": K, "H": H, "D": 8}
      assert [sizes.get(a, int(a) if a.isdigit() else n) for a, n in zip(letters, parameter.shape, strict=True)] == [
        *parameter.shape
      ]
