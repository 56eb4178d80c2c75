"""Relative attention that also knows how far apart in pitch and in time the notes of a chorale are (Huang et al. 2018).

The tokens are the notes of several voices in turn, time after time. For a query t and a key s before it

  logits_ts = q_t . (k_s + E[s - t] + E_pitch[pitch_s - pitch_t] + E_time[time_s - time_t]) / sqrt(d_k)

where a token that has no pitch (a rest, the begin of a piece) takes no part in E_pitch. No array [T, S, N, K] exists:
queries are multiplied with each table first. The product with E_time is spread over the distances s - t, added to the
one with E, and both are skewed together (`relative.skew`). The one with E_pitch is shifted by the query's own pitch,
and then picked by the keys' pitches in a product with their one-hot vectors, so that gradients are products too.

phase_BT says where in its time a token is: how many voices come before the next time begins, so that a key d positions
back is (phase + d) // voices times back. The `_step` function is one position of incremental decoding, as in
`relative.py`.

Letters beside the house's: U pitches. Cost of each function: that of `relative.skewed_attention`, and O(T S N U) time.
"""


import jax
import jax.numpy as jnp

from attention_zoo.ops import cache as cache_lib
from attention_zoo.ops import masks
from attention_zoo.ops.dot_product import attend, check_shapes, dot
from attention_zoo.ops.einsum import einsum
from attention_zoo.ops.relative import reach, skew
from attention_zoo.ops.variant import Parameter, Variant


def pitch_time_attention(
  q_BTNK, k_BSNK, v_BSNH, table_RNK, pitch_table_RNK, time_table_RNK, pitch_BS, phase_BT, *, voices, mask=None,
  **options,
):  # fmt: skip
  """Causal attention of positions to those before them; T = S.

  table_RNK, time_table_RNK: distances -(R - 1) .. 0 in positions and in times; what is further away shares the first
  row. pitch_table_RNK: distances -(U - 1) .. U - 1 for pitches 0 .. U - 1; -1 is no pitch. mask hides more. options: as
  `attend` takes them. Returns out_BTNH.
  """
  check_shapes(q_BTNK, k_BSNK, v_BSNH, options.get("bias"), mask)
  T = q_BTNK.shape[1]
  q_BTNK = q_BTNK * q_BTNK.shape[-1] ** -0.5
  by_distance_BNTR = _by_distance(q_BTNK, table_RNK, time_table_RNK, phase_BT, voices, T)
  logits_BNTS = dot(q_BTNK, k_BSNK) + skew(by_distance_BNTR, T)
  logits_BNTS += _by_pitch(q_BTNK, pitch_table_RNK, pitch_BS, pitch_BS)
  causal = masks.causal(T)
  return attend(logits_BNTS, v_BSNH, mask=causal if mask is None else mask & causal, **options)


def pitch_time_step(
  q_B1NK, k_BSNK, v_BSNH, table_RNK, pitch_table_RNK, time_table_RNK, pitch_B1, pitch_BS, phase_B1, *, index, voices
):
  """`pitch_time_attention` for the query at `index`, which has pitch_B1 and phase_B1."""
  S = k_BSNK.shape[1]
  q_B1NK = q_B1NK * q_B1NK.shape[-1] ** -0.5
  by_distance_BN1R = _by_distance(q_B1NK, table_RNK, time_table_RNK, phase_B1, voices, S)
  padded = jnp.pad(by_distance_BN1R, ((0, 0), (0, 0), (0, 0), (0, S)))
  logits_BN1S = dot(q_B1NK, k_BSNK) + jax.lax.dynamic_slice_in_dim(padded, S - 1 - index, S, axis=-1)
  logits_BN1S += _by_pitch(q_B1NK, pitch_table_RNK, pitch_B1, pitch_BS)
  return attend(logits_BN1S, v_BSNH, mask=masks.step(S, index))


def _by_distance(q_BTNK, table_RNK, time_table_RNK, phase_BT, voices, S):
  """What the tables of positions and times give each query for the distances -(S - 1) .. 0."""
  times = (S - 1) // voices + 2
  rows_RNK = reach(table_RNK, S, causal=True)[-S:]
  time_rows_RNK = reach(time_table_RNK, times, causal=True)[-times:]
  by_position_BNTR = einsum("BTNK,RNK->BNTR", q_BTNK, rows_RNK, jnp.float32)
  by_time_BNTR = jnp.repeat(einsum("BTNK,RNK->BNTR", q_BTNK, time_rows_RNK, jnp.float32), voices, axis=-1)
  # Distance d stands `d` places before the end, which a phase moves to the left.
  end = by_time_BNTR.shape[-1]
  for phase in range(voices):
    here_B1T1 = (phase_BT == phase)[:, None, :, None]
    by_position_BNTR += jnp.where(here_B1T1, by_time_BNTR[..., end - phase - S : end - phase], 0)
  return by_position_BNTR


def _by_pitch(q_BTNK, pitch_table_RNK, pitch_BT, pitch_BS):
  """What the table of pitches gives each query and key; 0 where one of them has none."""
  U = len(pitch_table_RNK) // 2 + 1
  by_pitch_BNTR = einsum("BTNK,RNK->BNTR", q_BTNK, pitch_table_RNK, jnp.float32)
  row_B1TU = (jnp.arange(U)[None, None] - pitch_BT[..., None] + U - 1)[:, None]
  by_key_BNTU = jnp.take_along_axis(by_pitch_BNTR, jnp.clip(row_B1TU, 0, 2 * U - 2), axis=-1)
  by_key_BNTU = jnp.where((pitch_BT >= 0)[:, None, :, None], by_key_BNTU, 0)
  return jnp.einsum("BNTU,BSU->BNTS", by_key_BNTU, jax.nn.one_hot(pitch_BS, U, dtype=jnp.float32))


def pitch_time(sizes, *, max_distance, pitches, voices) -> Variant:
  """For layers of a model whose marks are (pitch, phase). It is in no list: only such a model can have it."""
  N, K, times = sizes.num_heads, sizes.d_k, -(-max_distance // voices) + 1
  rows = lambda R: Parameter((R, N, K), K**-0.5)
  parameters = {
    "table_RNK": rows(max_distance + 1), "pitch_table_RNK": rows(2 * pitches - 1), "time_table_RNK": rows(times),
  }  # fmt: skip

  def attend_all(p, q_BTNK, k_BTNK, v_BTNH, *, marks, segments_BT=None, **options):
    tables = (p[name] for name in parameters)
    return pitch_time_attention(q_BTNK, k_BTNK, v_BTNH, *tables, *marks, voices=voices, **options)

  def init_cache(batch, beams, length, dtype):
    return *cache_lib.empty(sizes, batch, beams, length, dtype), jnp.zeros((batch, 1, length * beams, 1), jnp.int32)

  def steps(p, q_BJTNK, k_BJTNK, v_BJTNH, t, cache, ancestry_BJZ, marks):
    pitch_BJT, phase_BJT = marks
    cache = cache_lib.write(cache, (k_BJTNK, v_BJTNH, pitch_BJT[..., None, None]), t)
    J, T, Z = *q_BJTNK.shape[1:3], ancestry_BJZ.shape[2]
    k_BSNK, v_BSNH, pitch_BS11 = (cache_lib.own(x, ancestry_BJZ, jnp.arange(Z)) for x in cache)
    tables = [p[name] for name in parameters]

    def one(q_BNK, pitch_B, phase_B, index):
      own = pitch_B[:, None], pitch_BS11[..., 0, 0], phase_B[:, None]
      q_B1NK = q_BNK[:, None]
      return pitch_time_step(q_B1NK, k_BSNK, v_BSNH, *tables, *own, index=index, voices=voices)[:, 0]

    rows = (x.reshape(-1, *x.shape[2:]) for x in (q_BJTNK, pitch_BJT, phase_BJT))
    out_BTNH = jax.vmap(one, (1, 1, 1, 0), 1)(*rows, t + jnp.arange(T))
    return out_BTNH.reshape(-1, J, *out_BTNH.shape[1:]), cache

  return Variant(attend_all, init_cache, steps, parameters=parameters, weights=True, name="pitch_time")
