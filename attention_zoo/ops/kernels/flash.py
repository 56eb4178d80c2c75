"""FlashAttention-2 (Dao 2023, https://arxiv.org/abs/2307.08691) of packed rows, as Pallas kernels for GPUs.

Which keys a query sees is told by the segments of both, and nowhere is there an array [T, S]: each program holds a
block of queries, walks over blocks of keys, and keeps the maximum and the sum of its softmax as it goes. The backward
pass computes the weights anew from the log of those sums, once for the queries' gradient and once for that of keys and
values, so that no two programs write to one place: results are the same, bit for bit, at each run.

Blocks that no query of a block can see are not visited: those past the diagonal, and those before the first and behind
the last whose segments overlap with the queries'. The result does not depend on the order of the segments; in rows that
are packed in ascending order, which are all of `data/`, it leaves little more than the segments themselves.

On a mesh of several devices each works on its own rows and heads; lengths and depths are not split.

The lowering is Triton's. JAX 0.11 calls it deprecated; where a JAX has none, `supported` says no.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from attention_zoo import hardware
from attention_zoo.ops import shapes

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


class Blocks(NamedTuple):
  """The tiles of the three kernels: forward, gradient of the queries, gradients of keys and values."""

  forward: Tile
  dq: Tile
  dkv: Tile


def choose_blocks(T, S, K, dtype) -> Blocks:
  """The tiles for lengths and depth of heads. Long rows want large ones; in short, packed ones small ones skip more."""
  if dtype == jnp.float32:  # Nothing is rounded, so there are no tensor cores, and large tiles take long to compile.
    return Blocks(*[Tile(32, 32, 4, 1)] * 3)
  if max(T, S) <= 1024:
    return Blocks(Tile(64, 64, 4, 2), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2))
  if K <= 64:
    return Blocks(Tile(128, 64, 4, 3), Tile(128, 64, 8, 2), Tile(64, 128, 8, 2))
  return Blocks(Tile(128, 64, 8, 3), Tile(64, 64, 8, 2), Tile(64, 64, 8, 2))


def supported(q_BTNK, k_BSNK, v_BSNH) -> bool:
  """Whether `flash_attention` should take these: a GPU, one 16-bit type, d_k and d_v <= 128 in sixteens.

  It computes float32 and other depths too, but slower than einsums do. Cost: none, the shapes decide.
  """
  K, H = q_BTNK.shape[3], v_BSNH.shape[3]
  return (
    triton is not None
    and hardware.platform() == "gpu"
    and q_BTNK.dtype == k_BSNK.dtype == v_BSNH.dtype
    and q_BTNK.dtype in (jnp.bfloat16, jnp.float16)
    and max(K, H) <= 128
    and K % 16 == H % 16 == 0
    and q_BTNK.size > 0
    and v_BSNH.size > 0
  )


def flash_attention(
  q_BTNK,
  k_BSNK,
  v_BSNH,
  *,
  query_segments_BT=None,
  key_segments_BS=None,
  causal=False,
  blocks: Blocks | None = None,
  interpret=False,
):
  """softmax(q k^T / sqrt(d_k)) v for every head (Vaswani et al. 2017, eq. 1), without the weights in memory.

  Position t sees s if both stand in one segment > 0, as in `masks.segments`, and with causal if s <= t. Segments are
  given of both or of neither: then all see all. A row that may attend nowhere returns zeros. Softmax and sums are
  float32, the operands of products have the type of q, k and v. interpret: on any platform, slowly, for tests.

  Returns out_BTNH. Cost: time O(T S N (K + H)) less what is skipped, memory O((T + S) N) beside inputs and output.
  Raises ValueError for shapes or types that do not fit, or one of the segments without the other.
  """
  shapes.check(q_BTNK=q_BTNK, k_BSNK=k_BSNK, v_BSNH=v_BSNH)
  B, T, N, K = q_BTNK.shape
  S, H = v_BSNH.shape[1], v_BSNH.shape[3]
  if not q_BTNK.dtype == k_BSNK.dtype == v_BSNH.dtype:
    raise ValueError(f"q, k and v must have one type, got {q_BTNK.dtype}, {k_BSNK.dtype} and {v_BSNH.dtype}")
  if causal and T != S:
    raise ValueError(f"causal attention is of one sequence to itself, got {T} queries and {S} keys")
  if (query_segments_BT is None) != (key_segments_BS is None):
    raise ValueError("query_segments_BT and key_segments_BS: give both or neither")
  if query_segments_BT is not None:
    shapes.check(q_BTNK=q_BTNK, k_BSNK=k_BSNK, query_segments_BT=query_segments_BT, key_segments_BS=key_segments_BS)
    # Padding gets two numbers that differ: whether two positions see each other is one comparison.
    query_segments_BT = jnp.where(query_segments_BT > 0, query_segments_BT, -1).astype(jnp.int32)
    key_segments_BS = jnp.where(key_segments_BS > 0, key_segments_BS, 0).astype(jnp.int32)
  if not q_BTNK.size or not v_BSNH.size:
    return jnp.zeros((B, T, N, H), v_BSNH.dtype)
  static = _Static(T, S, K, H, causal, query_segments_BT is not None, interpret)
  blocks = blocks or choose_blocks(T, S, max(K, H), q_BTNK.dtype)
  segments = (query_segments_BT, key_segments_BS) if static.segmented else ()
  return _attention(static, blocks, q_BTNK, k_BSNK, v_BSNH, *segments)


class _Static(NamedTuple):
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(static, blocks, *arrays):
  """arrays: q, k, v, and the segments of queries and keys if there are any."""
  return _forward(static, blocks, *arrays)[0]


def _forward(static, blocks, *arrays):
  def run(*arrays):
    q_BTNK, _, v_BSNH = arrays[:3]
    call = _Call(static, blocks.forward, q_BTNK, by_key=False)
    B, T, N, _ = q_BTNK.shape
    outputs = [
      (call.block(static.H), jax.ShapeDtypeStruct((B, T, N, static.H), v_BSNH.dtype)),
      (call.block(), jax.ShapeDtypeStruct((B, N, T), jnp.float32)),
    ]
    return call(_forward_kernel, call.inputs(*arrays), outputs)

  out_BTNH, lse_BNT = _on_own_rows(run, static.letters, ("BTNH", "BNT"))(*arrays)
  return out_BTNH, (*arrays, out_BTNH, lse_BNT)


def _backward(static, blocks, residuals, dout_BTNH):
  *arrays, out_BTNH, lse_BNT = residuals
  delta_BTN = jnp.sum(out_BTNH.astype(jnp.float32) * dout_BTNH.astype(jnp.float32), -1)

  def run(kernel, tile, wanted, *arrays):
    *arrays, dout_BTNH, lse_BNT, delta_BNT = arrays
    call = _Call(static, tile, arrays[0], by_key=kernel is _dkv_kernel)
    head, row = call.queries(static.H), call.queries()
    more = [(head, dout_BTNH), (row, lse_BNT), (row, delta_BNT)]
    outputs = [(call.block(x.shape[-1]), jax.ShapeDtypeStruct(x.shape, x.dtype)) for x in arrays[wanted]]
    return call(kernel, [*call.inputs(*arrays), *more], outputs)

  inputs = *arrays, dout_BTNH, lse_BNT, jnp.swapaxes(delta_BTN, 1, 2)
  letters = *static.letters, "BTNH", "BNT", "BNT"
  dq = functools.partial(run, _dq_kernel, blocks.dq, slice(0, 1))
  dkv = functools.partial(run, _dkv_kernel, blocks.dkv, slice(1, 3))
  [dq_BTNK] = _on_own_rows(dq, letters, ("BTNK",))(*inputs)
  dk_BSNK, dv_BSNH = _on_own_rows(dkv, letters, ("BSNK", "BSNH"))(*inputs)
  return dq_BTNK, dk_BSNK, dv_BSNH, *(None,) * (len(arrays) - 3)


def _on_own_rows(function, inputs, outputs):
  """function of arrays with these letters, on a mesh of several devices: on each with its own rows and heads.

  XLA cannot split a kernel, and would gather all of the batch on every device.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.size <= 1 or set(mesh.manual_axes) == set(mesh.axis_names):
    return function

  def partition(mesh, inputs_now, outputs_now):
    spec = dict(zip(inputs[0], inputs_now[0].sharding.spec, strict=False))
    place = lambda letters: NamedSharding(mesh, PartitionSpec(*(spec.get(a) if a in "BN" else None for a in letters)))
    return mesh, lambda *arrays: tuple(function(*arrays)), tuple(map(place, outputs)), tuple(map(place, inputs))

  split = custom_partitioning(lambda *arrays: tuple(function(*arrays)))
  terms = [", ".join(" ".join(letters.lower()) for letters in side) for side in (inputs, outputs)]
  whole = tuple(a for a in dict.fromkeys("".join(inputs).lower()) if a not in "bn")  # in the order of the terms
  split.def_partition(partition, sharding_rule=" -> ".join(terms), need_replication_factors=whole)
  return split


_attention.defvjp(_forward, _backward)


class _Call:
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
    bounds = _bounds(static, self.tile, self.by_key, query_segments_BT, key_segments_BS)
    segments = [(None, None)] * 2
    if static.segmented:
      segments = [
        (pl.BlockSpec((None, pl.cdiv(x.shape[1], size) * size), lambda i, n, b: (b, 0)), x)
        for size, x in zip(self.tile, (query_segments_BT, key_segments_BS), strict=False)
      ]
    return [
      (pl.BlockSpec((None, None, 2), lambda i, n, b: (b if static.segmented else 0, self.index(i), 0)), bounds),
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
      name=kernel.__name__.strip("_").replace("kernel", "flash_attention"),
    )
    return function(*(array for _, array in inputs))


def _bounds(static, tile, by_key, query_segments_BT, key_segments_BS):
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


# The kernels. Here a name's letters are those of a block: q_TK are its queries, of one head.


def _forward_kernel(call, bounds_ref, q_ref, k_ref, v_ref, t_segments_ref, s_segments_ref, out_ref, lse_ref):
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


def _dq_kernel(
  call, bounds_ref, q_ref, k_ref, v_ref, t_segments_ref, s_segments_ref, dout_ref, lse_ref, delta_ref, dq_ref
):
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


def _dkv_kernel(
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
