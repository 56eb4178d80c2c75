"""Relative attention without an array [T, S]: the functions of `ops/relative.py` and `ops/position_bias.py`, fused.

What each of them is to the kernels in `relative_tiles.py`: a table of the distances -(S - 1) .. T - 1, which the
queries are multiplied with in the tile, or a bias of each distance. Shaw's clipped table is repeated at its ends to
that length here, memory O((T + S) K), and the gradient of that adds up the rows again.

Options everywhere: query_segments_BT, key_segments_BS, as `masks.segments` takes them. width: positions of a block, a
multiple of 128 on a TPU, a power of two on a GPU. gpu: Triton's kernels, by default where the program is for a GPU;
heads are powers of two there. interpret: runs anywhere, slowly; widths are multiples of 8. Equal to the functions of
the same names up to rounding; there is no bias, mask or dropout to pass, and no weights are returned.

When they are used: `runs`, which knows TPUs alone. Neither kind has been run on its hardware so far: compiled for it,
and run in Pallas's interpreter (`benchmarks/relative_kernel.md`).
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from attention_zoo import hardware
from attention_zoo.ops.dot_product import check_shapes
from attention_zoo.ops.kernels import relative_tiles

WIDTH, GPU_WIDTH = 256, 64
# Mesh axes of `training/sharding.py`: heads are split over one, rows of the batch over all others.
HEAD_AXIS = "tensor"


def runs(q_BTNK, k_BSNK, v_BSNH, *, bias=None, mask=None, dropout=None, return_weights=False):
  """Whether the functions of `ops/relative.py` and the attentions `t5` and `alibi` use these kernels: on a TPU.

  One from v5e on (Mosaic turns rows by different amounts there only), at lengths of at least WIDTH, float32 or
  bfloat16, heads of at most 256, and batch and heads that the mesh in use divides. bias, mask, dropout and
  return_weights must not be asked for; what a layer's mask says its segments say too. Cost: none, the shapes decide.
  """
  check_shapes(q_BTNK, k_BSNK, v_BSNH)
  if bias is not None or mask is not None or dropout is not None or return_weights:
    return False
  if hardware.platform() != "tpu" or any(name in _device_kind() for name in ("v2", "v3", "v4")):
    return False
  (B, T, N, K), (S, H) = q_BTNK.shape, (k_BSNK.shape[1], v_BSNH.shape[3])
  batch, heads = (_size(axes) for axes in _axes())
  return (
    min(T, S) >= WIDTH
    and q_BTNK.dtype == k_BSNK.dtype == v_BSNH.dtype
    and q_BTNK.dtype in (jnp.float32, jnp.bfloat16)
    and max(K, H) <= 256
    and B % batch == N % heads == 0
  )


def _device_kind():
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.device_kind if device else jax.devices()[0].device_kind


def relative_attention(
  q_BTNK,
  k_BSNK,
  v_BSNH,
  table_RNK=None,
  *,
  position_BTNK=None,
  value_table_RNH=None,
  bias_NR=None,
  causal=False,
  query_segments_BT=None,
  key_segments_BS=None,
  width=None,
  gpu=None,
  interpret=False,
):
  """softmax(q k^T + skew(position table^T) + skew(bias)) (v + skewed values): what the functions below share.

  q_BTNK is scaled already; position_BTNK: what the table is multiplied with, where that is not q. table_RNK,
  value_table_RNH, bias_NR: rows of the distances -(S - 1) .. T - 1, or -(S - 1) .. 0 if causal. Returns out_BTNH; a row
  that may attend nowhere gets zeros.
  Cost: time O(T S N (K + H)), memory O((T + S) N (K + H)), forward and backward.
  """
  check_shapes(q_BTNK, k_BSNK, v_BSNH)
  T, S = q_BTNK.shape[1], k_BSNK.shape[1]
  for name, rows in (("table_RNK", table_RNK), ("value_table_RNH", value_table_RNH)):
    if rows is not None and len(rows) != T + S - 1 and not (causal and len(rows) == S):
      wanted = f"{S} or {T + S - 1}" if causal else T + S - 1
      raise ValueError(f"{name} has shape {rows.shape}, wanted R = {wanted} rows for {T} queries and {S} keys")
  gpu = hardware.platform() == "gpu" if gpu is None else gpu
  width = width or (GPU_WIDTH if gpu else WIDTH)
  depths = q_BTNK.shape[3], v_BSNH.shape[3]
  if gpu and not interpret and not set(depths) <= {16, 32, 64, 128}:
    raise ValueError(f"d_k and d_v are {depths}, wanted 16, 32, 64 or 128 on a GPU")
  tiles = relative_tiles.Tiles(T, S, width, causal, gpu, interpret)
  long = {"T": tiles.rows * width, "S": tiles.columns * width}

  def by_heads(x_BTNK, letter):
    x_BNTK = x_BTNK.swapaxes(1, 2)
    return _pad(x_BNTK, 2, 0, long[letter] - x_BNTK.shape[2])

  def by_distance(x, axis):
    """Padded queries reach further back; what lies ahead of the last query is hidden."""
    return _pad(x, axis, long["T"] - T, tiles.distances - (long["T"] - T) - x.shape[axis])

  arrays = {"q_BNTK": by_heads(q_BTNK, "T"), "k_BNSK": by_heads(k_BSNK, "S"), "v_BNSH": by_heads(v_BSNH, "S")}
  if position_BTNK is not None:
    arrays["position_BNTK"] = by_heads(position_BTNK, "T")
  tables = {}
  for name, table in (("table_NRK", table_RNK), ("value_table_NRH", value_table_RNH)):
    if table is not None:
      tables[name] = by_distance(table.swapaxes(0, 1).astype(q_BTNK.dtype), 1)
  if bias_NR is not None:
    tables["bias_N1R"] = by_distance(bias_NR.astype(jnp.float32)[:, None], 2)
  if (query_segments_BT is None) != (key_segments_BS is None):
    raise ValueError("query_segments_BT and key_segments_BS: give both or neither")
  heads = max(map(len, tables.values()), default=1)
  arrays |= {name: jnp.broadcast_to(x, (heads, *x.shape[1:])) for name, x in tables.items()}
  segments = {}
  if query_segments_BT is not None:
    segments["query_segments_B1T"] = _pad(query_segments_BT.astype(jnp.int32)[:, None], 2, 0, long["T"] - T)
    segments["key_segments_B1S"] = _pad(key_segments_BS.astype(jnp.int32)[:, None], 2, 0, long["S"] - S)
  out_BNTH = _on_own_rows(functools.partial(relative_tiles.attend, tiles), arrays, segments)
  return out_BNTH[:, :, :T].swapaxes(1, 2)


def _pad(x, axis, before, after):
  """Zeros at both ends of an axis; after < 0 cuts."""
  widths = [(before, max(after, 0)) if i == axis else (0, 0) for i in range(x.ndim)]
  return jax.lax.slice_in_dim(jnp.pad(x, widths), 0, before + x.shape[axis] + after, axis=axis)


def _on_own_rows(function, arrays, segments):
  """Runs it on each device's rows of the batch and heads, by the letters of the names: no compiler splits a kernel."""
  batch, heads = _axes()
  if not batch and not heads:
    return function(arrays, segments)

  def spec(name, x):
    axes = {"B": batch, "N": heads}
    return PartitionSpec(
      *(axes.get(letter) if n > 1 else None for letter, n in zip(name.rpartition("_")[2], x.shape, strict=True))
    )

  specs = [{name: spec(name, x) for name, x in inputs.items()} for inputs in (arrays, segments)]
  out = PartitionSpec(batch or None, heads or None)
  run = jax.shard_map(
    function, in_specs=tuple(specs), out_specs=out, axis_names={*batch, *heads}, check_vma=False
  )
  return run(arrays, segments)


def _axes():
  """(axes of the mesh in use that split the batch, those that split heads), less what is split already.

  Those of length 1 too: the compiler wants to hear of all that it splits nothing.
  """
  mesh = jax.sharding.get_abstract_mesh()
  axes = [name for name in mesh.axis_names if mesh.size > 1 and name not in mesh.manual_axes]
  return tuple(x for x in axes if x != HEAD_AXIS), tuple(x for x in axes if x == HEAD_AXIS)


def _size(axes):
  size = 1
  for axis in axes:
    size *= jax.sharding.get_abstract_mesh().shape[axis]
  return size


# By the names of the functions that they are equal to


def skewed_attention(
  q_BTNK, k_BSNK, v_BSNH, table_RNK, *, content_bias_NK=None, position_bias_NK=None, causal=False, **options
):
  """`ops.relative.skewed_attention`. table_RNK: distances -(S - 1) .. T - 1, or -(S - 1) .. 0 if causal."""
  scale = q_BTNK.shape[-1] ** -0.5
  plus = lambda bias_NK: (q_BTNK if bias_NK is None else q_BTNK + bias_NK[None, None]) * scale
  position_BTNK = None if content_bias_NK is position_bias_NK is None else plus(position_bias_NK)
  content_BTNK = plus(content_bias_NK)
  return relative_attention(
    content_BTNK, k_BSNK, v_BSNH, table_RNK, position_BTNK=position_BTNK, causal=causal, **options
  )


def music_attention(q_BTNK, k_BSNK, v_BSNH, table_RNK, **options):
  """`ops.relative.music_attention`, causal. table_RNK: distances -(R - 1) .. 0, R >= S."""
  table_RNK = table_RNK[max(len(table_RNK) - k_BSNK.shape[1], 0) :]
  return skewed_attention(q_BTNK, k_BSNK, v_BSNH, table_RNK, causal=True, **options)


def music_bidirectional_attention(q_BTNK, k_BSNK, v_BSNH, table_RNK, **options):
  """`ops.relative.music_bidirectional_attention`. table_RNK: distances -r .. r, R = 2 r + 1."""
  T, S, r = q_BTNK.shape[1], k_BSNK.shape[1], len(table_RNK) // 2
  table_RNK = table_RNK[max(r - S + 1, 0) : r + T]
  return skewed_attention(q_BTNK, k_BSNK, v_BSNH, table_RNK, **options)


def transformer_xl_attention(q_BTNK, k_BSNK, v_BSNH, table_RNK, content_bias_NK, position_bias_NK, **options):
  """`ops.relative.transformer_xl_attention`, causal, S - T positions of memory in front. u and v get gradients too."""
  options |= {"content_bias_NK": content_bias_NK, "position_bias_NK": position_bias_NK}
  return music_attention(q_BTNK, k_BSNK, v_BSNH, table_RNK, **options)


def shaw_attention(q_BTNK, k_BSNK, v_BSNH, key_table_RNK, value_table_RNH=None, *, causal=False, **options):
  """`ops.relative.shaw_attention`, both tables in the tile, and causal where asked for."""
  T, S, k = q_BTNK.shape[1], k_BSNK.shape[1], len(key_table_RNK) // 2
  if len(key_table_RNK) % 2 == 0:
    raise ValueError(f"key_table_RNK has shape {key_table_RNK.shape}, wanted R = 2 k + 1 rows, an odd number")
  row_R = jnp.clip(jnp.arange(-(S - 1), T), -k, k) + k
  # In float32: the gradient of the last row adds up most of the distances.
  every = lambda x: None if x is None else jnp.take(x.astype(jnp.float32), row_R, axis=0, mode="clip")
  return relative_attention(
    q_BTNK * q_BTNK.shape[-1] ** -0.5,
    k_BSNK,
    v_BSNH,
    every(key_table_RNK),
    value_table_RNH=every(value_table_RNH),
    causal=causal,
    **options,
  )


def biased_attention(q_BTNK, k_BSNK, v_BSNH, bias, *, causal=False, **options):
  """Dot-product attention with a bias of the distance alone, such as T5's and ALiBi's, queries the last of the keys.

  bias: (t_T, s_S) -> [1, N, T, S], asked for one query that sees every distance; it gets its gradient through that.
  """
  T, S = q_BTNK.shape[1], k_BSNK.shape[1]
  bias_NR = bias(jnp.array([S - 1]), jnp.arange(T + S - 1))[0, :, 0]
  return relative_attention(
    q_BTNK * q_BTNK.shape[-1] ** -0.5, k_BSNK, v_BSNH, bias_NR=bias_NR, causal=causal, **options
  )
