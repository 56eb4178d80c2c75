"""Attention masks: bool arrays that broadcast to BNTS, True = may attend. Combine them with `&`, `|` and `~`.

Query t stands at position t + offset among the keys: offset > 0 where keys come with a memory in front.
Cost of each: time and memory O(T S), without heads; `padding` and `step` O(S).
"""

import jax.numpy as jnp


def _distance(T, S, offset):
  """Key position minus query position, [1, 1, T, S]; S defaults to T."""
  S = T if S is None else S
  return (jnp.arange(S)[None, :] - jnp.arange(T)[:, None] - offset)[None, None]


def causal(T, S=None, offset=0):
  """Query t sees keys s <= t + offset. Returns [1, 1, T, S]; S defaults to T."""
  return _distance(T, S, offset) <= 0


def window(T, S=None, *, left, right=0, offset=0):
  """Sliding or time-restricted window: -left <= s - (t + offset) <= right. Returns [1, 1, T, S]."""
  distance = _distance(T, S, offset)
  return (distance >= -left) & (distance <= right)


def step(S, index):
  """One query at position index (may be traced) sees the keys s <= index. Returns [1, 1, 1, S]."""
  return (jnp.arange(S) <= index)[None, None, None]


def padding(valid_BS):
  """Keys that are no padding. valid_BS: bool. Returns [B, 1, 1, S]."""
  return valid_BS.astype(bool)[:, None, None, :]


def segments(query_segments_BT, key_segments_BS):
  """Packed rows: a query sees the keys of its own segment. Segment 0 is padding: it neither sees nor is seen.

  Returns [B, 1, T, S].
  """
  same_BTS = query_segments_BT[:, :, None] == key_segments_BS[:, None, :]
  return (same_BTS & (query_segments_BT > 0)[:, :, None])[:, None]


def prefix_lm(prefix_lengths_B, T):
  """Every position sees the whole prefix; behind it, causal (Liu et al. 2018; Raffel et al. 2020, fig. 4).

  Returns [B, 1, T, T].
  """
  in_prefix_BS = jnp.arange(T)[None] < prefix_lengths_B[:, None]
  return causal(T) | in_prefix_BS[:, None, None]


def block_local(T, *, block_width, left, right=0):
  """A query block sees itself, `left` positions before it and `right` behind it. Returns [1, 1, T, T].

  `& causal(T)`: Image Transformer's masked local 1D (Parmar et al. 2018, 4.1); in linear time in `local`.
  """
  s_1T = jnp.arange(T)[None, :]
  start_T1 = jnp.arange(T)[:, None] // block_width * block_width
  return ((s_1T >= start_T1 - left) & (s_1T < start_T1 + block_width + right))[None, None]


def block_view(mask, query_width, key_width):
  """A mask by blocks, for kernels that skip the empty ones and do not mask the full ones.

  mask: [.., .., T, S] with T and S multiples of the widths. Returns two bool arrays [.., .., T / query_width,
  S / key_width]: some pair of the block may attend, every pair may.
  """
  *lead, T, S = mask.shape
  if T % query_width or S % key_width:
    raise ValueError(
      f"mask has shape {mask.shape}, wanted T a multiple of {query_width} and S of {key_width}"
    )
  blocks = mask.reshape(*lead, T // query_width, query_width, S // key_width, key_width)
  return blocks.any((-3, -1)), blocks.all((-3, -1))
