"""Relative attention: skewing, memory, translation, convolution, Transformer-XL's memory, T5, ALiBi,
rotary."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops import cache as cache_lib
from attention_zoo.ops import masks, relative
from attention_zoo.ops import position_bias as bias
from attention_zoo.ops.dot_product import dot_product_attention
from attention_zoo.ops.variant import Sizes
from tests.ops import reference
from tests.ops.against import assert_close, assert_matches, normal

B, T, N, K, H = 2, 6, 2, 4, 3


def float32(seed, *shapes):
  return [jnp.float32(x) for x in normal(seed, *shapes)]


@pytest.mark.parametrize(
  "T, S, R", [(4, 4, 4), (4, 4, 7), (3, 5, 5), (3, 5, 7), (1, 5, 5), (5, 1, 5), (1, 1, 1)]
)
def test_skew(T, S, R):
  """out[t, s] = x[t, s - t + T - 1] wherever x reaches; its transpose puts each pair back."""
  x = np.arange(2.0 * T * R).reshape(1, 2, T, R)
  out = relative.skew(jnp.float32(x), S)
  (back,) = jax.linear_transpose(lambda x: relative.skew(x, S), jnp.zeros(x.shape))(jnp.ones(out.shape))
  for t, s in np.ndindex(T, S):
    r = s - t + T - 1
    if r < R:
      assert (out[:, :, t, s] == x[:, :, t, r]).all()
  if R == T + S - 1:
    rows = np.array([[0 <= r - (T - 1) + t < S for r in range(R)] for t in range(T)])
    assert (back == np.broadcast_to(rows, back.shape)).all()


def test_skewed_equals_gathered_in_value_and_gradient():
  """Shaw's with clipping on keys and values; Music Transformer's, causal and not, as Shaw's with as many
  rows."""
  q, k, v, c = float32(0, (B, T, N, K), (B, T, N, K), (B, T, N, H), (B, T, N, H))
  mask = masks.causal(T)
  keys, values, full, past = float32(1, (5, N, K), (5, N, H), (2 * T - 1, N, K), (T, N, K))

  def mirrored(past):
    return jnp.concatenate([past, jnp.zeros((T - 1, N, K))])

  gather = relative.shaw_gather_attention
  for skewed, gathered, *tables in (
    (relative.shaw_attention, gather, keys, values),
    (relative.music_bidirectional_attention, gather, full),
    (relative.music_attention, lambda q, k, v, t: gather(q, k, v, mirrored(t), mask=mask), past),
  ):
    results = []
    for function in (skewed, gathered):
      out, vjp = jax.vjp(jax.jit(function), q, k, v, *tables)
      results.append((out, *vjp(c)))
    for a, b in zip(*results, strict=True):
      assert_close(a, b)


def test_memory_beside_the_logits_is_that_of_the_table():
  """What skewing needs more than attention without positions is no larger than logits; gathering needs L L
  D."""
  L, D = 256, 64
  x = jax.ShapeDtypeStruct((1, L, 1, D), jnp.float32)

  def bytes_needed(function, *tables):
    gradient = jax.grad(lambda *a: function(*a).sum(), range(3 + len(tables)))
    table = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in tables]
    return jax.jit(gradient).lower(x, x, x, *table).compile().memory_analysis().temp_size_in_bytes

  plain = bytes_needed(dot_product_attention)
  extra = bytes_needed(relative.music_attention, (L, 1, D)) - plain
  assert extra < 4 * (2 * L * L + 4 * L * D)
  assert bytes_needed(relative.shaw_gather_attention, (2 * L - 1, 1, D)) - plain > 4 * L * L * D


def absolute(q, k, v, mask):
  """The control: sinusoids added to queries and keys."""
  angles = relative.sinusoids(jnp.arange(q.shape[1]), K)[None, :, None]
  return dot_product_attention(q + angles, k + angles, v, mask=mask)


def rotary(q, k, v, mask):
  positions = jnp.arange(q.shape[1])[None]
  return dot_product_attention(bias.rotate(q, positions), bias.rotate(k, positions), v, mask=mask)


def biased(table):
  def function(q, k, v, mask):
    positions = jnp.arange(q.shape[1])
    return dot_product_attention(q, k, v, mask=mask, bias=table(positions))

  return function


TABLES = dict(zip(("shaw", "values", "both", "past", "u", "v", "t5"), float32(
  2, (5, 1, K), (5, 1, H), (31, N, K), (16, N, K), (N, K), (N, K), (8, N)
), strict=True))  # fmt: skip
RELATIVE = {
  "shaw": lambda q, k, v, m: relative.shaw_attention(q, k, v, TABLES["shaw"], TABLES["values"], mask=m),
  "music": lambda q, k, v, m: relative.music_attention(q, k, v, TABLES["past"], mask=m),
  "bidirectional": lambda q, k, v, m: relative.music_bidirectional_attention(q, k, v, TABLES["both"], mask=m),
  "xl": lambda q, k, v, m: relative.transformer_xl_attention(
    q, k, v, TABLES["past"], TABLES["u"], TABLES["v"], mask=m
  ),
  "t5": biased(lambda p: bias.t5_bias(TABLES["t5"], p, p, max_distance=10)),
  "alibi": biased(lambda p: bias.alibi_bias(N, p, p)),
  "rotary": rotary,
}


@pytest.mark.parametrize("name", [*RELATIVE, "absolute"])
def test_translation(name):
  """The same content two or seven places in, the rest hidden: relative attention shifts its output, absolute
  does not."""
  function = jax.jit(RELATIVE.get(name, absolute))
  content = float32(3, (B, T, N, K), (B, T, N, K), (B, T, N, H))
  outs = []
  for start in (2, 7):
    q, k, v = (
      jnp.pad(x, ((0, 0), (start, 15 - T - start), (0, 0), (0, 0)), constant_values=9.0) for x in content
    )
    inside = (jnp.arange(15) >= start) & (jnp.arange(15) < start + T)
    outs.append(function(q, k, v, masks.padding(inside[None]))[:, start : start + T])
  difference = jnp.abs(outs[0] - outs[1]).max()
  assert difference > 1e-2 if name == "absolute" else difference < 1e-6


def test_one_offset_a_head_is_a_convolution():
  """Each head looks at one distance with all its weight: the heads' value projections are the kernel's taps,
  exactly."""
  offsets, channels, width = (-1, 0, 2), 4, 5
  x, kernel = float32(4, (B, 9, channels), (len(offsets), channels, width))
  table = np.zeros((2 * 3 + 1, len(offsets), 1), np.float32)
  for n, offset in enumerate(offsets):
    table[offset + 3, n] = 1e4
  ones = jnp.ones((B, 9, len(offsets), 1))
  values = jnp.einsum("BTD,NDH->BTNH", x, kernel)
  # Beyond the ends there is nothing to see, as in a convolution padded with zeros.
  mask = jnp.stack([masks.window(9, left=-o, right=o)[0, 0] for o in offsets])[None]
  attend = jax.jit(relative.shaw_attention)
  out = attend(ones, 0 * ones, values, jnp.asarray(table), mask=jnp.ones_like(mask)).sum(2)
  padded = attend(ones, 0 * ones, values, jnp.asarray(table), mask=mask).sum(2)
  expected = np.zeros((B, 9, width))
  for t in range(9):
    for n, offset in enumerate(offsets):
      if 0 <= t + offset < 9:
        expected[:, t] += np.asarray(x, np.float64)[:, t + offset] @ np.asarray(kernel, np.float64)[n]
  assert_close(padded, expected)
  assert_close(out[:, 1:-2], expected[:, 1:-2])


def test_transformer_xl_with_memory_equals_one_long_segment():
  """Queries are the last T of S positions; the memory may be hidden as long as it is not filled."""
  S, memory = T + 5, 5
  arrays = normal(5, (B, S, N, K), (B, S, N, K), (B, S, N, H), (S + 2, N, K), (N, K), (N, K))

  def oracle(q, k, v, table, u, v_bias):
    visible = np.tril(np.ones((T, S)), memory)[None, None] * np.ones((B, N, 1, 1))
    return reference.attention(
      q[:, memory:], k, v, reference.transformer_xl(table, u, v_bias, memory), visible
    )

  def with_memory(q, *rest):
    return relative.transformer_xl_attention(q[:, memory:], *rest)

  assert_matches(with_memory, oracle, *arrays)
  q, k, v, *rest = map(jnp.float32, arrays)
  attend = jax.jit(relative.transformer_xl_attention)
  long = attend(q, k, v, *rest)[:, memory:]
  assert_close(attend(q[:, memory:], k, v, *rest), long)
  hidden = masks.padding(jnp.arange(S)[None] >= memory)
  alone = attend(*(x[:, memory:] for x in (q, k, v)), *rest)
  assert_close(attend(q[:, memory:], k, v, *rest, mask=hidden), alone)


@pytest.mark.parametrize("causal", [True, False])
def test_transformer_xls_table_is_of_t_minus_s(causal):
  """The whole layer's attention from the paper's equation (Dai et al. 2019, section 3.3), R_{i - j} written out."""
  D = 6
  attention = relative.transformer_xl(Sizes(D, N, K, H, max_length=T, causal=causal))
  q, k, v, kernel, u, v_bias = normal(8, (B, T, N, K), (B, T, N, K), (B, T, N, H), (D, N, K), (N, K), (N, K))

  def score(n, t, s, q, k):
    angles = [(t - s) / 10000 ** (2 * i / D) for i in range(D // 2)]
    r = np.array([*map(math.sin, angles), *map(math.cos, angles)]) @ kernel[:, n]
    return ((q + u[n]) @ k + (q + v_bias[n]) @ r) / math.sqrt(K)

  visible = np.tri(T, dtype=bool) if causal else np.ones((T, T), bool)
  p = {"position_kernel_DNK": kernel, "content_bias_NK": u, "position_bias_NK": v_bias}
  out = attention.attend(
    jax.tree.map(jnp.float32, p), *map(jnp.float32, (q, k, v)), mask=jnp.asarray(visible)[None, None]
  )
  assert_close(out, reference.attention(q, k, v, score, np.broadcast_to(visible, (B, N, T, T))))


def test_t5_buckets_of_every_distance():
  distance = np.arange(-300, 301)
  for buckets, furthest, bidirectional in ((32, 128, True), (32, 128, False), (8, 20, True), (4, 3, False)):
    options = {"num_buckets": buckets, "max_distance": furthest, "bidirectional": bidirectional}
    got = bias.t5_buckets(jnp.asarray(distance)[None], **options)[0]
    assert (
      got == np.array([reference.t5_bucket(d, buckets, furthest, bidirectional) for d in distance])
    ).all()


def test_alibi_slopes():
  """The two examples of the paper, and twelve heads: those of eight, then every second of sixteen."""
  assert_close(bias.alibi_slopes(8), 2.0 ** -np.arange(1, 9))
  assert_close(bias.alibi_slopes(16), 2.0 ** (-np.arange(1, 17) / 2))
  assert_close(bias.alibi_slopes(12)[8:], 2.0 ** (-np.array([1, 3, 5, 7]) / 2))


def test_rotation():
  x = np.random.default_rng(6).standard_normal((B, T, N, K))
  out = bias.rotate(jnp.float32(x), jnp.arange(T)[None])
  expected = [[[reference.rotated(x[b, t, n], t) for n in range(N)] for t in range(T)] for b in range(B)]
  assert_close(out, np.array(expected))
  assert_close(jnp.linalg.norm(out, axis=-1), np.linalg.norm(x, axis=-1))


def test_sinusoids():
  out = relative.sinusoids(jnp.arange(-3, 1), 6)
  for p, i in np.ndindex(4, 3):
    angle = (p - 3) / 10000 ** (2 * i / 6)
    assert_close(out[p, [i, i + 3]], np.array([np.sin(angle), np.cos(angle)]))


X, V = (B, T, N, K), (B, T, N, H)


@pytest.mark.parametrize(
  "function, shapes, message",
  [
    (relative.shaw_attention, [X, X, V, (4, 1, K)], r"key_table_RNK has shape \(4, 1, 4\), wanted R = 2 k \+ 1"),
    (relative.shaw_attention, [X, X, V, (5, 3, K)],
     r"key_table_RNK has shape \(5, 3, 4\), wanted \('any', 2 or 1, 4\)"),
    (relative.shaw_attention, [X, X, V, (5, 1, K), (7, 1, H)], r"value_table_RNH has shape \(7, 1, 3\), wanted R = 5"),
    (relative.music_attention, [X, X, V, (T - 1, N, K)], r"table_RNK has shape \(5, 2, 4\), too short: 6 keys"),
    (relative.music_bidirectional_attention, [X, X, V, (2 * T - 3, N, K)], r"wanted an odd R >= 11"),
    (partial(relative.skewed_step, index=0), [(B, 1, N, K), X, V, (T - 1, N, K)], "table_RNK has shape"),
    (relative.transformer_xl_attention, [X, X, V, (T, N, K), (K,), (N, K)], "content_bias_NK has shape"),
    (relative.transformer_xl_attention, [X, X, V, (T, N, K), (N, K), (K, N)], "position_bias_NK has shape"),
    (bias.rotate, [(B, T, N, 3), (1, T)], r"x_BTNK has shape \(2, 6, 2, 3\), wanted rank 4 and an even K"),
    (bias.rotate, [X, (3, T)], r"positions_BT has shape \(3, 6\), wanted \(1 or 2, 6\)"),
    (bias.t5_bias, [(8,), (T,), (T,)], "table_RN has shape"),
    (bias.t5_bias, [(2, N), (T,), (T,)], "num_buckets is 2"),
    (partial(relative.sinusoids, d_model=3), [(T,)], "d_model is 3, wanted an even number"),
    (partial(relative.skew, S=7), [(B, N, T, 6)], "x_BNTR has shape"),
  ],
)  # fmt: skip
def test_bad_input(function, shapes, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(function, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))


@pytest.mark.parametrize("causal", [True, False])
def test_music_with_a_furthest_distance_takes_any_length(causal):
  """Further than that everything is as far away as that: Shaw's clipping on keys."""
  variant = relative.music(Sizes(8, N, K, H, max_length=3, causal=causal), max_distance=2)
  assert variant.max_length is None and relative.music(Sizes(8, N, K, H, max_length=3)).max_length == 3
  (shape,) = (parameter.shape for parameter in variant.parameters.values())
  q, k, v, table = float32(0, (B, T, N, K), (B, T, N, K), (B, T, N, H), shape)
  mask = masks.causal(T) if causal else None
  both_sides = jnp.concatenate([table, jnp.zeros((2, N, K))]) if causal else table
  wanted = relative.shaw_gather_attention(q, k, v, both_sides, mask=mask)
  assert_close(variant.attend({"table_RNK": table}, q, k, v, mask=mask), wanted, 1e-6)
  if causal:
    t = T - 2
    whole = variant.attend({"table_RNK": table}, q[:, : t + 1], k[:, : t + 1], v[:, : t + 1], mask=masks.causal(t + 1))
    cache = cache_lib.start([variant], B, 1, T, jnp.float32)
    ancestry_BJZ = cache_lib.extend(cache["ancestry_BJZ"], 0, t + 1)
    new = [x[:, None, : t + 1] for x in (q, k, v)]
    out, _ = variant.step({"table_RNK": table}, *new, jnp.int32(0), cache["layers"][0], ancestry_BJZ)
    assert_close(out[:, 0], whole, 1e-6)
