"""Attention by angle: the paper's equation, and that lengths of queries and keys play no part."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops.query_key_norm import query_key_norm, query_key_norm_attention
from attention_zoo.ops.variant import Sizes
from tests.ops.against import as_float32, assert_close, assert_matches, normal
from tests.ops.reference import attention

B, T, S, N, K, H = 2, 3, 5, 2, 4, 3
SHAPES = (B, T, N, K), (B, S, N, K), (B, S, N, H), (N,)


def test_equals_the_papers_equation():
  def oracle(q, k, v, scale):
    def cosine(n, t, s, q, k):
      return scale[n] * (q @ k) / math.sqrt(q @ q) / math.sqrt(k @ k)

    return attention(q, k, v, cosine, np.ones((B, N, T, S), bool))

  assert_matches(query_key_norm_attention, oracle, *normal(0, *SHAPES))


def test_lengths_play_no_part():
  q, k, v, scale = as_float32(normal(1, *SHAPES))
  assert_close(query_key_norm_attention(7 * q, k / 9, v, scale), query_key_norm_attention(q, k, v, scale))
  assert np.isfinite(query_key_norm_attention(0 * q, 0 * k, v, scale)).all()


def test_first_scale_and_errors():
  variant = query_key_norm(Sizes(8, N, K, H, max_length=9, causal=True), length=64)
  assert variant.parameters["scale_N"].mean == pytest.approx(math.log2(64**2 - 64))
  q, k, v, scale = as_float32(normal(1, *SHAPES))
  with pytest.raises(ValueError, match="scale_N has shape"):
    query_key_norm_attention(q, k, v, jnp.ones(N + 1))
