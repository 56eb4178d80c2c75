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
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from attention_zoo import hardware
from attention_zoo.ops import shapes
from attention_zoo.ops.kernels import flash_kernels
from attention_zoo.ops.kernels.flash_kernels import Call, Static, Tile


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
    return Blocks(Tile(64, 64, 4, 2), Tile(64, 64, 4, 2), Tile(64, 64, 4 if K <= 64 else 8, 2))
  if K <= 64:
    return Blocks(Tile(128, 64, 4, 3), Tile(128, 64, 8, 2), Tile(64, 128, 8, 2))
  return Blocks(Tile(128, 64, 8, 3), Tile(128, 64, 8, 2), Tile(64, 64, 8, 2))


def supported(q_BTNK, k_BSNK, v_BSNH) -> bool:
  """Whether `flash_attention` should take these: a GPU, one 16-bit type, d_k and d_v <= 128 in sixteens.

  It computes float32 and other depths too, but slower than einsums do. Cost: none, the shapes decide.
  """
  K, H = q_BTNK.shape[3], v_BSNH.shape[3]
  return (
    flash_kernels.triton is not None
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
  static = Static(T, S, K, H, causal, query_segments_BT is not None, interpret)
  blocks = blocks or choose_blocks(T, S, max(K, H), q_BTNK.dtype)
  segments = (query_segments_BT, key_segments_BS) if static.segmented else ()
  return _attention(static, blocks, q_BTNK, k_BSNK, v_BSNH, *segments)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(static, blocks, *arrays):
  """arrays: q, k, v, and the segments of queries and keys if there are any."""
  return _forward(static, blocks, *arrays)[0]


def _forward(static, blocks, *arrays):
  def run(*arrays):
    q_BTNK, _, v_BSNH = arrays[:3]
    call = Call(static, blocks.forward, q_BTNK, by_key=False)
    B, T, N, _ = q_BTNK.shape
    outputs = [
      (call.block(static.H), jax.ShapeDtypeStruct((B, T, N, static.H), v_BSNH.dtype)),
      (call.block(), jax.ShapeDtypeStruct((B, N, T), jnp.float32)),
    ]
    return call(flash_kernels.forward, call.inputs(*arrays), outputs)

  out_BTNH, lse_BNT = _on_own_rows(run, static.letters, ("BTNH", "BNT"))(*arrays)
  return out_BTNH, (*arrays, out_BTNH, lse_BNT)


def _backward(static, blocks, residuals, dout_BTNH):
  *arrays, out_BTNH, lse_BNT = residuals
  delta_BTN = jnp.sum(out_BTNH.astype(jnp.float32) * dout_BTNH.astype(jnp.float32), -1)

  def run(kernel, tile, wanted, *arrays):
    *arrays, dout_BTNH, lse_BNT, delta_BNT = arrays
    call = Call(static, tile, arrays[0], by_key=kernel is flash_kernels.dkv)
    head, row = call.queries(static.H), call.queries()
    more = [(head, dout_BTNH), (row, lse_BNT), (row, delta_BNT)]
    outputs = [(call.block(x.shape[-1]), jax.ShapeDtypeStruct(x.shape, x.dtype)) for x in arrays[wanted]]
    return call(kernel, [*call.inputs(*arrays), *more], outputs)

  inputs = *arrays, dout_BTNH, lse_BNT, jnp.swapaxes(delta_BTN, 1, 2)
  letters = *static.letters, "BTNH", "BNT", "BNT"
  dq = functools.partial(run, flash_kernels.dq, blocks.dq, slice(0, 1))
  dkv = functools.partial(run, flash_kernels.dkv, blocks.dkv, slice(1, 3))
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
