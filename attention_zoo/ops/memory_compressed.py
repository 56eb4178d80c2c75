"""Memory-compressed attention: keys and values shortened by a strided convolution (Liu et al. 2018, 4.2.3).

With kernel W = 3 and stride 3, as published, there are a third of the keys. `local` blocks and this one in
turn (L-M-L-M-L) make T-DMCA. Compressed key c reads the positions c * stride .. c * stride + W - 1.
"""

import jax
import jax.numpy as jnp

from attention_zoo.ops import cache as cache_lib
from attention_zoo.ops import shapes
from attention_zoo.ops.dot_product import beams_attention, check_shapes, dot_product_attention
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
  position unless a field ends there (T-DMCA's local layers do that). That a query sees the field which ends with
  itself is so in lucidrains' implementation too, but not in Tensor2Tensor's. Arguments, result and cost as
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
  """For layers. Decoding compresses each field once, when its last position is written."""
  function = masked_memory_compressed_attention if sizes.causal else memory_compressed_attention
  N, K, H = sizes.num_heads, sizes.d_k, sizes.d_v

  def attend(p, q_BTNK, k_BTNK, v_BTNH, *, mask=None, segments_BT=None, dropout=None):
    valid_BS = None if segments_BT is None else segments_BT > 0
    kernels_biases = (p[name] for name in parameters)
    return function(q_BTNK, k_BTNK, v_BTNH, *kernels_biases, stride=stride, valid_BS=valid_BS, dropout=dropout)

  def init_cache(batch, beams, length, dtype):
    # All positions, as a step may go back into a field; and what is attended to: position 0, then the fields. A
    # step writes length / stride + 1 fields at most, and the last of them need not be complete.
    fields = length // stride + 3
    return {
      "positions": cache_lib.empty(sizes, batch, beams, length, dtype),
      "compressed": cache_lib.empty(sizes, batch, beams, fields, dtype),
    }

  def step(p, q_BJTNK, k_BJTNK, v_BJTNH, t, cache, ancestry_BJZ):
    B, J, T = k_BJTNK.shape[:3]
    positions = cache_lib.write(cache["positions"], (k_BJTNK, v_BJTNH), t)
    # The fields that end in this step, and maybe some that do not yet: nobody sees those, and they are written again.
    fields = -(-T // stride)
    first = jnp.maximum(-((width - 1 - t) // stride), 0)
    read_S = first * stride + jnp.arange((fields - 1) * stride + width)
    own = (cache_lib.own(x, ancestry_BJZ, read_S) for x in positions)
    kernels = (p["key_kernel_WNKK"], p["key_bias_NK"]), (p["value_kernel_WNHH"], p["value_bias_NH"])
    new = [compress(x, *kernel, stride=stride)[:, :fields] for x, kernel in zip(own, kernels, strict=True)]
    new = [x.reshape(B, J, *x.shape[1:]) for x in new]
    compressed = cache_lib.write(cache["compressed"], new, first + 1)
    pairs = zip(compressed, positions, strict=True)
    compressed = [jax.lax.dynamic_update_slice_in_dim(x, of_all[:, :, :J], 0, 2) for x, of_all in pairs]
    last_C = _last_read(compressed[0].shape[2] // J, width, stride)
    ancestry_BJC = ancestry_BJZ[:, :, jnp.clip(last_C, 0, ancestry_BJZ.shape[2] - 1)]
    mask = cache_lib.visible(ancestry_BJC, t, T, last_C)
    return beams_attention(q_BJTNK, *compressed, mask), {"positions": positions, "compressed": tuple(compressed)}

  parameters = {
    "key_kernel_WNKK": Parameter((width, N, K, K), (width * K) ** -0.5),
    "value_kernel_WNHH": Parameter((width, N, H, H), (width * H) ** -0.5),
    "key_bias_NK": Parameter((N, K), 0),
    "value_bias_NH": Parameter((N, H), 0),
  }
  return Variant(attend, init_cache, step, parameters=parameters, packs=False)


VARIANTS = (memory_compressed,)
