"""Dropout: rate, scale and independence of what is kept; the rates at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.layers.dropout import Dropout, dropout

SHAPE = (500, 400)
ELEMENTS = SHAPE[0] * SHAPE[1]


def kept(rate, seed=0):
  return np.asarray(dropout(jnp.ones(SHAPE), rate, jax.random.key(seed)))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.93])
def test_the_rate_is_kept_and_the_mean_unchanged(rate):
  out = kept(rate)
  exact = round(rate * 2**16) / 2**16
  deviation = np.sqrt(rate * (1 - rate) / ELEMENTS)
  assert set(np.unique(out)) == {0, np.float32(1 / (1 - exact))}
  assert abs((out == 0).mean() - rate) < 4 * deviation + 2**-17
  assert abs(out.mean() - 1) < 4 * deviation / (1 - rate)


def test_elements_are_dropped_independently():
  """Neighbours share a 32-bit draw: neither within a pair, nor across pairs, nor across rows may they be alike."""
  zero = (kept(0.3) == 0) - 0.3
  bound = 4 / np.sqrt(ELEMENTS / 2)
  for one, other in (
    (zero[:, ::2], zero[:, 1::2]),
    (zero[:, 1:-1:2], zero[:, 2::2]),
    (zero[:-1], zero[1:]),
    (zero, (kept(0.3, seed=1) == 0) - 0.3),
  ):
    assert abs((one * other).mean() / (0.3 * 0.7)) < bound
  assert np.abs((kept(0.3) == 0).mean(0) - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / SHAPE[0])


def test_the_gradient_takes_the_same_path():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
  key = jax.random.key(2)
  out, vjp = jax.vjp(lambda x: dropout(x, 0.5, key), x)
  np.testing.assert_array_equal(vjp(jnp.ones_like(out))[0], np.where(out == 0, 0, 2))


def test_values_and_type_are_kept():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 8)), jnp.bfloat16)
  out = dropout(x, 0.25, jax.random.key(0))
  assert out.dtype == jnp.bfloat16 and out.shape == x.shape
  wanted = np.where(np.asarray(out) == 0, 0, np.asarray(x, np.float32) / 0.75)
  np.testing.assert_allclose(np.asarray(out, np.float32), wanted, rtol=2**-7)


def test_nothing_that_is_dropped_leaks():
  x = jnp.full((2, 64), jnp.inf)
  out = dropout(x, 0.5, jax.random.key(0))
  assert set(np.unique(out)) == {0, np.inf}


def test_rates_at_the_edges():
  x = jnp.ones((2, 4))
  key = jax.random.key(0)
  np.testing.assert_array_equal(dropout(x, 0.0, key), x)
  np.testing.assert_array_equal(dropout(x, 2.0**-18, key), x)  # less than the resolution
  np.testing.assert_array_equal(dropout(x, 1.0, key), jnp.zeros_like(x))
  np.testing.assert_array_equal(dropout(x, 1 - 2.0**-18, key), jnp.zeros_like(x))


def test_odd_lengths_drop_what_the_even_ones_do():
  key = jax.random.key(0)
  np.testing.assert_array_equal(dropout(jnp.ones((50, 7)), 0.3, key), dropout(jnp.ones((50, 8)), 0.3, key)[:, :7])
  assert dropout(jnp.ones((2, 0)), 0.3, key).shape == (2, 0)


def test_the_module_needs_no_key_when_it_does_nothing():
  x = jnp.ones((2, 3))
  assert Dropout(0.5).apply({}, x, False) is x
  assert Dropout(0.0).apply({}, x, True) is x
  with pytest.raises(Exception, match="dropout"):
    Dropout(0.5).apply({}, jnp.ones((2, 4)), True)
