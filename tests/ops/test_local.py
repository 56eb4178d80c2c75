"""Local attention: that it is dense attention under a mask, linear in the length, and Image Transformer's
orders."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops import local, local_2d, masks, relative
from attention_zoo.ops import memory_compressed as compressed
from attention_zoo.ops.dot_product import dot_product_attention
from attention_zoo.ops.variant import Sizes
from tests.ops import reference
from tests.ops.against import assert_close, normal

B, T, N, K, H = 2, 11, 2, 4, 3


def arrays(seed=0, length=T):
  return [jnp.float32(x) for x in normal(seed, (B, length, N, K), (B, length, N, K), (B, length, N, H))]


def test_equals_dense_attention_under_the_mask_of_the_same_name():
  q, k, v = arrays()
  dense = jax.jit(lambda mask: dot_product_attention(q, k, v, mask=mask))
  block = masks.block_local(T, block_width=4, left=3)
  assert_close(
    jax.jit(partial(local.masked_local_attention_1d, block_width=4, memory_width=3))(q, k, v),
    dense(block & masks.causal(T)),
  )
  wide = masks.block_local(T, block_width=3, left=5, right=5)
  assert_close(
    jax.jit(partial(local.local_attention_1d, block_width=3, memory_width=5))(q, k, v), dense(wide)
  )
  for width in (1, 3, 64):  # of no influence
    window = partial(local.sliding_window_attention, left=4, right=2, block_width=width)
    assert_close(jax.jit(window)(q, k, v), dense(masks.window(T, left=4, right=2)))


def test_what_is_wider_than_the_sequence_costs_no_more_than_that():
  """A billion took for ever to trace."""
  q, k, v = arrays()
  far = 10**9
  for function, wide, enough in (
    (local.sliding_window_attention, {"left": far, "right": far}, {"left": T, "right": T}),
    (local.local_attention_1d, {"block_width": 3, "memory_width": far}, {"block_width": 3, "memory_width": T + 1}),
    (local.masked_local_attention_1d, {"block_width": far}, {"block_width": T, "memory_width": T}),
  ):
    assert_close(jax.jit(partial(function, **wide))(q, k, v), jax.jit(partial(function, **enough))(q, k, v))
  x_BSN = q[..., 0]
  np.testing.assert_array_equal(local.with_halo(x_BSN, 3, 100, 50)[:, :, 88:127], local.with_halo(x_BSN, 3, 12, 24))
  assert jax.eval_shape(lambda x: local.with_halo(x, 4, far, far), x_BSN).shape == (B, 3, 2 * far + 4, N)


def test_packed_rows_do_not_see_each_other():
  """Two sentences in one row give what each gives alone, where blocks do not matter; padding gives zeros."""
  q, k, v = arrays(1)
  segments = jnp.array([[1] * 5 + [2] * 4 + [0] * 2] * B)
  function = jax.jit(partial(local.sliding_window_attention, left=3, block_width=4))
  packed = function(q, k, v, segments_BT=segments)
  assert_close(packed[:, 5:9], function(*(x[:, 5:9] for x in (q, k, v))))
  assert (packed[:, 9:] == 0).all()


def test_skewed_in_blocks_equals_shaws_with_as_many_rows():
  """Music Transformer's local form, causal and not, against the dense gather form under a mask."""
  q, k, v = arrays(2)
  W = 4
  (table,) = (jnp.float32(x) for x in normal(3, (4 * W - 1, N, K)))
  block = masks.block_local(T, block_width=W, left=W, right=W)
  dense = jax.jit(relative.shaw_gather_attention)
  both = jax.jit(partial(local.music_local_bidirectional_attention, block_width=W))
  assert_close(both(q, k, v, table), dense(q, k, v, table, mask=block))
  past = jax.jit(partial(local.music_local_attention, block_width=W))
  assert_close(past(q, k, v, table[: 2 * W]), dense(q, k, v, table, mask=block & masks.causal(T)))


def test_time_restricted_offsets_and_latency():
  """The appended half are the weights by offset, which sum to 1; a frame waits for `right` frames and no
  more."""
  q, k, v = arrays(4)
  (q_offset,) = (jnp.float32(x) for x in normal(5, (B, T, N, 6)))
  function = partial(local.time_restricted_attention, left=3, right=2)

  @jax.jit
  def output_and_reach(q, q_offset, k, v):
    reach = jax.vmap(lambda t: jax.grad(lambda v: function(q, q_offset, k, v)[:, t].sum())(v))(jnp.arange(T))
    return function(q, q_offset, k, v), jnp.abs(reach).sum((1, 3, 4)) > 0

  out, reach = output_and_reach(q, q_offset, k, v)
  weights = np.asarray(out[..., H:])
  assert_close(weights.sum(-1), np.ones((B, T, N)))
  assert (reach == masks.window(T, left=3, right=2)[0, 0]).all()
  expected = np.zeros((B, T, N, H))
  for t in range(T):
    for j, s in enumerate(range(t - 3, t + 3)):
      if 0 <= s < T:
        expected[:, t] += weights[:, t, :, j, None] * np.asarray(v[:, s])
      else:
        assert (weights[:, t, :, j] == 0).all()
  assert_close(out[..., :H], expected)


def test_block_raster_order():
  """Four tiles of 2 x 2, written out; odd sizes against a walk through the tiles; the inverse undoes it."""
  order, _ = local_2d.block_raster_order(4, 4, (2, 2))
  assert order.tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
  for Y, X, tile in ((4, 4, (2, 2)), (5, 7, (2, 3)), (1, 1, (4, 4)), (0, 3, (2, 2)), (3, 5, (1, 5))):
    order, inverse = local_2d.block_raster_order(Y, X, tile)
    assert (inverse == reference.block_raster_rank(Y, X, tile).reshape(-1)).all()
    pixels = np.arange(Y * X)
    assert (pixels[order][inverse] == pixels).all() and (pixels[inverse][order] == pixels).all()


@pytest.mark.parametrize("length", [24, 27])
def test_local_2d_for_layers_is_the_attention_on_the_image(length):
  """At once, and in steps; also of a sequence that ends in the middle of a tile."""
  columns, tile, flange = 6, (2, 3), (1, 2)
  attention = local_2d.local_2d(Sizes(8, N, K, H, causal=True), columns=columns, tile=tile, flange=flange)
  order, inverse = local_2d.block_raster_order(6, columns, tile)
  q, k, v = arrays(length=36)
  wanted = local_2d.masked_local_attention_2d(*(x.reshape(B, 6, columns, N, -1) for x in (q, k, v)), tile=tile,
                                              flange=flange)  # fmt: skip
  wanted = wanted.reshape(B, 36, N, H)[:, order][:, :length]
  q, k, v = (x[:, order][:, :length] for x in (q, k, v))
  assert_close(attention.attend({}, q, k, v, segments_BT=None, dropout=None), wanted)
  cache = attention.init_cache(B, 1, length, jnp.float32)
  ancestry_BJZ = jnp.zeros((B, 1, length), jnp.int32)
  for start, stop in ((0, 20), (20, 21), (21, 24)):
    new = [x[:, None, start:stop] for x in (q, k, v)]
    out, cache = attention.step({}, *new, jnp.int32(start), cache, ancestry_BJZ)
    assert_close(out[:, 0], wanted[:, start:stop])


def test_a_tile_as_large_as_the_image_is_full_attention():
  q, k, v = (x[:, :10] for x in arrays(6))
  images = [x.reshape(B, 2, 5, *x.shape[2:]) for x in (q, k, v)]
  options = {"tile": (2, 5), "flange": (0, 0)}
  full = jax.jit(partial(local_2d.local_attention_2d, **options))(*images)
  causal = jax.jit(partial(local_2d.masked_local_attention_2d, **options))(*images)
  assert_close(full.reshape(v.shape), dot_product_attention(q, k, v))
  assert_close(causal.reshape(v.shape), dot_product_attention(q, k, v, mask=masks.causal(10)))


def image(function):
  return lambda q, k, v: function(*(x.reshape(x.shape[0], 16, -1, *x.shape[2:]) for x in (q, k, v)))


KERNEL, TABLE = np.ones((3, 1, 8, 8), np.float32), np.ones((128, 1, 8), np.float32)
LINEAR = {
  "masked_local_1d": partial(local.masked_local_attention_1d, block_width=32),
  "sliding_window": partial(local.sliding_window_attention, left=20, right=9),
  "time_restricted": lambda q, k, v: local.time_restricted_attention(q, q, k, v, left=4, right=3),
  "music_local": lambda q, k, v: local.music_local_attention(q, k, v, TABLE, block_width=32),
  "local_2d": image(partial(local_2d.masked_local_attention_2d, tile=(4, 8), flange=(2, 4))),
}


@pytest.mark.parametrize("name", [*LINEAR, "memory_compressed"])
def test_cost_is_linear(name):
  """Twice the length, gradient included: twice the memory, and twice the arithmetic but for
  memory-compressed."""
  function = LINEAR.get(name) or (
    lambda q, k, v: compressed.masked_memory_compressed_attention(q, k, v, KERNEL, KERNEL, chunk=32)
  )

  def cost(length):
    x = jax.ShapeDtypeStruct((1, length, 1, 8), jnp.float32)
    compiled = jax.jit(jax.grad(lambda *a: function(*a).sum(), (0, 1, 2))).lower(x, x, x).compile()
    return compiled.memory_analysis().temp_size_in_bytes, compiled.cost_analysis()["flops"]

  (memory, flops), (more_memory, more_flops) = cost(512), cost(1024)
  assert more_memory < 2.1 * memory
  assert name == "memory_compressed" or more_flops < 2.1 * flops


X, V, I = (B, T, N, K), (B, T, N, H), (B, 4, 5, N, K)


@pytest.mark.parametrize(
  "function, shapes, message",
  [
    (partial(local.masked_local_attention_1d, block_width=0), [X, X, V], "block_width is 0"),
    (partial(local.masked_local_attention_1d, block_width=4, memory_width=-1), [X, X, V], "the memory -1 before"),
    (partial(local.masked_local_attention_1d, block_width=4), [X, (B, 5, N, K), (B, 5, N, H)],
     "wanted T = 11 positions"),
    (partial(local.local_attention_1d, block_width=4, memory_width=1), [X, X, (B, T, 3, H)], "v_BSNH has shape"),
    (partial(local.time_restricted_attention, left=2, right=2), [X, X, X, V],
     r"q_offset_BTNR has shape \(2, 11, 2, 4\), wanted \(2, 11, 2, 5\)"),
    (partial(local.music_local_attention, block_width=4), [X, X, V, (7, N, K)],
     "table_RNK has shape .* too short: it needs R >= 8"),
    (partial(local.music_local_bidirectional_attention, block_width=4), [X, X, V, (13, N, K)], "wanted an odd R >= 15"),
    (partial(local_2d.local_attention_2d, tile=(2, 0), flange=(1, 1)), [I, I, I], r"tile is \(2, 0\)"),
    (partial(local_2d.local_attention_2d, tile=(2, 2), flange=(1, 1)), [I, (B, 4, 6, N, K), I], "k_BYXNK has shape"),
    (lambda q, k, v, s: local.sliding_window_attention(q, k, v, left=2, segments_BT=s), [X, X, V, (B, 4)],
     r"segments_BT has shape \(2, 4\), wanted \(2, 11\)"),
  ],
)  # fmt: skip
def test_bad_input(function, shapes, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(function, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
