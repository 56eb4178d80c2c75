"""Attention that knows how far apart query and key are: Shaw, Music Transformer, Transformer-XL.

Distance is key position minus query position, so the past is negative. A table_RNK has one row a distance,
ascending; N = 1 shares it between heads. Where there are more keys than queries (a memory, or a cache), the
queries are the last.

Two ways to the same numbers. *Gather*: look a row up for every pair, an array [T, S, N, K]. *Skew* (Huang et
al. 2018, section 3.4): multiply the queries with the table first, then move row t of the product T - 1 - t
places to the left by pad, reshape and slice. That needs O(S K) for the table, beside the logits, and not
O(T S K) for the gathered rows.

The `_step` functions are one position of incremental decoding: q_B1NK at position `index` (int32, may be
traced), k_BSNK and v_BSNH the cache with that position already written; later slots are not looked at. Equal
to the parallel form. options everywhere: bias, dropout, return_weights as `dot_product.attend` takes them.

On a TPU `kernels/relative.py` decides (`runs`) whether the functions run as one kernel that has no array [.., T, S]:
where no mask, bias, dropout or weights are asked for, and in a layer, whose mask says what its segments say. Elsewhere,
and for everything else, what is written here runs.
"""

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.ops import masks
from attention_zoo.ops.adapters import by_masks, relative_kernels
from attention_zoo.ops.dot_product import attend, check_shapes, dot, weighted_mean
from attention_zoo.ops.variant import Parameter


def skew(x_BNTR, S):
  """Relative to absolute: out[t, s] = x[t, s - t + T - 1] (Huang et al. 2018, section 3.4.1).

  By pad, reshape and slice. R = T + S - 1 covers every pair. R = S covers the causal ones, s - t <= S - T;
  the others hold rubbish to be masked. Returns [B, N, T, S]. Cost: time and memory O(T R), no arithmetic.
  """
  B, N, T, R = x_BNTR.shape
  if T == 0:
    return jnp.zeros((B, N, 0, S), x_BNTR.dtype)
  if R < S:
    raise ValueError(f"x_BNTR has shape {x_BNTR.shape}, wanted R >= S = {S}")
  padded = jnp.pad(x_BNTR, ((0, 0), (0, 0), (0, 0), (1, 0)))
  return padded.reshape(B, N, T * (R + 1))[:, :, T:].reshape(B, N, T, R)[..., :S]


# Shaw: distances beyond k share the last row, on keys and on values.


def shaw_attention(q_BTNK, k_BSNK, v_BSNH, key_table_RNK, value_table_RNH=None, *, mask=None, **options):
  """Attention with relations on keys and values (Shaw et al. 2018, eq. 3 and 4), by skewing.

    logits_ts = q_t . (k_s + keys[r]) / sqrt(d_k);  out_t = sum_s w_ts (v_s + values[r])

  with r = clip(s - t, -k, k) and R = 2 k + 1 rows in a table. In the paper the tables are shared between
  heads (N = 1). Returns out_BTNH.
  Cost: time O(T S N (K + H) + T R N (K + H)), memory O(T S N + R N (K + H)).
  """
  T, S = q_BTNK.shape[1], k_BSNK.shape[1]
  if kernels := relative_kernels(q_BTNK, k_BSNK, v_BSNH, mask=mask, **options):
    return kernels.shaw_attention(q_BTNK, k_BSNK, v_BSNH, key_table_RNK, value_table_RNH)
  return _shaw(
    q_BTNK,
    k_BSNK,
    v_BSNH,
    key_table_RNK,
    value_table_RNH,
    lambda x: skew(_clip(x, S - 1, T - 1), S),
    mask=mask,
    **options,
  )


def shaw_step(q_B1NK, k_BSNK, v_BSNH, key_table_RNK, value_table_RNH=None, *, index, **options):
  """`shaw_attention`, causal, for the query at `index`. Cost: time O((S + R) N (K + H)), memory O(S N)."""
  S = k_BSNK.shape[1]
  return _shaw(
    q_B1NK,
    k_BSNK,
    v_BSNH,
    key_table_RNK,
    value_table_RNH,
    lambda x: jax.lax.dynamic_slice_in_dim(_clip(x, S - 1, S - 1), S - 1 - index, S, axis=-1),
    mask=masks.step(S, index),
    **options,
  )


def shaw_gather_attention(
  q_BTNK, k_BSNK, v_BSNH, key_table_RNK, value_table_RNH=None, *, mask=None, bias=None
):
  """`shaw_attention` as the paper's equations read, a row looked up for every pair: to compare with.

  Cost: memory O(T S N (K + H)) for the gathered tables, time the same as `shaw_attention`'s content part.
  """
  _check_shaw(q_BTNK, k_BSNK, v_BSNH, key_table_RNK, value_table_RNH, bias, mask)
  T, S, k = q_BTNK.shape[1], k_BSNK.shape[1], len(key_table_RNK) // 2
  row_TS = np.clip(np.arange(S)[None, :] - np.arange(T)[:, None] - (S - T), -k, k) + k
  q_BTNK = q_BTNK * q_BTNK.shape[-1] ** -0.5
  logits_BNTS = dot(q_BTNK, k_BSNK) + jnp.einsum("BTNK,TSNK->BNTS", q_BTNK, key_table_RNK[row_TS])
  out_BTNH, weights_BNTS = attend(logits_BNTS, v_BSNH, bias=bias, mask=mask, return_weights=True)
  if value_table_RNH is None:
    return out_BTNH
  return out_BTNH + jnp.einsum("BNTS,TSNH->BTNH", weights_BNTS, value_table_RNH[row_TS])


def _shaw(
  q_BTNK,
  k_BSNK,
  v_BSNH,
  key_table_RNK,
  value_table_RNH,
  spread,
  *,
  bias=None,
  mask=None,
  dropout=None,
  return_weights=False,
):
  """spread: BNTR -> BNTS, linear; its transpose adds up the weights that share a row of value_table_RNH."""
  _check_shaw(q_BTNK, k_BSNK, v_BSNH, key_table_RNK, value_table_RNH, bias, mask)
  q_BTNK = q_BTNK * q_BTNK.shape[-1] ** -0.5
  relative_BNTR = jnp.einsum("BTNK,RNK->BNTR", q_BTNK, key_table_RNK, preferred_element_type=jnp.float32)
  logits_BNTS = dot(q_BTNK, k_BSNK) + spread(relative_BNTR)
  out_BTNH, kept_BNTS, weights_BNTS = weighted_mean(logits_BNTS, v_BSNH, bias=bias, mask=mask, dropout=dropout)
  if value_table_RNH is not None:
    (kept_BNTR,) = jax.linear_transpose(spread, jax.ShapeDtypeStruct(relative_BNTR.shape, kept_BNTS.dtype))(
      kept_BNTS
    )
    out_BTNH += jnp.einsum("BNTR,RNH->BTNH", kept_BNTR, value_table_RNH)
  return (out_BTNH, weights_BNTS) if return_weights else out_BTNH


def _clip(x_BNTR, before, after):
  """Rows for the distances -before .. after out of those for -k .. k: repeats the outermost, or cuts."""
  k = x_BNTR.shape[-1] // 2
  edges = (max(before - k, 0), max(after - k, 0))
  start = max(k - before, 0)
  return jnp.pad(x_BNTR, ((0, 0), (0, 0), (0, 0), edges), "edge")[..., start : start + before + after + 1]


def _check_shaw(q_BTNK, k_BSNK, v_BSNH, key_table_RNK, value_table_RNH, bias, mask):
  check_shapes(q_BTNK, k_BSNK, v_BSNH, bias, mask)
  _, _, N, K = q_BTNK.shape
  _check_table("key_table_RNK", key_table_RNK, N, K)
  if len(key_table_RNK) % 2 == 0:
    raise ValueError(f"key_table_RNK has shape {key_table_RNK.shape}, wanted R = 2 k + 1 rows, an odd number")
  if value_table_RNH is not None:
    _check_table("value_table_RNH", value_table_RNH, N, v_BSNH.shape[-1])
    if len(value_table_RNH) != len(key_table_RNK):
      raise ValueError(
        f"value_table_RNH has shape {value_table_RNH.shape}, wanted R = {len(key_table_RNK)} rows"
      )


# Music Transformer and Transformer-XL: one row for every distance there is.


def skewed_attention(
  q_BTNK, k_BSNK, v_BSNH, table_RNK, *, content_bias_NK=None, position_bias_NK=None, mask=None, **options
):
  """softmax(((q + u) k^T + skew((q + v) table^T)) / sqrt(d_k)) v: what the functions below share.

  table_RNK: distances -(S - 1) .. T - 1 (R = T + S - 1), or -(S - 1) .. 0 (R = S) if mask hides the future.
  content_bias_NK, position_bias_NK: Transformer-XL's u and v. Returns out_BTNH.
  Cost: time O(T S N (K + H) + T R N K), memory O(T S N + R N K).
  """
  check_shapes(q_BTNK, k_BSNK, v_BSNH, options.get("bias"), mask)
  _check_table("table_RNK", table_RNK, *q_BTNK.shape[2:])
  content_BTNK, position_BTNK = _with_biases(q_BTNK, content_bias_NK, position_bias_NK)
  relative_BNTR = jnp.einsum("BTNK,RNK->BNTR", position_BTNK, table_RNK, preferred_element_type=jnp.float32)
  logits_BNTS = dot(content_BTNK, k_BSNK) + skew(relative_BNTR, k_BSNK.shape[1])
  return attend(logits_BNTS, v_BSNH, mask=mask, **options)


def skewed_step(
  q_B1NK,
  k_BSNK,
  v_BSNH,
  table_RNK,
  *,
  index,
  content_bias_NK=None,
  position_bias_NK=None,
  mask=None,
  **options,
):
  """The query at `index` of `music_attention` or `transformer_xl_attention`.

  table_RNK: distances -(R - 1) .. 0, R >= S. mask: further keys to hide; broadcasts to [B, N, 1, S].
  Cost: time O(S N (K + H)), memory O(S N).
  """
  check_shapes(q_B1NK, k_BSNK, v_BSNH, options.get("bias"), mask)
  S = k_BSNK.shape[1]
  table_RNK = _last_rows(table_RNK, q_B1NK, S)
  content_B1NK, position_B1NK = _with_biases(q_B1NK, content_bias_NK, position_bias_NK)
  relative_BN1R = jnp.einsum("BTNK,RNK->BNTR", position_B1NK, table_RNK, preferred_element_type=jnp.float32)
  padded = jnp.pad(relative_BN1R, ((0, 0), (0, 0), (0, 0), (0, S)))
  logits_BN1S = dot(content_B1NK, k_BSNK) + jax.lax.dynamic_slice_in_dim(padded, S - 1 - index, S, axis=-1)
  written = masks.step(S, index)
  return attend(logits_BN1S, v_BSNH, mask=written if mask is None else mask & written, **options)


def music_attention(
  q_BTNK, k_BSNK, v_BSNH, table_RNK, *, content_bias_NK=None, position_bias_NK=None, mask=None, **options
):
  """Music Transformer's softmax((Q K^T + skew(Q E^T)) / sqrt(d_k)) V, causal (Huang et al. 2018, eq. 3).

  table_RNK: E, distances -(R - 1) .. 0, R >= S; the last S rows are used. Causal; mask hides more. Returns
  out_BTNH. Cost: time O(T S N (K + H)), memory O(T S N + S N K): the paper's O(L^2 D) has become O(L D).
  """
  check_shapes(q_BTNK, k_BSNK, v_BSNH)
  T, S = q_BTNK.shape[1], k_BSNK.shape[1]
  table_RNK = _last_rows(table_RNK, q_BTNK, S)
  biases = {"content_bias_NK": content_bias_NK, "position_bias_NK": position_bias_NK}
  if kernels := relative_kernels(q_BTNK, k_BSNK, v_BSNH, mask=mask, **options):
    return kernels.music_attention(q_BTNK, k_BSNK, v_BSNH, table_RNK, **biases)
  causal = masks.causal(T, S, S - T)
  mask = causal if mask is None else mask & causal
  return skewed_attention(q_BTNK, k_BSNK, v_BSNH, table_RNK, mask=mask, **biases, **options)


def music_bidirectional_attention(q_BTNK, k_BSNK, v_BSNH, table_RNK, *, mask=None, **options):
  """`music_attention` that also looks ahead. Returns out_BTNH. Cost: the same.

  table_RNK: distances -r .. r (R = 2 r + 1) with r >= max(S, T) - 1. Unlike Shaw's, distances are not
  clipped: a table that is too short is an error.
  """
  check_shapes(q_BTNK, k_BSNK, v_BSNH)
  T, S, r = q_BTNK.shape[1], k_BSNK.shape[1], len(table_RNK) // 2
  if len(table_RNK) % 2 == 0 or r < max(S, T) - 1:
    raise ValueError(
      f"table_RNK has shape {table_RNK.shape}, wanted an odd R >= {2 * max(S, T) - 1} for {max(S, T)} positions"
    )
  if kernels := relative_kernels(q_BTNK, k_BSNK, v_BSNH, mask=mask, **options):
    return kernels.music_bidirectional_attention(q_BTNK, k_BSNK, v_BSNH, table_RNK)
  table_RNK = table_RNK[max(r - S + 1, 0) : r + T]
  return skewed_attention(q_BTNK, k_BSNK, v_BSNH, table_RNK, mask=mask, **options)


def transformer_xl_attention(
  q_BTNK, k_BSNK, v_BSNH, table_RNK, content_bias_NK, position_bias_NK, *, mask=None, **options
):
  """softmax(((q + u) k^T + (q + v) (W_kR R_{t-s})^T) / sqrt(d_k)) v, causal (Dai et al. 2019, section 3.3).

  k_BSNK, v_BSNH: S - T positions of memory (projected from hidden states behind a stop_gradient), then the
  segment. table_RNK: `sinusoids` of t - s = R - 1 .. 0 times W_kR, R >= S. content_bias_NK,
  position_bias_NK: the paper's u and v. mask hides more, such as a memory not yet filled. Returns out_BTNH.
  Cost: time O(T S N (K + H)), memory O(T S N + S N K).
  """
  return music_attention(
    q_BTNK,
    k_BSNK,
    v_BSNH,
    table_RNK,
    mask=mask,
    content_bias_NK=content_bias_NK,
    position_bias_NK=position_bias_NK,
    **options,
  )


def sinusoids(positions_R, d_model):
  """[sin | cos] of positions / 10000^(2 i / d_model), RD (Dai et al. 2019, R). Positions may be negative.

  Cost: time and memory O(R D).
  """
  if d_model % 2:
    raise ValueError(f"d_model is {d_model}, wanted an even number")
  angles_RD = positions_R[:, None] / 10000.0 ** (jnp.arange(0, d_model, 2) / d_model)[None]
  return jnp.concatenate([jnp.sin(angles_RD), jnp.cos(angles_RD)], -1)


def _with_biases(q_BTNK, content_bias_NK, position_bias_NK):
  """(q + u, q + v) / sqrt(d_k); a bias that is None is left out."""

  def plus(name, bias_NK):
    if bias_NK is None:
      return q_BTNK * q_BTNK.shape[-1] ** -0.5
    if bias_NK.shape != q_BTNK.shape[2:]:
      raise ValueError(f"{name} has shape {bias_NK.shape}, wanted {q_BTNK.shape[2:]}")
    return (q_BTNK + bias_NK[None, None]) * q_BTNK.shape[-1] ** -0.5

  return plus("content_bias_NK", content_bias_NK), plus("position_bias_NK", position_bias_NK)


def reach(table_RNK, S, *, causal):
  """The table with its outermost rows repeated, so that there is one for every distance between S positions.

  table_RNK: distances -(R - 1) .. 0 if causal, else -(R - 1) / 2 .. (R - 1) / 2. Cost: time and memory O(S N K).
  """
  missing = max(S - (len(table_RNK) if causal else len(table_RNK) // 2 + 1), 0)
  return jnp.pad(table_RNK, ((missing, 0 if causal else missing), (0, 0), (0, 0)), "edge")


def _last_rows(table_RNK, q_BTNK, S):
  _check_table("table_RNK", table_RNK, *q_BTNK.shape[2:])
  if len(table_RNK) < S:
    raise ValueError(f"table_RNK has shape {table_RNK.shape}, too short: {S} keys need R >= {S}")
  return table_RNK[len(table_RNK) - S :]


def _check_table(name, table, num_heads, depth):
  if table.ndim != 3 or table.shape[1] not in (1, num_heads) or table.shape[2] != depth:
    raise ValueError(f"{name} has shape {table.shape}, wanted ('any', {num_heads} or 1, {depth})")


# For layers


def shaw(sizes, *, max_distance=16, values=True, shared=True):
  """Shaw et al. 2018. values: relations on the values too; shared: one table for all heads, as the big model has."""
  R, N = 2 * max_distance + 1, 1 if shared else sizes.num_heads
  heads = "1" if shared else "N"
  parameters = {f"key_table_R{heads}K": Parameter((R, N, sizes.d_k), sizes.d_k**-0.5)}
  if values:
    parameters[f"value_table_R{heads}H"] = Parameter((R, N, sizes.d_v), sizes.d_v**-0.5)

  def attend(p, q_BTNK, k_BTNK, v_BTNH, **options):
    return shaw_attention(q_BTNK, k_BTNK, v_BTNH, *(p[name] for name in parameters), **options)

  def step(p, q_B1NK, k_BSNK, v_BSNH, index):
    return shaw_step(q_B1NK, k_BSNK, v_BSNH, *(p[name] for name in parameters), index=index)

  def fused(kernels, p, *qkv, **segments):
    return kernels.shaw_attention(*qkv, *(p[name] for name in parameters), causal=sizes.causal, **segments)

  return by_masks(sizes, attend, step, fused=fused, **parameters)


def music(sizes, *, max_distance=None):
  """Music Transformer; a row for each distance up to max_length, in both directions where it is not causal.

  max_distance: no row for what is further away, which shares the last one: any length can be computed.
  """
  furthest = sizes.max_length - 1 if max_distance is None else max_distance
  R = furthest + 1 if sizes.causal else 2 * furthest + 1
  function = music_attention if sizes.causal else music_bidirectional_attention

  def table(p, S):
    return p["table_RNK"] if max_distance is None else reach(p["table_RNK"], S, causal=sizes.causal)

  def attend(p, q_BTNK, k_BTNK, v_BTNH, **options):
    return function(q_BTNK, k_BTNK, v_BTNH, table(p, k_BTNK.shape[1]), **options)

  def step(p, q_B1NK, k_BSNK, v_BSNH, index):
    return skewed_step(q_B1NK, k_BSNK, v_BSNH, table(p, k_BSNK.shape[1]), index=index)

  def fused(kernels, p, *qkv, **segments):
    return getattr(kernels, function.__name__)(*qkv, table(p, qkv[1].shape[1]), **segments)

  rows = Parameter((R, sizes.num_heads, sizes.d_k), sizes.d_k**-0.5)
  length = sizes.max_length if max_distance is None else None
  return by_masks(sizes, attend, step, fused=fused, max_length=length, table_RNK=rows)


def transformer_xl(sizes):
  """Transformer-XL's attention without a memory; where it is not causal, the same with distances ahead."""
  D, N, K = sizes.d_model, sizes.num_heads, sizes.d_k

  def table(p, before, after):
    """Rows in the order of s - t, of the sinusoids of t - s, as the paper has them."""
    rows_RD = sinusoids(jnp.arange(before, -after - 1, -1), D).astype(p["position_kernel_DNK"].dtype)
    return jnp.einsum("RD,DNK->RNK", rows_RD, p["position_kernel_DNK"])

  def biases(p):
    return {name: p[name] for name in ("content_bias_NK", "position_bias_NK")}

  def every_distance(p, T):
    """Causal: `mask` hides the future, so that the distances -(T - 1) .. 0 do."""
    return table(p, T - 1, 0 if sizes.causal else T - 1)

  def attend(p, q_BTNK, k_BTNK, v_BTNH, **options):
    table_RNK = every_distance(p, q_BTNK.shape[1])
    return skewed_attention(q_BTNK, k_BTNK, v_BTNH, table_RNK, **biases(p), **options)

  def fused(kernels, p, *qkv, **segments):
    table_RNK = every_distance(p, qkv[0].shape[1])
    return kernels.skewed_attention(*qkv, table_RNK, causal=sizes.causal, **biases(p), **segments)

  def step(p, q_B1NK, k_BSNK, v_BSNH, index):
    return skewed_step(q_B1NK, k_BSNK, v_BSNH, table(p, k_BSNK.shape[1] - 1, 0), index=index, **biases(p))

  kernel, bias = Parameter((D, N, K), D**-0.5), Parameter((N, K), 0)
  parameters = {"position_kernel_DNK": kernel, "content_bias_NK": bias, "position_bias_NK": bias}
  return by_masks(sizes, attend, step, fused=fused, **parameters)


VARIANTS = (shaw, music, transformer_xl)
