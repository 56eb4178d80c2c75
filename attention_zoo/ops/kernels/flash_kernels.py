"""The kernels of `flash.py`: what one program does with one block, and which blocks there are.

Here a name's letters are those of a block: q_TK are its queries, of one head. Cost: that of `flash_attention`.
"""

import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

try:
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import triton
except ImportError:
  triton = None

LOWEST = float(jnp.finfo(jnp.float32).min) / 2  # of no logit; that minus itself is 0, where -inf would give NaN


class Tile(NamedTuple):
  """How much one program works on at a time: positions, powers of two from 16 on, and how Triton compiles it."""

  query: int
  key: int
  num_warps: int
  num_stages: int


class Static(NamedTuple):
  """What is known of a call when it is traced."""

  T: int
  S: int
  K: int
  H: int
  causal: bool
  segmented: bool
  interpret: bool

  @property
  def letters(self):
    """Of the arrays that all kernels read."""
    return "BTNK", "BSNK", "BSNH", *(("BT", "BS") if self.segmented else ())

  @property
  def scale(self):
    return self.K**-0.5

  @property
  def scale_to_bits(self):
    """exp(x) = 2^(x log2 e), and powers of two are what the hardware computes."""
    return self.scale * math.log2(math.e)


class Call:
  """One kernel's grid and blocks: programs are (block of queries or, by_key, of keys; head; row of the batch)."""

  def __init__(self, static, tile, q_BTNK, by_key):
    self.static, self.by_key = static, by_key
    query, key = (min(size, max(16, pl.next_power_of_2(n))) for size, n in zip(tile, static[:2], strict=False))
    self.tile = tile._replace(query=query, key=key)
    blocks = pl.cdiv(static.S, key) if by_key else pl.cdiv(static.T, query)
    self.grid = (blocks, q_BTNK.shape[2], q_BTNK.shape[0])

  def index(self, i):
    """The block of program i: those with the most to see come first, so that none of them is left for the end."""
    return self.grid[0] - 1 - i if self.static.causal and not self.by_key else i

  def queries(self, depth=None):
    """All positions of a head, of q or (without depth) of what is a number for each; BNT."""
    return self._whole(self.static.T, self.tile.query, depth)

  def keys(self, depth):
    return self._whole(self.static.S, self.tile.key, depth)

  def _whole(self, length, block, depth):
    # Up to the end of the last block, which may lie behind that of the array: there, nothing is read.
    padded = pl.cdiv(length, block) * block
    if depth is None:
      return pl.BlockSpec((None, None, padded), lambda i, n, b: (b, n, 0))
    return pl.BlockSpec((None, padded, None, pl.next_power_of_2(depth)), lambda i, n, b: (b, 0, n, 0))

  def block(self, depth=None):
    """The program's own positions, of an output."""
    size = self.tile.key if self.by_key else self.tile.query
    if depth is None:
      return pl.BlockSpec((None, None, size), lambda i, n, b: (b, n, self.index(i)))
    return pl.BlockSpec((None, size, None, pl.next_power_of_2(depth)), lambda i, n, b: (b, self.index(i), n, 0))

  def inputs(self, q_BTNK, k_BSNK, v_BSNH, query_segments_BT=None, key_segments_BS=None):
    """(spec, array) of what all kernels read; None for segments that there are not."""
    static = self.static
    blocks = bounds(static, self.tile, self.by_key, query_segments_BT, key_segments_BS)
    segments = [(None, None)] * 2
    if static.segmented:
      segments = [
        (pl.BlockSpec((None, pl.cdiv(x.shape[1], size) * size), lambda i, n, b: (b, 0)), x)
        for size, x in zip(self.tile, (query_segments_BT, key_segments_BS), strict=False)
      ]
    return [
      (pl.BlockSpec((None, None, 2), lambda i, n, b: (b if static.segmented else 0, self.index(i), 0)), blocks),
      (self.queries(static.K), q_BTNK),
      (self.keys(static.K), k_BSNK),
      (self.keys(static.H), v_BSNH),
      *segments,
    ]

  def __call__(self, kernel, inputs, outputs):
    function = pl.pallas_call(
      functools.partial(kernel, self),
      grid=self.grid,
      in_specs=[spec for spec, _ in inputs],
      out_specs=[spec for spec, _ in outputs],
      out_shape=[shape for _, shape in outputs],
      compiler_params=triton.CompilerParams(num_warps=self.tile.num_warps, num_stages=self.tile.num_stages),
      interpret=self.static.interpret,
      name=f"flash_attention_{kernel.__name__}",
    )
    return function(*(array for _, array in inputs))


def bounds(static, tile, by_key, query_segments_BT, key_segments_BS):
  """[B or 1, blocks, 2]: for each block of queries the first and the last + 1 block of keys that one of them may see.

  by_key: for each block of keys those of queries. Blocks are compared by their smallest and largest segment, so
  that this is right, if not sharp, in any order.
  """
  first_query = jnp.arange(pl.cdiv(static.T, tile.query)) * tile.query
  first_key = jnp.arange(pl.cdiv(static.S, tile.key)) * tile.key
  seen = jnp.ones((1, len(first_query), len(first_key)), bool)
  if static.causal:
    seen &= (first_key[None, :] < first_query[:, None] + tile.query)[None]
  if static.segmented:
    (low, high), (key_low, key_high) = _extremes(query_segments_BT, tile.query), _extremes(key_segments_BS, tile.key)
    seen &= (low[:, :, None] <= key_high[:, None, :]) & (key_low[:, None, :] <= high[:, :, None])
  if by_key:
    seen = jnp.swapaxes(seen, 1, 2)
  index = jnp.arange(seen.shape[2], dtype=jnp.int32)[None, None]
  first = jnp.where(seen, index, seen.shape[2]).min(2)
  return jnp.stack([first, jnp.where(seen, index + 1, 0).max(2)], 2)


def _extremes(segments, size):
  """Smallest and largest segment of each block, without padding; in a block of padding nothing lies between them."""
  highest = jnp.iinfo(jnp.int32).max
  segments = jnp.pad(segments, ((0, 0), (0, -segments.shape[1] % size)))
  segments = segments.reshape(segments.shape[0], -1, size)
  return jnp.where(segments > 0, segments, highest).min(2), jnp.maximum(segments, 0).max(2)


def forward(call, bounds_ref, q_ref, k_ref, v_ref, t_segments_ref, s_segments_ref, out_ref, lse_ref):
  static, tile = call.static, call.tile
  i = call.index(pl.program_id(0))
  q_TK = _read(q_ref, i, tile.query, static.T, static.K)
  t = _Positions(t_segments_ref, i, tile.query, static.T, lambda x: x[:, None])

  def step(masked, j, carry):
    out_TH, highest_T, total_T = carry
    k_SK = _read(k_ref, j, tile.key, static.S, static.K)
    logits_TS = _dot(q_TK, k_SK, 1, 1) * static.scale_to_bits
    if masked:
      s = _Positions(s_segments_ref, j, tile.key, static.S, lambda x: x[None, :])
      logits_TS = jnp.where(_visible(static, t, s), logits_TS, -jnp.inf)
    new_T = jnp.maximum(highest_T, jnp.max(logits_TS, 1))
    weights_TS = jnp.exp2(logits_TS - new_T[:, None])
    shrink_T = jnp.exp2(highest_T - new_T)
    v_SH = _read(v_ref, j, tile.key, static.S, static.H)
    out_TH = out_TH * shrink_T[:, None] + _dot(weights_TS.astype(v_SH.dtype), v_SH, 1, 0)
    return out_TH, new_T, total_T * shrink_T + jnp.sum(weights_TS, 1)

  zeros_T = jnp.zeros(tile.query, jnp.float32)
  zeros_TH = jnp.zeros((tile.query, v_ref.shape[-1]), jnp.float32)
  carry = _over_keys(call, i, bounds_ref, step, (zeros_TH, zeros_T + LOWEST, zeros_T))
  out_TH, highest_T, total_T = carry
  total_T, sees_T = jnp.where(total_T > 0, total_T, 1.0), total_T > 0
  _write(out_ref, out_TH / total_T[:, None], i, static.T, static.H)
  # Infinite where nothing is seen: whatever the backward pass takes 2^(logit - lse) of, is 0.
  _write(lse_ref, jnp.where(sees_T, highest_T + jnp.log2(total_T), jnp.inf), i, static.T)


def dq(call, bounds_ref, q_ref, k_ref, v_ref, t_segments_ref, s_segments_ref, dout_ref, lse_ref, delta_ref, dq_ref):
  static, tile = call.static, call.tile
  i = call.index(pl.program_id(0))
  q_TK = _read(q_ref, i, tile.query, static.T, static.K)
  dout_TH = _read(dout_ref, i, tile.query, static.T, static.H)
  lse_T = _read(lse_ref, i, tile.query, static.T)
  delta_T = _read(delta_ref, i, tile.query, static.T)
  t = _Positions(t_segments_ref, i, tile.query, static.T, lambda x: x[:, None])

  def step(masked, j, dq_TK):
    k_SK = _read(k_ref, j, tile.key, static.S, static.K)
    v_SH = _read(v_ref, j, tile.key, static.S, static.H)
    logits_TS = _dot(q_TK, k_SK, 1, 1) * static.scale_to_bits
    if masked:
      s = _Positions(s_segments_ref, j, tile.key, static.S, lambda x: x[None, :])
      logits_TS = jnp.where(_visible(static, t, s), logits_TS, -jnp.inf)
    weights_TS = jnp.exp2(logits_TS - lse_T[:, None])
    dlogits_TS = weights_TS * (_dot(dout_TH, v_SH, 1, 1) - delta_T[:, None])
    return dq_TK + _dot(dlogits_TS.astype(k_SK.dtype), k_SK, 1, 0)

  dq_TK = _over_keys(call, i, bounds_ref, step, jnp.zeros(q_TK.shape, jnp.float32))
  _write(dq_ref, dq_TK * static.scale, i, static.T, static.K)


def dkv(
  call, bounds_ref, q_ref, k_ref, v_ref, t_segments_ref, s_segments_ref, dout_ref, lse_ref, delta_ref, dk_ref, dv_ref
):
  """Keys are the rows of its blocks: what is multiplied next then comes out of a product as it is."""
  static, tile = call.static, call.tile
  j = call.index(pl.program_id(0))
  k_SK = _read(k_ref, j, tile.key, static.S, static.K)
  v_SH = _read(v_ref, j, tile.key, static.S, static.H)
  s = _Positions(s_segments_ref, j, tile.key, static.S, lambda x: x[:, None])

  def step(masked, i, carry):
    dk_SK, dv_SH = carry
    q_TK = _read(q_ref, i, tile.query, static.T, static.K)
    dout_TH = _read(dout_ref, i, tile.query, static.T, static.H)
    lse_T = _read(lse_ref, i, tile.query, static.T)
    delta_T = _read(delta_ref, i, tile.query, static.T)
    logits_ST = _dot(k_SK, q_TK, 1, 1) * static.scale_to_bits
    if masked:
      t = _Positions(t_segments_ref, i, tile.query, static.T, lambda x: x[None, :])
      logits_ST = jnp.where(_visible(static, t, s), logits_ST, -jnp.inf)
    weights_ST = jnp.exp2(logits_ST - lse_T[None, :])
    dv_SH += _dot(weights_ST.astype(dout_TH.dtype), dout_TH, 1, 0)
    dlogits_ST = weights_ST * (_dot(v_SH, dout_TH, 1, 1) - delta_T[None, :])
    dk_SK += _dot(dlogits_ST.astype(q_TK.dtype), q_TK, 1, 0)
    return dk_SK, dv_SH

  carry = jnp.zeros(k_SK.shape, jnp.float32), jnp.zeros(v_SH.shape, jnp.float32)
  first, last = bounds_ref[0], bounds_ref[1]
  if static.segmented:
    carry = lax.fori_loop(first, last, functools.partial(step, True), carry)
  else:  # The diagonal first, then what all keys of the block are seen by. What lies behind the end is written nowhere.
    if static.causal:
      full = jnp.minimum(last, lax.div((j + 1) * tile.key + tile.query - 2, tile.query))
      carry = lax.fori_loop(first, full, functools.partial(step, True), carry)
      first = full
    carry = lax.fori_loop(first, last, functools.partial(step, False), carry)
  dk_SK, dv_SH = carry
  _write(dk_ref, dk_SK * static.scale, j, static.S, static.K)
  _write(dv_ref, dv_SH, j, static.S, static.H)


def _over_keys(call, i, bounds_ref, step, carry):
  """step over the blocks of keys that block i of the queries may see: unmasked while it sees all of them."""
  static, tile = call.static, call.tile
  first, last = bounds_ref[0], bounds_ref[1]
  if not static.segmented:
    full = static.S // tile.key
    if static.causal:
      full = lax.div(i * tile.query + 1, tile.key)
    carry = lax.fori_loop(first, full, functools.partial(step, False), carry)
    first = full
    if not static.causal and static.S % tile.key == 0:
      return carry
  return lax.fori_loop(first, last, functools.partial(step, True), carry)


class _Positions:
  """Those of block i, and their segments, as a row or a column of what is compared."""

  def __init__(self, segments_ref, i, size, length, place):
    self.index = place(i * size + jnp.arange(size, dtype=jnp.int32))
    self.segments = None if segments_ref is None else place(_read(segments_ref, i, size, length))


def _visible(static, t, s):
  """Whether positions t see positions s. Keys behind the end have segment 0; causally, nobody who counts sees them."""
  if not static.segmented:
    return s.index <= t.index if static.causal else s.index < static.S
  same = t.segments == s.segments
  return same & (s.index <= t.index) if static.causal else same


def _inside(shape, i, size, length, depth):
  """Where a block lies in its array; None if all of it does."""
  inside = None
  if length % size:
    inside = i * size + jnp.arange(size, dtype=jnp.int32) < length
    inside = inside if depth is None else inside[:, None]
  if depth is not None and depth < shape[-1]:
    in_depth = (jnp.arange(shape[-1], dtype=jnp.int32) < depth)[None, :]
    inside = in_depth if inside is None else inside & in_depth
  return inside


def _read(ref, i, size, length, depth=None):
  """Block i of a head, [size, depth] or [size]; 0 behind the end of the array."""
  place = (pl.ds(i * size, size),) if depth is None else (pl.ds(i * size, size), slice(None))
  inside = _inside(ref.shape, i, size, length, depth)
  zero = 0 if jnp.issubdtype(ref.dtype, jnp.integer) else 0.0
  return triton.load(ref.at[place], mask=inside, other=None if inside is None else zero)


def _write(ref, block, i, length, depth=None):
  """Block i, the program's own, but for what lies behind the end of the array."""
  inside = _inside(ref.shape, i, ref.shape[0], length, depth)
  triton.store(ref, block.astype(ref.dtype), mask=inside)


def _dot(x, y, x_axis, y_axis):
  """Product over an axis of each, with float32 sums; of float32, not rounded."""
  precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else lax.Precision.DEFAULT
  over = (((x_axis,), (y_axis,)), ((), ()))
  return lax.dot_general(x, y, over, precision=precision, preferred_element_type=jnp.float32)
