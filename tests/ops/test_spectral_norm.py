"""Spectral normalisation against singular values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops.spectral_norm import spectral_norm
from tests.ops.against import assert_close, normal


def test_many_steps_give_the_largest_singular_value():
  kernel, u = (jnp.asarray(a, jnp.float32) for a in normal(0, (7, 5), (5,)))
  found, _ = jax.jit(lambda kernel, u: spectral_norm(kernel, u, steps=200))(kernel, u)
  assert np.linalg.svd(found, compute_uv=False)[0] == pytest.approx(1, rel=1e-4)
  assert_close(found, np.asarray(kernel, np.float64) / np.linalg.svd(np.asarray(kernel, np.float64))[1][0], 1e-4)


def test_single_steps_add_up():
  kernel, u = (jnp.asarray(a, jnp.float32) for a in normal(1, (4, 6), (6,)))
  step = jax.jit(spectral_norm)
  one = u
  for _ in range(3):
    found, one = step(kernel, one)
  wanted, three = jax.jit(lambda kernel, u: spectral_norm(kernel, u, steps=3))(kernel, u)
  assert_close(one, np.asarray(three, np.float64))
  assert_close(found, np.asarray(wanted, np.float64))


def test_the_gradient_is_equation_12_of_the_paper():
  """d/dW of <G, W / sigma> = (G - <G, W / sigma> v u^T) / sigma, where u and v are found."""
  kernel, u, direction = normal(2, (5, 4), (4,), (5, 4))
  left, values, right = np.linalg.svd(kernel)
  normalised = kernel / values[0]
  wanted = (direction - (direction * normalised).sum() * np.outer(left[:, 0], right[0])) / values[0]
  gradient = jax.jit(
    jax.grad(lambda kernel, u: (jnp.asarray(direction, jnp.float32) * spectral_norm(kernel, u, steps=300)[0]).sum())
  )(jnp.asarray(kernel, jnp.float32), jnp.asarray(u, jnp.float32))
  assert_close(gradient, wanted, 1e-4)
