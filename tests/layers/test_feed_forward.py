"""The feed-forward network against eq. 2, and that it looks at one position only."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.layers.feed_forward import FeedForward

B, T, D, F = 2, 5, 4, 7


def setup():
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  params = {"wi": {"kernel_DF": draw(D, F), "bias_F": draw(F)}, "wo": {"kernel_FD": draw(F, D), "bias_D": draw(D)}}
  return params, draw(B, T, D)


def run(params, x):
  return FeedForward(F).apply({"params": params}, x)


def test_equation_2():
  params, x = setup()
  wi, wo = (jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params[name]) for name in ("wi", "wo"))
  for b in range(B):
    for t in range(T):
      hidden = np.maximum(0, np.asarray(x, np.float64)[b, t] @ wi["kernel_DF"] + wi["bias_F"])
      np.testing.assert_allclose(run(params, x)[b, t], hidden @ wo["kernel_FD"] + wo["bias_D"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh"])
def test_activations(name):
  """x times the normal distribution function of x, and its approximation by tanh."""
  params, x = setup()
  wi, wo = (jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params[name]) for name in ("wi", "wo"))
  h = np.asarray(x, np.float64) @ wi["kernel_DF"] + wi["bias_F"]
  inner = np.vectorize(math.erf)(h / 2**0.5) if name == "gelu" else np.tanh((2 / np.pi) ** 0.5 * (h + 0.044715 * h**3))
  wanted = h / 2 * (1 + inner) @ wo["kernel_FD"] + wo["bias_D"]
  np.testing.assert_allclose(FeedForward(F, name).apply({"params": params}, x), wanted, rtol=1e-5, atol=1e-5)


def test_positions_are_treated_alike_and_alone():
  params, x = setup()
  order = np.array([3, 0, 4, 1, 2])
  np.testing.assert_allclose(run(params, x[:, order]), run(params, x)[:, order], rtol=1e-6, atol=1e-6)
  slopes = jax.jacrev(lambda x: run(params, x).sum((0, 2)))(x)  # [T, B, T, D]
  assert (np.asarray(slopes).any((1, 3)) == np.eye(T, dtype=bool)).all()


def test_parameters_stay_float32_and_activations_keep_their_type():
  params, x = setup()
  x = x.astype(jnp.bfloat16)
  shapes = jax.eval_shape(FeedForward(F).init, jax.random.key(0), x)["params"]
  assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes) == jax.tree.map(
    lambda leaf: (leaf.shape, leaf.dtype), params
  )
  assert run(params, x).dtype == jnp.bfloat16
