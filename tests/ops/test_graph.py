"""Attention over graphs against loops over nodes and edges."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attention_zoo.ops import graph, masks, relative
from tests.ops.against import (
  as_float32,
  assert_bfloat16,
  assert_close,
  assert_matches,
  assert_same_on_eight_devices,
  normal,
  softmax,
)

B, T, S, N, K, H, R = 2, 4, 5, 3, 4, 2, 3


def arguments(batch=B, T=T, S=S, N=N, R=R, tables=1):
  return normal(0, (batch, T, N, K), (batch, S, N, K), (batch, S, N, H), (R, tables, K), (R, tables, H))


def random_types(seed, batch=B, T=T, S=S):
  """Each pair of nodes has an edge of a random type, or none: -1."""
  return np.random.default_rng(seed).integers(-1, R, (batch, T, S))


def edge_list(types):
  """The edges of a batch of type matrices, shuffled and padded to one length: senders, receivers, types."""
  batch, T, S = types.shape
  edges = np.stack([np.tile(np.arange(S), T), np.repeat(np.arange(T), S)])
  order = np.random.default_rng(1).permutation(T * S)
  lists = np.broadcast_to(edges[:, None, order], (2, batch, T * S))
  return *map(jnp.asarray, lists), jnp.asarray(types.reshape(batch, T * S)[:, order])


def oracle(q, k, v, key_table, value_table, types=None, exists=None):
  """Shaw et al., eq. 3 and 4: one receiving node, head and edge at a time."""
  out = np.zeros((*q.shape[:3], v.shape[3]))
  for b, t, n in np.ndindex(*q.shape[:3]):
    edges = [(s, r) for s, r in enumerate(types[b, t]) if 0 <= r < len(key_table)]
    edges = [(s, r) for s, r in edges if exists is None or exists[b, s]]
    if edges:
      keys = [k[b, s, n] + key_table[r, n % len(key_table[r])] for s, r in edges]
      weights = softmax(np.array(keys) @ q[b, t, n] / np.sqrt(q.shape[3]))
      out[b, t, n] = sum(
        w * (v[b, s, n] + value_table[r, n % len(value_table[r])])
        for w, (s, r) in zip(weights, edges, strict=True)
      )
  return out


def dense(q, k, v, key_table, value_table, types, **options):
  tables = {"key_table_RNK": key_table, "value_table_RNH": value_table}
  return graph.graph_attention(q, k, v, types_BTS=jnp.asarray(types), **tables, **options)


def sparse(q, k, v, key_table, value_table, types, **options):
  senders, receivers, types = edge_list(types)
  edges = {"senders_BG": senders, "receivers_BG": receivers, "types_BG": types}
  return graph.edge_attention(
    q, k, v, **edges, key_table_RNK=key_table, value_table_RNH=value_table, **options
  )


BOTH = pytest.mark.parametrize("attention", [dense, sparse], ids=["matrix", "edges"])


@BOTH
@pytest.mark.parametrize("tables", [1, N], ids=["shared", "per head"])
def test_is_shaws_equations_with_types(attention, tables):
  types = random_types(2)
  types[0, 1] = -1
  assert_matches(partial(attention, types=types), partial(oracle, types=types), *arguments(tables=tables))


@BOTH
def test_without_relations_on_values(attention):
  *arrays, value_table = arguments()
  types = random_types(2)
  out = attention(*as_float32(arrays), None, types)
  assert_close(out, oracle(*arrays, np.zeros_like(value_table), types))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-2, R), min_size=B * T * S, max_size=B * T * S))
def test_any_graph(types):
  types = np.array(types).reshape(B, T, S)
  arrays = arguments()
  wanted = oracle(*arrays, types)
  assert_close(dense(*as_float32(arrays), types), wanted)
  assert_close(sparse(*as_float32(arrays), types), wanted)


@BOTH
def test_a_node_nothing_reaches_gets_zeros_and_no_nan(attention):
  types = np.full((B, T, S), -1)
  arrays = as_float32(arguments())
  out, gradients = jax.value_and_grad(lambda a: attention(*a, types).sum())(arrays)
  assert out == 0
  assert all(not gradient.any() for gradient in gradients)


def shaw(q, k, v, key_table, value_table, max_distance):
  """Relative attention by gathering: a vector for every pair of positions."""
  positions = np.arange(q.shape[1])
  relations = np.clip(positions[None] - positions[:, None], -max_distance, max_distance) + max_distance
  logits = np.einsum("btnk,bsnk->bnts", q, k) + np.einsum("btnk,tsk->bnts", q, key_table[relations, 0])
  weights = softmax(logits / np.sqrt(q.shape[3]))
  return np.einsum("bnts,bsnh->btnh", weights, v) + np.einsum(
    "bnts,tsh->btnh", weights, value_table[relations, 0]
  )


@pytest.mark.parametrize("max_distance", [0, 2, 9])
def test_on_a_chain_it_is_relative_attention(max_distance):
  arrays = arguments(T=6, S=6, R=2 * max_distance + 1)
  types = jnp.broadcast_to(graph.chain_relations(6, max_distance), (B, 6, 6))
  assert_close(dense(*as_float32(arrays), types), shaw(*arrays, max_distance))


def test_on_a_chain_it_is_ops_relative():
  q, k, v, key_table, value_table = as_float32(arguments(T=6, S=6, R=5))
  types = jnp.broadcast_to(graph.chain_relations(6, 2), (B, 6, 6))
  wanted = relative.shaw_attention(q, k, v, key_table, value_table)
  assert_close(dense(q, k, v, key_table, value_table, types), np.asarray(wanted))


@BOTH
def test_nodes_may_be_renumbered_with_their_edges_and_not_without(attention):
  q, k, v, *tables = as_float32(arguments(S=T))
  types = random_types(3, S=T)
  order = np.array([2, 0, 3, 1])
  wanted = attention(q, k, v, *tables, types)[:, order]
  renumbered = [a[:, order] for a in (q, k, v)]
  assert_close(attention(*renumbered, *tables, types[:, order][:, :, order]), wanted, 1e-5)
  assert np.abs(attention(*renumbered, *tables, types) - wanted).max() > 0.1


def test_padding_of_nodes_and_edges_changes_nothing():
  q, k, v, *tables = as_float32(arguments(S=T))
  types = random_types(4, S=T)
  wanted = dense(q, k, v, *tables, types)
  pad = lambda a: jnp.concatenate([a, jnp.full((B, 2, *a.shape[2:]), 9.0)], axis=1)
  # The padding's rows claim edges; the mask of the nodes takes them back.
  padded_types = np.pad(types, ((0, 0), (0, 2), (0, 2)), constant_values=1)
  exists = jnp.arange(T + 2)[None].repeat(B, 0) < T
  out = dense(pad(q), pad(k), pad(v), *tables, padded_types, mask=masks.padding(exists))
  assert_close(out[:, :T], wanted, 1e-6)
  mask = exists[jnp.arange(B)[:, None], edge_list(padded_types)[0]]
  out = sparse(pad(q), pad(k), pad(v), *tables, padded_types, mask_BG=mask)
  assert_close(out[:, :T], wanted, 1e-5)


def test_edges_to_nodes_that_do_not_exist_are_padding():
  q, k, v, key_table, value_table = as_float32(arguments())
  tables = {"key_table_RNK": key_table, "value_table_RNH": value_table}
  edge = lambda senders, receivers: graph.edge_attention(
    q, k, v, senders_BG=jnp.tile(jnp.array(senders), (B, 1)), receivers_BG=jnp.tile(jnp.array(receivers), (B, 1)),
    types_BG=jnp.zeros((B, len(senders)), int), **tables
  )  # fmt: skip
  assert_close(edge([0, 1, S, 2, -1], [3, 3, 3, T, 3]), edge([0, 1], [3, 3]), 1e-6)
  assert not edge([1, 1], [T, -1]).any()


def test_an_edge_listed_twice_counts_twice():
  q, k, v, key_table, value_table = as_float32(arguments())
  listed = lambda senders: jnp.tile(jnp.array(senders), (B, 1))
  out = graph.edge_attention(
    jnp.zeros_like(q), k, v, senders_BG=listed([0, 0, 1]), receivers_BG=listed([0, 0, 0]), types_BG=listed([0, 0, 0]),
    key_table_RNK=key_table, value_table_RNH=jnp.zeros_like(value_table),
  )  # fmt: skip
  assert_close(out[:, 0], (2 * v[:, 0] + v[:, 1]) / 3, 1e-6)


def test_heads_are_independent_and_values_enter_linearly():
  q, k, v, key_table, value_table = as_float32(arguments())
  types = random_types(5)
  out, weights = dense(q, k, v, key_table, value_table, types, return_weights=True)
  assert_close(dense(*(a[:, :, 1:2] for a in (q, k, v)), key_table, value_table, types), out[:, :, 1:2], 1e-6)
  by_type = np.stack([np.sum(weights * (types == r)[:, None], -1) for r in range(R)], -1)
  wanted = np.einsum("bnts,bsnh->btnh", weights, v) + np.einsum("bntr,rh->btnh", by_type, value_table[:, 0])
  assert_close(out, wanted)
  halved = dense(q, k, v, key_table, value_table, types, dropout=lambda weights: weights / 2)
  assert_close(halved, out / 2, 1e-6)


def test_never_makes_a_vector_for_each_pair():
  q, k, v, key_table, value_table = as_float32(normal(6, *[(1, 64, 1, 64)] * 3, (R, 1, 64), (R, 1, 64)))
  types = np.zeros((1, 64, 64), int)
  compiled = jax.jit(partial(dense, types=types)).lower(q, k, v, key_table, value_table).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 4 * 64**3 / 3


@BOTH
def test_bfloat16(attention):
  types = random_types(7)
  assert_bfloat16(partial(attention, types=types), partial(oracle, types=types), *arguments(), bound=3e-2)


@BOTH
@pytest.mark.parametrize("batch, T, S", [(0, 4, 5), (2, 0, 0), (2, 3, 0), (1, 1, 1)])
def test_empty_and_one_element(attention, batch, T, S):
  arrays = arguments(batch, T, S)
  types = np.zeros((batch, T, S), int)
  assert_close(attention(*as_float32(arrays), types), oracle(*arrays, types))


@BOTH
def test_one_device_equals_eight_over_the_batch(attention):
  arrays = as_float32(arguments(8))
  types = random_types(8, 8)
  specs = [("all",)] * 3 + [(), ()]
  assert_same_on_eight_devices(partial(attention, types=types), arrays, specs, ("all",))


@BOTH
def test_one_device_equals_eight_over_the_heads(attention):
  arrays = as_float32(arguments(N=8))
  types = random_types(9)
  heads = (None, None, "all")
  assert_same_on_eight_devices(partial(attention, types=types), arrays, [heads] * 3 + [(), ()], heads)


GOOD = dict(zip(("q", "k", "v", "key_table", "value_table"), as_float32(arguments()), strict=True))


@BOTH
@pytest.mark.parametrize(
  "change, message",
  [
    ({"q": jnp.zeros((B, T, N))}, r"q_BTNK must have rank 4, got shape \(2, 4, 3\)"),
    ({"k": jnp.zeros((B, S, N + 1, K))}, r"k_BSNK has shape \(2, 5, 4, 4\), wanted"),
    ({"v": jnp.zeros((B, S + 1, N, H))}, r"v_BSNH has shape \(2, 6, 3, 2\), wanted"),
    ({"key_table": jnp.zeros((R, 1, K + 1))}, r"key_table_RNK has shape \(3, 1, 5\), wanted"),
    ({"value_table": jnp.zeros((R + 1, 1, H))}, r"value_table_RNH has shape \(4, 1, 2\), wanted"),
    ({"types": np.zeros((B, T, S))}, "must hold integers, got float"),
  ],
)
def test_bad_input(attention, change, message):
  with pytest.raises(ValueError, match=message):
    attention(**{"types": random_types(0)} | GOOD | change)


def test_bad_edges_and_masks():
  with pytest.raises(ValueError, match=r"types_BTS has shape \(2, 5, 4\), wanted BTS = \(2, 4, 5\)"):
    dense(**GOOD, types=random_types(0, T=S, S=T))
  with pytest.raises(ValueError, match="mask must be bool"):
    dense(**GOOD, types=random_types(0), mask=jnp.ones((B, 1, T, S)))
  with pytest.raises(ValueError, match=r"mask_BG has shape \(2, 7\), wanted BG = \(2, 20\)"):
    sparse(**GOOD, types=random_types(0), mask_BG=jnp.ones((B, 7), bool))
  with pytest.raises(ValueError, match="mask_BG must be bool"):
    sparse(**GOOD, types=random_types(0), mask_BG=jnp.ones((B, T * S)))
  with pytest.raises(ValueError, match="max_distance must be at least 0, got -1"):
    graph.chain_relations(4, -1)
