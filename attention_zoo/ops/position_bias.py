"""Relative positions as something added to the logits, or turned into queries and keys: T5, ALiBi, rotary.

`t5_bias` and `alibi_bias` go to the bias argument of `dot_product_attention`; `rotate` is applied to queries
and keys before it. All take positions rather than lengths (int32, may be traced): for a step of incremental
decoding the query positions are `index[None]`; with `rotate` the cache holds keys already rotated.
"""

import math

import jax.numpy as jnp
import numpy as np

from attention_zoo.ops.adapters import biased, positioned
from attention_zoo.ops.dot_product import dot_product_attention
from attention_zoo.ops.variant import Parameter


def t5_buckets(distance_TS, *, num_buckets=32, max_distance=128, bidirectional=True):
  """T5's bucket of each distance s - t (Raffel et al. 2020, section 2.1; the published code).

  One half of the buckets (of those of each sign, if bidirectional) hold one distance each, the other half
  ever longer ranges, growing geometrically up to max_distance; all further ones share the last. If not
  bidirectional the future falls in bucket 0. Edges are computed in exact arithmetic. Returns int32 of the
  same shape. Cost: O(T S log buckets).
  """
  one_sided = num_buckets // 2 if bidirectional else num_buckets
  exact = one_sided // 2
  if exact < 1 or max_distance <= exact:
    raise ValueError(
      f"num_buckets is {num_buckets} and max_distance {max_distance}, wanted at least {4 if bidirectional else 2} "
      f"buckets and a max_distance > {exact}"
    )
  ratio = max_distance / exact
  # The guard keeps an edge that is a whole number from being pushed over it by rounding.
  geometric = [
    math.ceil(exact * ratio ** (i / (one_sided - exact)) - 1e-6) for i in range(1, one_sided - exact)
  ]
  edges = np.array([*range(1, exact + 1), *geometric], np.int32)
  past_TS = jnp.abs(distance_TS) if bidirectional else jnp.maximum(-distance_TS, 0)
  bucket_TS = jnp.searchsorted(edges, past_TS, side="right").astype(jnp.int32)
  return bucket_TS + jnp.where(distance_TS > 0, one_sided, 0) if bidirectional else bucket_TS


def t5_bias(table_RN, query_positions_T, key_positions_S, *, max_distance=128, bidirectional=True):
  """T5's position bias: table_RN[bucket(s - t)], one row a bucket. Returns [1, N, T, S].

  T5 itself does not divide the logits by sqrt(d_k): multiply the queries by it to have T5's own.
  Cost: time and memory O(T S N).
  """
  if table_RN.ndim != 2:
    raise ValueError(f"table_RN has shape {table_RN.shape}, wanted R=num_buckets, N=heads")
  distance_TS = key_positions_S[None, :] - query_positions_T[:, None]
  bucket_TS = t5_buckets(
    distance_TS, num_buckets=len(table_RN), max_distance=max_distance, bidirectional=bidirectional
  )
  return jnp.moveaxis(table_RN[bucket_TS], -1, 0)[None]


def alibi_slopes(num_heads):
  """ALiBi's slopes 2^(-8 i / N), i = 1 .. N (Press et al. 2022). Returns a NumPy array, N.

  Where N is no power of two: those of the power below, then every second slope of the power above. Cost: O(N).
  """
  powers = 2 ** math.floor(math.log2(num_heads))
  slopes = 2.0 ** (-8 / powers * np.arange(1, powers + 1))
  more = 2.0 ** (-4 / powers * np.arange(1, 2 * powers + 1, 2))
  return np.concatenate([slopes, more])[:num_heads].astype(np.float32)


def alibi_bias(num_heads, query_positions_T, key_positions_S):
  """-slope_n |t - s|, in the paper with a causal mask (Press et al. 2022, section 3). Returns [1, N, T, S].

  Cost: time and memory O(T S N).
  """
  distance_TS = jnp.abs(key_positions_S[None, :] - query_positions_T[:, None])
  return -alibi_slopes(num_heads)[None, :, None, None] * distance_TS[None, None]


def rotate(x_BTNK, positions_BT, *, base=10000.0):
  """Rotary positions: turn each pair (x_2i, x_2i+1) by position * base^(-2 i / d_k) (Su et al. 2021, eq. 34).

  q . k of rotated queries and keys depends on positions by their distance alone. Lengths are kept; position 0
  is the identity. positions_BT: [B or 1, T]. Computed in float32, returned in x's type.
  Cost: time and memory O(T N K).
  """
  if x_BTNK.ndim != 4 or x_BTNK.shape[-1] % 2:
    raise ValueError(f"x_BTNK has shape {x_BTNK.shape}, wanted rank 4 and an even K")
  B, T, N, K = x_BTNK.shape
  if positions_BT.ndim != 2 or positions_BT.shape[0] not in (1, B) or positions_BT.shape[1] != T:
    raise ValueError(f"positions_BT has shape {positions_BT.shape}, wanted (1 or {B}, {T})")
  angles = positions_BT[:, :, None, None] * base ** (-np.arange(0, K, 2, np.float32) / K)[None, None, None]
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  even, odd = x_BTNK[..., ::2].astype(jnp.float32), x_BTNK[..., 1::2].astype(jnp.float32)
  turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], -1)
  return turned.reshape(x_BTNK.shape).astype(x_BTNK.dtype)


# For layers


def t5(sizes, *, num_buckets=32, max_distance=128):
  """T5's bias, one table for each layer; the logits are divided by sqrt(d_k), which T5 leaves to its initialisation."""
  options = {"max_distance": max_distance, "bidirectional": not sizes.causal}
  t5_buckets(np.zeros((1, 1), np.int32), num_buckets=num_buckets, **options)  # raises for options that cannot be
  table = Parameter((num_buckets, sizes.num_heads), sizes.d_model**-0.5)
  return biased(sizes, lambda p, t_T, s_S: t5_bias(p["table_RN"], t_T, s_S, **options), table_RN=table)


def alibi(sizes):
  """ALiBi, symmetric where it is not causal."""
  return biased(sizes, lambda p, t_T, s_S: alibi_bias(sizes.num_heads, t_T, s_S))


def rotary(sizes, *, base=10000.0):
  """Rotary embedding of queries and keys."""

  def function(p, q_BTNK, k_BSNK, v_BSNH, t_T, s_S, **options):
    q_BTNK, k_BSNK = rotate(q_BTNK, t_T[None], base=base), rotate(k_BSNK, s_S[None], base=base)
    return dot_product_attention(q_BTNK, k_BSNK, v_BSNH, **options)

  return positioned(sizes, function)


VARIANTS = (t5, alibi, rotary)
