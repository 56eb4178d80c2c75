"""Memory-compressed attention: keys and values shortened by a strided convolution (Liu et al. 2018, 4.2.3).

With kernel W = 3 and stride 3, as published, there are a third of the keys. `local` blocks and this one in
turn (L-M-L-M-L) make T-DMCA. Compressed key c reads the positions c * stride .. c * stride + W - 1.
"""

import jax
import jax.numpy as jnp

from attention_zoo.ops import shapes
from attention_zoo.ops.dot_product import check_shapes, dot_product_attention
from attention_zoo.ops.local import with_halo
from attention_zoo.ops.variant import Parameter, Variant


def compress(x_BSND, kernel_WNDH, bias_NH=None, *, stride=3):
  """Strided convolution of each head: out_c = sum_w x_{c stride + w} kernel_w + bias.

  C = ceil(S / stride); the end is padded with zeros. N = 1 with D = d_model mixes all channels. Returns [B, C, N, H].
  Cost: time O(S W / stride N D H), memory O(S W / stride N D).
  """
  shapes.check(x_BSND=x_BSND, kernel_WNDH=kernel_WNDH, bias_NH=bias_NH)
  if stride < 1:
    raise ValueError(f"stride is {stride}, wanted at least 1")
  W = kernel_WNDH.shape[0]
  fields_BCWND = with_halo(x_BSND, stride, 0, max(W - stride, 0))[:, :, :W]
  out_BCNH = jnp.einsum("BCWND,WNDH->BCNH", fields_BCWND, kernel_WNDH)
  return out_BCNH if bias_NH is None else out_BCNH + bias_NH[None, None]


def memory_compressed_attention(
  q_BTNK,
  k_BSNK,
  v_BSNH,
  key_kernel_WNDK,
  value_kernel_WNDH,
  key_bias_NK=None,
  value_bias_NH=None,
  *,
  stride=3,
  valid_BS=None,
  chunk=256,
  dropout=None,
):
  """Every query sees every compressed key. Returns out_BTNH.

  valid_BS (bool): positions that are no padding; the others count as zeros, and a compressed key of padding
  alone is hidden. chunk: queries whose logits exist at one time; dropout draws one mask, so with it all
  queries are one chunk.
  Cost: time O(T S / stride N (K + H)), memory O(chunk S / stride N + (T + S) N (K + H)), backward too.
  """
  check_shapes(q_BTNK, k_BSNK, v_BSNH)
  keys_BCNK, values_BCNH, seen_BC = _compressed(
    k_BSNK, v_BSNH, key_kernel_WNDK, value_kernel_WNDH, key_bias_NK, value_bias_NH, stride, valid_BS
  )
  first_C = jnp.zeros(keys_BCNK.shape[1], jnp.int32)
  return _chunked(q_BTNK, keys_BCNK, values_BCNH, seen_BC, first_C, chunk, dropout)


def masked_memory_compressed_attention(
  q_BTNK,
  k_BTNK,
  v_BTNH,
  key_kernel_WNDK,
  value_kernel_WNDH,
  key_bias_NK=None,
  value_bias_NH=None,
  *,
  stride=3,
  valid_BS=None,
  chunk=256,
  dropout=None,
):
  """Causal: query t sees compressed key c only if all that c has read is no later, c * stride + W - 1 <= t.

  So that the first rows have something to see, and as in Tensor2Tensor, the key and value of position 0 stand
  before the compressed ones, uncompressed: rows 0 .. W - 2 see that alone, and a row never sees its own
  position unless a field ends there (T-DMCA's local layers do that). Arguments, result and cost as
  `memory_compressed_attention`.
  """
  check_shapes(q_BTNK, k_BTNK, v_BTNH)
  if k_BTNK.shape[1] != q_BTNK.shape[1]:
    raise ValueError(f"k_BTNK has shape {k_BTNK.shape}, wanted T = {q_BTNK.shape[1]} positions")
  keys_BCNK, values_BCNH, seen_BC = _compressed(
    k_BTNK, v_BTNH, key_kernel_WNDK, value_kernel_WNDH, key_bias_NK, value_bias_NH, stride, valid_BS
  )
  keys_BCNK = jnp.concatenate([k_BTNK[:, :1], keys_BCNK], 1)
  values_BCNH = jnp.concatenate([v_BTNH[:, :1], values_BCNH], 1)
  if seen_BC is not None:
    seen_BC = jnp.concatenate([valid_BS[:, :1], seen_BC], 1)
  last_C = _last_read(keys_BCNK.shape[1], key_kernel_WNDK.shape[0], stride)
  return _chunked(q_BTNK, keys_BCNK, values_BCNH, seen_BC, last_C, chunk, dropout)


def init_cache(k_BSNK, v_BSNH, kernel_width, stride=3):
  """An empty cache for S positions. k_BSNK, v_BSNH: arrays or ShapeDtypeStructs of what is to come.

  A dict: keys, values [B, 1 + ceil(S / stride), N, ..]: position 0, then the compressed; key_tail, value_tail
  [B, kernel_width, N, ..]: the latest positions. Cost: memory O(S / stride N (K + H)).
  """

  def zeros(x, length):
    return jnp.zeros((x.shape[0], length, *x.shape[2:]), x.dtype)

  slots = 1 - -k_BSNK.shape[1] // stride
  return {
    "keys": zeros(k_BSNK, slots),
    "values": zeros(v_BSNH, slots),
    "key_tail": zeros(k_BSNK, kernel_width),
    "value_tail": zeros(v_BSNH, kernel_width),
  }


def masked_memory_compressed_step(
  cache,
  q_B1NK,
  k_B1NK,
  v_B1NH,
  key_kernel_WNDK,
  value_kernel_WNDH,
  key_bias_NK=None,
  value_bias_NH=None,
  *,
  index,
  stride=3,
):
  """One position of `masked_memory_compressed_attention`, with its key and value. index may be traced.

  Where a field ends here it is compressed, once. Returns out_B1NH and the new cache (see `init_cache`).
  Cost: time O(S / stride N (K + H) + W N (K^2 + H^2)).
  """
  _check_kernels(k_B1NK, v_B1NH, key_kernel_WNDK, value_kernel_WNDH, key_bias_NK, value_bias_NH)
  W = key_kernel_WNDK.shape[0]
  field, inside = jnp.divmod(index - (W - 1), stride)
  ends = (inside == 0) & (field >= 0)
  new = {}
  for name, x, kernel, bias in (
    ("key", k_B1NK, key_kernel_WNDK, key_bias_NK),
    ("value", v_B1NH, value_kernel_WNDH, value_bias_NH),
  ):
    tail = jnp.concatenate([cache[f"{name}_tail"][:, 1:], x], 1)
    compressed = compress(tail, kernel, bias, stride=W)
    slots = cache[f"{name}s"]
    slots = slots.at[:, 0].set(jnp.where(index == 0, x, slots[:, :1])[:, 0])
    # Where no field ends, slot 0 is written with what it holds.
    written = jnp.where(ends, compressed, slots[:, :1])
    new[f"{name}s"] = jax.lax.dynamic_update_slice_in_dim(
      slots, written, jnp.where(ends, field + 1, 0), axis=1
    )
    new[f"{name}_tail"] = tail
  last_C = _last_read(new["keys"].shape[1], W, stride)
  mask = (last_C <= index)[None, None, None]
  return dot_product_attention(q_B1NK, new["keys"], new["values"], mask=mask), new


def _last_read(slots, kernel_width, stride):
  """The last position that slot c of the causal keys has read: position 0, then the compressed fields."""
  return (
    jnp.pad(jnp.arange(slots - 1) * stride + kernel_width - 1, (1, 0)) if slots else jnp.zeros(0, jnp.int32)
  )


def _compressed(
  k_BSNK, v_BSNH, key_kernel_WNDK, value_kernel_WNDH, key_bias_NK, value_bias_NH, stride, valid_BS
):
  """Compressed keys and values, and [B, C]: whether a field holds anything but padding (None: all do)."""
  _check_kernels(k_BSNK, v_BSNH, key_kernel_WNDK, value_kernel_WNDH, key_bias_NK, value_bias_NH)
  seen_BC = None
  if valid_BS is not None:
    if valid_BS.shape != k_BSNK.shape[:2] or valid_BS.dtype != jnp.bool_:
      raise ValueError(f"valid_BS is {valid_BS.dtype}{valid_BS.shape}, wanted bool{k_BSNK.shape[:2]}")
    k_BSNK, v_BSNH = (jnp.where(valid_BS[:, :, None, None], x, 0) for x in (k_BSNK, v_BSNH))
    W = key_kernel_WNDK.shape[0]
    seen_BC = with_halo(valid_BS, stride, 0, max(W - stride, 0))[:, :, :W].any(-1)
  keys_BCNK = compress(k_BSNK, key_kernel_WNDK, key_bias_NK, stride=stride)
  return keys_BCNK, compress(v_BSNH, value_kernel_WNDH, value_bias_NH, stride=stride), seen_BC


def _check_kernels(k_BSNK, v_BSNH, key_kernel_WNDK, value_kernel_WNDH, key_bias_NK, value_bias_NH):
  """One width for both, as it decides what is past; depths stay, as position 0 is uncompressed."""
  _, _, N, K = k_BSNK.shape
  W, H = key_kernel_WNDK.shape[0], v_BSNH.shape[-1]
  for name, x, wanted in (
    ("key_kernel_WNDK", key_kernel_WNDK, (W, N, K, K)),
    ("value_kernel_WNDH", value_kernel_WNDH, (W, N, H, H)),
    ("key_bias_NK", key_bias_NK, (N, K)),
    ("value_bias_NH", value_bias_NH, (N, H)),
  ):
    if x is not None and x.shape != wanted:
      raise ValueError(f"{name} has shape {x.shape}, wanted {wanted}")


def _chunked(q_BTNK, keys_BCNK, values_BCNH, seen_BC, last_C, chunk, dropout):
  """Attention where query t sees key c if last_C[c] <= t, in chunks of queries, recomputed backward."""
  B, T, N, K = q_BTNK.shape

  def rows(q_BTNK, start):
    mask = (last_C[None, :] <= start + jnp.arange(q_BTNK.shape[1])[:, None])[None, None]
    if seen_BC is not None:
      mask = mask & seen_BC[:, None, None]
    return dot_product_attention(q_BTNK, keys_BCNK, values_BCNH, mask=mask, dropout=dropout)

  if T <= chunk or dropout is not None:
    return rows(q_BTNK, 0)
  chunks = jnp.moveaxis(with_halo(q_BTNK, chunk, 0, 0), 1, 0)
  starts = jnp.arange(len(chunks)) * chunk
  out = jax.lax.map(lambda args: jax.checkpoint(rows)(*args), (chunks, starts))
  return jnp.moveaxis(out, 0, 1).reshape(B, len(chunks) * chunk, N, -1)[:, :T]


def memory_compressed(sizes, *, width=3, stride=3):
  """For layers. Decoding compresses the cache anew at every step; `masked_memory_compressed_step` keeps it compressed."""
  function = masked_memory_compressed_attention if sizes.causal else memory_compressed_attention

  def attend(p, q_BTNK, k_BTNK, v_BTNH, *, mask=None, segments_BT=None, dropout=None):
    valid_BS = None if segments_BT is None else segments_BT > 0
    return function(q_BTNK, k_BTNK, v_BTNH, *p.values(), stride=stride, valid_BS=valid_BS, dropout=dropout)

  def step(p, q_B1NK, k_BSNK, v_BSNH, index):
    keys_BCNK, values_BCNH, _ = _compressed(k_BSNK, v_BSNH, *p.values(), stride, None)
    keys_BCNK = jnp.concatenate([k_BSNK[:, :1], keys_BCNK], 1)
    values_BCNH = jnp.concatenate([v_BSNH[:, :1], values_BCNH], 1)
    mask = (_last_read(keys_BCNK.shape[1], width, stride) <= index)[None, None, None]
    return dot_product_attention(q_B1NK, keys_BCNK, values_BCNH, mask=mask)

  N, K, H = sizes.num_heads, sizes.d_k, sizes.d_v
  parameters = {
    "key_kernel": Parameter((width, N, K, K), (width * K) ** -0.5),
    "value_kernel": Parameter((width, N, H, H), (width * H) ** -0.5),
    "key_bias": Parameter((N, K), 0),
    "value_bias": Parameter((N, H), 0),
  }
  return Variant(attend, step, parameters, packs=False)


VARIANTS = (memory_compressed,)
