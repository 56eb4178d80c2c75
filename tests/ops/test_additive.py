"""Bahdanau's and Luong's scores: how they relate, and their input checks. Oracles are in test_variants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops.additive import (
  additive_attention,
  concat_attention,
  general_attention,
  location_attention,
)
from attention_zoo.ops.dot_product import attention as general_layer
from attention_zoo.ops.dot_product import dot
from tests.ops.against import assert_close, assert_matches, normal
from tests.ops.reference import additive, attention

B, T, S, N, K, D, H, F = 2, 3, 5, 2, 4, 6, 3, 7
ARRAYS = (B, T, N, K), (B, S, N, D), (B, S, N, H)


def test_cross_attention_with_keys_of_another_depth():
  def oracle(q, k, v, w_query, w_key, w_score):
    return attention(q, k, v, additive(w_query, w_key, w_score), np.ones((B, N, T, S), bool))

  assert_matches(additive_attention, oracle, *normal(0, *ARRAYS, (N, K, F), (N, D, F), (N, F)))


def test_relations_between_the_scores():
  q, k, v, w, w_score = (jnp.float32(x) for x in normal(1, *ARRAYS, (N, K + D, F), (N, F)))
  concat = concat_attention(q, k, v, w, w_score)
  assert_close(concat, additive_attention(q, k, v, w[:, :K], w[:, K:], w_score))
  identity = jnp.broadcast_to(jnp.eye(K), (N, K, K))
  luong_dot = general_layer(dot, q, k[..., :K], v)
  assert_close(general_attention(q, k[..., :K], v, identity), luong_dot)


def test_location_looks_at_the_query_alone_and_uses_as_many_rows_as_there_are_keys():
  q, v, w = (jnp.float32(x) for x in normal(2, ARRAYS[0], ARRAYS[2], (N, S + 4, K)))
  _, weights = location_attention(q, v, w, return_weights=True)
  _, other = location_attention(q, 5 - v, w.at[:, S:].set(9.0), return_weights=True)
  assert_close(weights, other)
  assert_close(weights.sum(-1), np.ones((B, N, T)))


@pytest.mark.parametrize(
  "function, shapes, message",
  [
    (additive_attention, [*ARRAYS, (N, K, F), (N, K, F), (N, F)],
     r"w_key_NDF has shape \(2, 4, 7\), wanted NDF = \(2, 6, 7\)"),
    (additive_attention, [*ARRAYS, (K, F), (N, D, F), (N, F)], "w_query_NKF has shape"),
    (concat_attention, [*ARRAYS, (N, K, F), (N, F)], r"w_NUF has shape \(2, 4, 7\), wanted U = K \+ D = 10"),
    (general_attention, [*ARRAYS, (N, K, K)], "w_NKD has shape"),
    (location_attention, [ARRAYS[0], ARRAYS[2], (N, S - 1, K)],
     r"w_NSK has shape \(2, 4, 4\), wanted NSK = \(2, 5, 4\)"),
  ],
)  # fmt: skip
def test_bad_input(function, shapes, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(function, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
