"""Attention to what is near, in blocks and windows of a sequence: time and memory linear in its length.

All cut the sequence into blocks of queries, give each the memory around it, and run dense attention on the
blocks as if they were a longer batch. Lengths that are no multiple of the block are padded inside. A query
always sees itself.

segments_BT (int, optional): packed rows, as `masks.segments`; 0 is padding, which sees and is seen by
nothing. dropout is a function of the weights.

The `_step` functions are one position of incremental decoding: q_B1NK at position `index` (int32, may be
traced), and the cache with that position already written. They read the window alone, however long the cache.
"""

import jax
import jax.numpy as jnp

from attention_zoo.ops.adapters import by_segments
from attention_zoo.ops.dot_product import (
  attend,
  check_shapes,
  dot,
  dot_product_attention,
  scaled_dot,
  weighted_mean,
)
from attention_zoo.ops.relative import skew, skewed_attention
from attention_zoo.ops.variant import Parameter


def with_halo(x, width, left, right, axis=1):
  """Cuts an axis of length S into C = ceil(S / width) blocks, each with its neighbours; zeros past the ends.

  Returns x with the axis replaced by two, [C, left + width + right]. Shifted slices rather than a gather, so
  that the gradient is sums rather than a scatter. Cost: time and memory O(S (left + width + right) / width).
  """
  C = -(-x.shape[axis] // width)
  # What lies further off than all blocks together is zeros, and not worth slices.
  far = [(0, 0)] * (x.ndim + 1)
  far[axis + 1] = tuple(max(halo - C * width, 0) for halo in (left, right))
  left, right = left - far[axis + 1][0], right - far[axis + 1][1]
  size = left + width + right
  pieces = -(-size // width)
  pads = [(0, 0)] * x.ndim
  pads[axis] = (left, max((C - 1 + pieces) * width - left - x.shape[axis], 0))
  shape = (*x.shape[:axis], C, width, *x.shape[axis + 1 :])
  padded = jnp.pad(x, pads)
  slices = [jax.lax.slice_in_dim(padded, i * width, (i + C) * width, axis=axis) for i in range(pieces)]
  joined = jnp.concatenate([piece.reshape(shape) for piece in slices], axis + 1)
  return jnp.pad(jax.lax.slice_in_dim(joined, 0, size, axis=axis + 1), far)


def _blockwise(
  q_BTNK, k_BTNK, v_BTNH, visible, width, left, right, segments_BT, dropout, attention=dot_product_attention
):
  """Attention on blocks of queries with their memory. visible(t, s): which see which (broadcasts)."""
  B, T = q_BTNK.shape[:2]
  check_shapes(q_BTNK[..., : k_BTNK.shape[-1]], k_BTNK, v_BTNH)
  if k_BTNK.shape[1] != T:
    raise ValueError(
      f"k_BTNK has shape {k_BTNK.shape}, wanted T = {T} positions as q_BTNK: this is self-attention"
    )
  if width < 1 or left < 0 or right < 0:
    raise ValueError(
      f"block_width is {width}, the memory {left} before and {right} behind, wanted >= 1, 0 and 0"
    )
  if segments_BT is not None and segments_BT.shape != (B, T):
    raise ValueError(f"segments_BT has shape {segments_BT.shape}, wanted {(B, T)}")
  width = min(width, max(T, 1))
  q_BCWNK = with_halo(q_BTNK, width, 0, 0)
  k_BCSNK, v_BCSNH = (with_halo(x, width, left, right) for x in (k_BTNK, v_BTNH))
  C, S = k_BCSNK.shape[1:3]
  start_C11 = jnp.arange(C)[:, None, None] * width
  t_CW1, s_C1S = start_C11 + jnp.arange(width)[None, :, None], start_C11 + jnp.arange(S)[None, None] - left
  mask_BCWS = (visible(t_CW1, s_C1S) & (s_C1S >= 0) & (s_C1S < T))[None]
  if segments_BT is not None:
    q_segments_BCW1 = with_halo(segments_BT, width, 0, 0)[..., None]
    k_segments_BC1S = with_halo(segments_BT, width, left, right)[:, :, None]
    mask_BCWS = mask_BCWS & (q_segments_BCW1 == k_segments_BC1S) & (q_segments_BCW1 > 0)
  mask_BCWS = jnp.broadcast_to(mask_BCWS, (B, C, width, S))
  # [B, C] becomes the batch: blocks are parallel, dropout differs between them, and fused kernels apply.
  q, k, v, mask = (x.reshape(B * C, *x.shape[2:]) for x in (q_BCWNK, k_BCSNK, v_BCSNH, mask_BCWS))
  out = attention(q, k, v, mask=mask[:, None], dropout=dropout)
  return out.reshape(B, C * width, *out.shape[2:])[:, :T]


def _window(left, right):
  return lambda t, s: (s >= t - left) & (s <= t + right)


def local_attention_1d(q_BTNK, k_BTNK, v_BTNH, *, block_width, memory_width, segments_BT=None, dropout=None):
  """A block of queries sees itself and memory_width positions on either side (Parmar et al. 2018, 4.1).

  Image Transformer's local 1D without a mask, for encoders. Returns out_BTNH.
  Cost: time O(T (W + 2 M) N (K + H)), memory O(T (W + 2 M) N) for block_width W and memory_width M.
  """

  memory_width = min(memory_width, q_BTNK.shape[1])  # there is no more to see

  def visible(t, s):
    start = t // block_width * block_width
    return (s >= start - memory_width) & (s < start + block_width + memory_width)

  sizes = block_width, memory_width, memory_width
  return _blockwise(q_BTNK, k_BTNK, v_BTNH, visible, *sizes, segments_BT, dropout)


def masked_local_attention_1d(
  q_BTNK, k_BTNK, v_BTNH, *, block_width, memory_width=None, segments_BT=None, dropout=None
):
  """A query sees the past in its own block and memory_width positions before it (Parmar et al. 2018, 4.1).

  memory_width None: one block, which is Tensor2Tensor's masked_local_attention_1d. Returns out_BTNH.
  Cost: time O(T (W + M) N (K + H)), memory O(T (W + M) N) for block_width W and memory_width M.
  """
  memory_width = min(block_width if memory_width is None else memory_width, q_BTNK.shape[1])

  def visible(t, s):
    return (s >= t // block_width * block_width - memory_width) & (s <= t)

  return _blockwise(q_BTNK, k_BTNK, v_BTNH, visible, block_width, memory_width, 0, segments_BT, dropout)


def masked_local_step_1d(q_B1NK, k_BSNK, v_BSNH, *, index, block_width, memory_width=None):
  """One position of `masked_local_attention_1d`. Cost: time O((W + M) N (K + H)), whatever S."""
  memory_width = block_width if memory_width is None else memory_width
  first = index // block_width * block_width - memory_width
  k_BSNK, v_BSNH, mask, _ = _region(k_BSNK, v_BSNH, first, index, block_width + memory_width)
  return dot_product_attention(q_B1NK, k_BSNK, v_BSNH, mask=mask)


def sliding_window_attention(
  q_BTNK, k_BTNK, v_BTNH, *, left, right=0, block_width=None, segments_BT=None, dropout=None
):
  """Query t sees keys t - left .. t + right; causal with right = 0. Returns out_BTNH.

  block_width: queries computed together, of no influence on the result; by default W = max(left + right, 64).
  Cost: time O(T (left + right + W) N (K + H)), memory O(T (left + right + W) N).
  """
  left, right = (min(side, q_BTNK.shape[1]) for side in (left, right))  # there is no more to see
  sizes = block_width or max(left + right, 64), left, right
  return _blockwise(q_BTNK, k_BTNK, v_BTNH, _window(left, right), *sizes, segments_BT, dropout)


def sliding_window_step(q_B1NK, k_BSNK, v_BSNH, *, index, left, right=0):
  """One position of `sliding_window_attention`; the cache must be written up to index + right.

  Cost: time O((left + right) N (K + H)), whatever S.
  """
  k_BSNK, v_BSNH, mask, _ = _region(k_BSNK, v_BSNH, index - left, index + right, left + 1 + right)
  return dot_product_attention(q_B1NK, k_BSNK, v_BSNH, mask=mask)


def time_restricted_attention(
  q_BTNK, q_offset_BTNR, k_BTNK, v_BTNH, *, left, right, block_width=None, segments_BT=None, dropout=None
):
  """Keys and values extended by the one-hot offset, in a window (Povey et al. 2018, section 3).

    logits_ts = q_t . k_s / sqrt(d_k) + q_offset_t[s - t + left],  -left <= s - t <= right

  The output is the mean of [v_s, one-hot(s - t + left)]: the values' mean, then the weights themselves. As in
  Kaldi the scale is for the keys alone. R = left + 1 + right; the frames on the right are the latency.
  Returns [B, T, N, H + R].
  Cost: time O(T (R + W) N (K + H)), memory O(T (R + W) N); block_width W is max(left + right, 64) by default.
  """
  _check_offsets(q_BTNK, q_offset_BTNR, left, right)

  def attention(q, k_BSNK, v_BSNH, mask, dropout):
    q_BTNK, q_offset_BTNR = jnp.split(q, [k_BSNK.shape[-1]], -1)
    T, S = q.shape[1], k_BSNK.shape[1]

    def place(x):
      # The memory begins `left` before the block: row t of the offsets belongs t places to the right.
      return skew(jnp.pad(x, ((0, 0), (0, 0), (0, 0), (T - 1, T - 1))), S)

    return _with_offsets(q_BTNK, q_offset_BTNR, k_BSNK, v_BSNH, place, mask, dropout)

  sizes = block_width or max(left + right, 64), left, right
  q = jnp.concatenate([q_BTNK, q_offset_BTNR], -1)
  return _blockwise(q, k_BTNK, v_BTNH, _window(left, right), *sizes, segments_BT, dropout, attention)


def time_restricted_step(q_B1NK, q_offset_B1NR, k_BSNK, v_BSNH, *, index, left, right):
  """One position of `time_restricted_attention`; the cache must be written up to index + right.

  Cost: time and memory O(R N (K + H)), whatever S.
  """
  _check_offsets(q_B1NK, q_offset_B1NR, left, right)
  k_BSNK, v_BSNH, mask, s_S = _region(k_BSNK, v_BSNH, index - left, index + right, left + 1 + right)

  def place(x):
    return jnp.take(x, s_S - index + left, axis=-1, mode="clip")

  return _with_offsets(q_B1NK, q_offset_B1NR, k_BSNK, v_BSNH, place, mask, None)


def music_local_attention(q_BTNK, k_BTNK, v_BTNH, table_RNK, *, block_width, segments_BT=None, dropout=None):
  """Music Transformer's causal relative local attention, own and previous block (Huang et al. 2018, 3.5).

  table_RNK: distances -(R - 1) .. 0, R >= 2 W for block_width W. Skewed in each block. Returns out_BTNH.
  Cost: time O(T W N (K + H)), memory O(T W N + W N K).
  """
  if len(table_RNK) < 2 * block_width:
    raise ValueError(
      f"table_RNK has shape {table_RNK.shape}, too short: it needs R >= {2 * block_width} = 2 block_width"
    )

  def attention(q_BTNK, k_BSNK, v_BSNH, mask, dropout):
    T, S = q_BTNK.shape[1], k_BSNK.shape[1]
    rows_RNK = jnp.pad(table_RNK[len(table_RNK) - S :], ((0, T - 1), (0, 0), (0, 0)))
    return skewed_attention(q_BTNK, k_BSNK, v_BSNH, rows_RNK, mask=mask, dropout=dropout)

  def visible(t, s):
    return (s >= (t // block_width - 1) * block_width) & (s <= t)

  return _blockwise(
    q_BTNK, k_BTNK, v_BTNH, visible, block_width, block_width, 0, segments_BT, dropout, attention
  )


def music_local_bidirectional_attention(
  q_BTNK, k_BTNK, v_BTNH, table_RNK, *, block_width, segments_BT=None, dropout=None
):
  """`music_local_attention` that looks ahead: previous, own and next block. Returns out_BTNH. Cost: the same.

  table_RNK: distances -r .. r (R = 2 r + 1) with r >= 2 W - 1 for block_width W.
  """
  R, r = len(table_RNK), len(table_RNK) // 2
  if R % 2 == 0 or R < 4 * block_width - 1:
    raise ValueError(
      f"table_RNK has shape {table_RNK.shape}, wanted an odd R >= {4 * block_width - 1} = 4 block_width - 1"
    )

  def attention(q_BTNK, k_BSNK, v_BSNH, mask, dropout):
    far = block_width + q_BTNK.shape[1] - 1
    rows_RNK = table_RNK[r - far : r + far + 1]
    return skewed_attention(q_BTNK, k_BSNK, v_BSNH, rows_RNK, mask=mask, dropout=dropout)

  def visible(t, s):
    return abs(s // block_width - t // block_width) <= 1

  sizes = block_width, block_width, block_width
  return _blockwise(q_BTNK, k_BTNK, v_BTNH, visible, *sizes, segments_BT, dropout, attention)


def music_local_step(q_B1NK, k_BSNK, v_BSNH, table_RNK, *, index, block_width):
  """One position of `music_local_attention`. Cost: time O(W N (K + H)), whatever S."""
  first = (index // block_width - 1) * block_width
  k_BSNK, v_BSNH, mask, s_S = _region(k_BSNK, v_BSNH, first, index, 2 * block_width)
  rows_SNK = jnp.take(table_RNK, s_S - index + len(table_RNK) - 1, axis=0, mode="clip")
  q_B1NK = q_B1NK * q_B1NK.shape[-1] ** -0.5
  logits_BN1S = dot(q_B1NK, k_BSNK) + jnp.einsum("BTNK,SNK->BNTS", q_B1NK, rows_SNK)
  return attend(logits_BN1S, v_BSNH, mask=mask)


def _region(k_BSNK, v_BSNH, first, last, size):
  """The slots first .. last of a cache, as a static number of slots, a mask over them and their positions."""
  size = min(size, k_BSNK.shape[1])
  start = jnp.clip(first, 0, k_BSNK.shape[1] - size)
  k_BSNK, v_BSNH = (jax.lax.dynamic_slice_in_dim(x, start, size, axis=1) for x in (k_BSNK, v_BSNH))
  s_S = start + jnp.arange(size)
  return k_BSNK, v_BSNH, ((s_S >= first) & (s_S <= last))[None, None, None], s_S


def _check_offsets(q_BTNK, q_offset_BTNR, left, right):
  wanted = (*q_BTNK.shape[:3], left + 1 + right)
  if q_offset_BTNR.shape != wanted:
    raise ValueError(f"q_offset_BTNR has shape {q_offset_BTNR.shape}, wanted {wanted}, R = left + 1 + right")


def _with_offsets(q_BTNK, q_offset_BTNR, k_BSNK, v_BSNH, place, mask, dropout):
  """place: BNTR -> BNTS, linear; its transpose reads the weights by offset."""
  offsets_BNTR = q_offset_BTNR.swapaxes(1, 2)
  logits_BNTS = scaled_dot(q_BTNK, k_BSNK) + place(offsets_BNTR)
  out_BTNH, kept_BNTS, _ = weighted_mean(logits_BNTS, v_BSNH, mask=mask, dropout=dropout)
  by_offset = jax.linear_transpose(place, jax.ShapeDtypeStruct(offsets_BNTR.shape, v_BSNH.dtype))
  return jnp.concatenate([out_BTNH, by_offset(kept_BNTS)[0].swapaxes(1, 2)], -1)


# For layers


def local(sizes, *, block_width, memory_width=None):
  """Image Transformer's local 1D, masked where it is causal; memory_width is block_width by default."""
  memory_width = block_width if memory_width is None else memory_width
  options = {"block_width": block_width, "memory_width": memory_width}
  function = masked_local_attention_1d if sizes.causal else local_attention_1d

  def attend(p, *qkv, **more):
    return function(*qkv, **options, **more)

  def step(p, q_B1NK, k_BSNK, v_BSNH, index):
    return masked_local_step_1d(q_B1NK, k_BSNK, v_BSNH, index=index, **options)

  before = block_width - 1 + memory_width
  return by_segments(sizes, attend, step, before=before, shift=block_width, packs=False)


def sliding_window(sizes, *, width):
  """Each position sees itself and `width` positions before it, and as many behind it where it is not causal."""
  right = 0 if sizes.causal else width

  def attend(p, *qkv, **more):
    return sliding_window_attention(*qkv, left=width, right=right, **more)

  def step(p, q_B1NK, k_BSNK, v_BSNH, index):
    return sliding_window_step(q_B1NK, k_BSNK, v_BSNH, index=index, left=width)

  return by_segments(sizes, attend, step, before=width)


def time_restricted(sizes, *, left, right=0):
  """Povey et al. 2018; queries and outputs are wider by left + 1 + right. right must be 0 where it is causal."""
  if sizes.causal and right:
    raise ValueError(f"time_restricted(right={right}) sees the future, which a causal layer must not: right=0")
  K, R, options = sizes.d_k, left + 1 + right, {"left": left, "right": right}

  def attend(p, q_BTNK, k_BTNK, v_BTNH, **more):
    return time_restricted_attention(q_BTNK[..., :K], q_BTNK[..., K:], k_BTNK, v_BTNH, **options, **more)

  def step(p, q_B1NK, k_BSNK, v_BSNH, index):
    return time_restricted_step(q_B1NK[..., :K], q_B1NK[..., K:], k_BSNK, v_BSNH, index=index, **options)

  return by_segments(sizes, attend, step, before=left, query_depth=K + R, output_depth=sizes.d_v + R)


def music_local(sizes, *, block_width):
  """Music Transformer's relative local attention."""
  R = 2 * block_width if sizes.causal else 4 * block_width - 1
  function = music_local_attention if sizes.causal else music_local_bidirectional_attention

  def attend(p, *qkv, **more):
    return function(*qkv, p["table_RNK"], block_width=block_width, **more)

  def step(p, q_B1NK, k_BSNK, v_BSNH, index):
    return music_local_step(q_B1NK, k_BSNK, v_BSNH, p["table_RNK"], index=index, block_width=block_width)

  parameters = {"table_RNK": Parameter((R, sizes.num_heads, sizes.d_k), sizes.d_k**-0.5)}
  window = {"before": 2 * block_width - 1, "shift": block_width}
  return by_segments(sizes, attend, step, **window, parameters=parameters, packs=False)


VARIANTS = (local, sliding_window, time_restricted, music_local)
