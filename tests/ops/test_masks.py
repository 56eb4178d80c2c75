"""Masks against their definitions, pair by pair."""

import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops import masks


def pairs(T, S, rule):
  return np.array([[rule(t, s) for s in range(S)] for t in range(T)]).reshape(1, 1, T, S).astype(bool)


@pytest.mark.parametrize("T, S", [(5, 5), (3, 7), (1, 4), (0, 3)])
def test_by_distance(T, S):
  offset = S - T
  assert (masks.causal(T, S, offset) == pairs(T, S, lambda t, s: s <= t + offset)).all()
  expected = pairs(T, S, lambda t, s: -2 <= s - t - offset <= 1)
  assert (masks.window(T, S, left=2, right=1, offset=offset) == expected).all()
  for t in range(T):
    assert (masks.step(S, jnp.int32(t + offset))[0, 0, 0] == masks.causal(T, S, offset)[0, 0, t]).all()


def test_by_content():
  valid = jnp.array([[1, 1, 0], [0, 0, 0]])
  assert (masks.padding(valid) == np.array([[[[1, 1, 0]]], [[[0, 0, 0]]]], bool)).all()
  rows = masks.segments(jnp.array([[1, 2, 2, 0]]), jnp.array([[1, 1, 2, 0, 0]]))
  assert (rows[0, 0] == np.array([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 0, 0], [0] * 5], bool)).all()
  prefix = masks.prefix_lm(jnp.array([0, 2, 9]), 4)
  for b, length in enumerate((0, 2, 9)):
    assert (prefix[b] == pairs(4, 4, lambda t, s: s <= t or s < length)[0]).all()


def test_composition_and_blocks():
  """Masks combine like bools; the block view says where a kernel need not look."""
  mask = masks.causal(8) & masks.window(8, left=3)
  assert (mask == pairs(8, 8, lambda t, s: t - 3 <= s <= t)).all()
  some, every = masks.block_view(mask, 2, 4)
  assert (some[0, 0] == np.array([[1, 0], [1, 0], [1, 1], [1, 1]], bool)).all()
  for i, j in np.ndindex(4, 2):
    block = mask[0, 0, 2 * i : 2 * i + 2, 4 * j : 4 * j + 4]
    assert some[0, 0, i, j] == block.any() and every[0, 0, i, j] == block.all()
  with pytest.raises(ValueError, match=r"mask has shape \(1, 1, 8, 8\), wanted T a multiple of 3"):
    masks.block_view(mask, 3, 4)
  local = masks.block_local(7, block_width=3, left=2, right=1)
  assert (local == pairs(7, 7, lambda t, s: t // 3 * 3 - 2 <= s < t // 3 * 3 + 4)).all()
