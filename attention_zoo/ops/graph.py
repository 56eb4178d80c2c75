"""Attention over graphs whose edges have types (Shaw et al. 2018, section 3.1; Battaglia et al. 2018).

A type plays the part that the relative distance has in a sentence: it owns one vector for the keys and one
for the values, of each head or shared by all (then N = 1 in the table). Letters: T receiving nodes, S sending
nodes, R edge types, G edges. Graphs of a batch are padded to one size; nodes that do not exist are masked.

`graph_attention` takes the matrix of types and suits dense graphs; `edge_attention` takes a list of edges
and suits sparse ones. They compute the same.
"""

import jax
import jax.numpy as jnp

from attention_zoo.ops import shapes
from attention_zoo.ops.dot_product import check_shapes, scaled_dot, weighted_mean


def chain_relations(T, max_distance):
  """Edge types that make a graph of a sentence: clip(s - t, -max_distance, max_distance) + max_distance.

  Returns int32 [T, T]. With these, `graph_attention` is Shaw's relative attention. Cost: O(T^2).
  """
  if max_distance < 0:
    raise ValueError(f"max_distance must be at least 0, got {max_distance}")
  offsets_TS = jnp.arange(T, dtype=jnp.int32)[None, :] - jnp.arange(T, dtype=jnp.int32)[:, None]
  return jnp.clip(offsets_TS, -max_distance, max_distance) + max_distance


def graph_attention(
  q_BTNK,
  k_BSNK,
  v_BSNH,
  *,
  types_BTS,
  key_table_RNK,
  value_table_RNH=None,
  mask=None,
  dropout=None,
  return_weights=False,
):
  """Attention along the edges of a graph (Shaw et al. 2018, eq. 3 and 4, with types for distances).

    e_ts = q_t (k_s + a_r)^T / sqrt(d_k);  z_t = sum_s softmax_s(e_ts) (v_s + b_r);  r = type of edge s -> t

  types_BTS: int, the type of the edge from node s to node t; anything outside 0 .. R - 1 means no edge.
  key_table_RNK, value_table_RNH: a and b; without the second, b = 0. mask (bool, True = may attend;
  `masks.padding` for nodes that do not exist) broadcasts to BNTS. dropout is a function of the weights.
  A node that nothing reaches gets zeros. Returns out_BTNH, or (out_BTNH, weights_BNTS) with return_weights.
  Raises ValueError for an argument whose shape or dtype does not fit.

  Cost: time O(T S N (K + H + R)), memory O(T S (N + R)); a vector for each edge would take O(T S K).
  """
  check_shapes(q_BTNK, k_BSNK, v_BSNH, mask=mask)
  shapes.check(q_BTNK=q_BTNK, v_BSNH=v_BSNH, types_BTS=types_BTS)
  _check_tables(q_BTNK, v_BSNH, key_table_RNK, value_table_RNH)
  _check_integers(types_BTS=types_BTS)
  R, _, K = key_table_RNK.shape
  # Products with the one-hot types, rather than gathers: the gradients are products too, and not scatters.
  one_hot_BTSR = jax.nn.one_hot(types_BTS, R, dtype=q_BTNK.dtype)
  by_type_BTNR = jnp.einsum(
    "BTNK,RNK->BTNR", q_BTNK * K**-0.5, key_table_RNK, preferred_element_type=jnp.float32
  )
  logits_BNTS = jnp.einsum("BTNR,BTSR->BNTS", by_type_BTNR, one_hot_BTSR.astype(jnp.float32))
  logits_BNTS += scaled_dot(q_BTNK, k_BSNK)
  edges = ((types_BTS >= 0) & (types_BTS < R))[:, None]
  mask = edges if mask is None else edges & mask
  out_BTNH, kept_BNTS, weights_BNTS = weighted_mean(logits_BNTS, v_BSNH, mask=mask, dropout=dropout)
  if value_table_RNH is not None:
    by_type_BTNR = jnp.einsum("BNTS,BTSR->BTNR", kept_BNTS, one_hot_BTSR)
    out_BTNH += jnp.einsum("BTNR,RNH->BTNH", by_type_BTNR, value_table_RNH)
  return (out_BTNH, weights_BNTS) if return_weights else out_BTNH


def edge_attention(
  q_BTNK,
  k_BSNK,
  v_BSNH,
  *,
  senders_BG,
  receivers_BG,
  types_BG,
  key_table_RNK,
  value_table_RNH=None,
  mask_BG=None,
):
  """`graph_attention` over a list of edges.

  senders_BG, receivers_BG, types_BG: int, edge g goes from node senders[g] to node receivers[g]. An edge with
  a node or type that does not exist, or where mask_BG (bool, True = a real edge) is False, is padding. An
  edge listed twice counts twice. Returns out_BTNH.
  Raises ValueError for an argument whose shape or dtype does not fit.

  Cost: time and memory O(G N (K + H)), whatever T and S: linear in the nodes where the degree is bounded.
  """
  check_shapes(q_BTNK, k_BSNK, v_BSNH)
  _check_tables(q_BTNK, v_BSNH, key_table_RNK, value_table_RNH)
  shapes.check(
    q_BTNK=q_BTNK, types_BG=types_BG, senders_BG=senders_BG, receivers_BG=receivers_BG, mask_BG=mask_BG
  )
  shapes.check_mask(mask_BG=mask_BG)
  _check_integers(senders_BG=senders_BG, receivers_BG=receivers_BG, types_BG=types_BG)
  T, S, R = q_BTNK.shape[1], k_BSNK.shape[1], key_table_RNK.shape[0]
  exists_BG = jnp.ones(types_BG.shape, bool) if mask_BG is None else mask_BG
  for ids_BG, size in ((types_BG, R), (senders_BG, S), (receivers_BG, T)):
    exists_BG &= (ids_BG >= 0) & (ids_BG < size)

  def gather(rows, ids):
    return jnp.take(rows, ids, axis=0, mode="clip")

  def one_graph(q_TNK, k_SNK, v_SNH, senders_G, receivers_G, types_G, exists_G):
    # Edges of padding go to a node T of their own, which is cut off at the end.
    receivers_G = jnp.where(exists_G, receivers_G, T)
    q_GNK = gather(q_TNK, receivers_G).astype(jnp.float32) * q_TNK.shape[-1] ** -0.5
    k_GNK = gather(k_SNK, senders_G) + gather(key_table_RNK, types_G)
    logits_GN = jnp.sum(q_GNK * k_GNK, axis=-1)
    largest_TN = jax.ops.segment_max(logits_GN, receivers_G, T + 1)
    unnormalised_GN = jnp.exp(logits_GN - jax.lax.stop_gradient(largest_TN)[receivers_G])
    total_TN = jax.ops.segment_sum(unnormalised_GN, receivers_G, T + 1)
    weights_GN = (unnormalised_GN / total_TN[receivers_G]).astype(v_SNH.dtype)
    v_GNH = gather(v_SNH, senders_G)
    if value_table_RNH is not None:
      v_GNH += gather(value_table_RNH, types_G)
    return jax.ops.segment_sum(weights_GN[:, :, None] * v_GNH, receivers_G, T + 1)[:T]

  return jax.vmap(one_graph)(q_BTNK, k_BSNK, v_BSNH, senders_BG, receivers_BG, types_BG, exists_BG)


def _check_tables(q_BTNK, v_BSNH, key_table_RNK, value_table_RNH):
  (N, K), R, H = q_BTNK.shape[2:], len(key_table_RNK), v_BSNH.shape[3]
  for name, table, depth in (("key_table_RNK", key_table_RNK, K), ("value_table_RNH", value_table_RNH, H)):
    if table is not None and table.shape not in ((R, 1, depth), (R, N, depth)):
      raise ValueError(f"{name} has shape {table.shape}, wanted (R, 1 or {N}, {depth}) with R = {R}")


def _check_integers(**arrays):
  for name, array in arrays.items():
    if not jnp.issubdtype(array.dtype, jnp.integer):
      raise ValueError(f"{name} must hold integers, got {array.dtype}")
