"""Positional encodings against the closed form of section 3.5, and its claim about relative positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.layers.positions import Positions, sinusoidal

D = 12


def closed_form(positions, d_model=D):
  out = np.zeros((*np.shape(positions), d_model))
  for i in range(d_model):
    angle = np.asarray(positions) / 10000 ** (2 * (i // 2) / d_model)
    out[..., i] = np.cos(angle) if i % 2 else np.sin(angle)
  return out


def test_closed_form():
  positions = np.arange(64).reshape(4, 16)
  out = sinusoidal(jnp.asarray(positions), D)
  assert out.shape == (4, 16, D) and out.dtype == jnp.float32
  np.testing.assert_allclose(out, closed_form(positions), atol=1e-5)


def test_far_positions_are_as_exact_as_float32_angles():
  positions = np.array([1000, 5000, 100_000])
  error = np.abs(np.asarray(sinusoidal(jnp.asarray(positions), D)) - closed_form(positions))
  assert (error <= positions[:, None] * 2.0**-22).all()


def test_positions_may_be_any_and_need_not_be_in_order():
  scattered = jnp.array([5, 0, 3, 5])
  np.testing.assert_array_equal(sinusoidal(scattered, D), sinusoidal(jnp.arange(6), D)[scattered])


@pytest.mark.parametrize("k", [1, 7, -3])
def test_a_shift_is_one_linear_map_for_all_positions(k):
  """ "For any fixed offset k, PE(pos + k) can be represented as a linear function
  of PE(pos)": a rotation of each pair."""
  rotation = np.zeros((D, D))
  for i in range(0, D, 2):
    angle = k / 10000 ** (i / D)
    rotation[i : i + 2, i : i + 2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
  t = np.arange(10, 40)
  here, there = (np.asarray(sinusoidal(jnp.asarray(x), D)) for x in (t, t + k))
  np.testing.assert_allclose(here @ rotation.T, there, atol=2e-5)


def test_odd_widths_are_refused():
  with pytest.raises(ValueError, match="even d_model, got 7"):
    sinusoidal(jnp.arange(3), 7)


def test_learned_positions_are_rows_of_a_table():
  module, x = Positions("learned", "add", 6, D), jnp.ones((2, 3, D))
  positions = jnp.array([[0, 1, 5], [5, 3, 3]])
  params = module.init(jax.random.key(0), x, positions, 6)
  table = params["params"]["table_TD"]
  assert table.shape == (6, D)
  np.testing.assert_array_equal(module.apply(params, x, positions, 6), 1 + np.asarray(table)[positions])
  with pytest.raises(ValueError, match=r"max_length = 6, but the sequence may be 7 long"):
    module.apply(params, x, positions, 7)


def test_scalar_positions_and_none():
  x, positions = jnp.ones((1, 3, D)), jnp.array([[0, 1, 5]])
  added = Positions("scalar", "add", 6, D).apply({}, x, positions, 6)
  np.testing.assert_array_equal(added, np.broadcast_to([[[1], [2], [6]]], (1, 3, D)))
  np.testing.assert_array_equal(Positions("none", "concatenate", 6, D).apply({}, x, positions, 6), x)


@pytest.mark.parametrize(("kind", "width"), [("sinusoidal", D), ("learned", D), ("scalar", 1)])
def test_concatenated_positions_are_mapped_back(kind, width):
  module = Positions(kind, "concatenate", 6, D)
  x, positions = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, D)), jnp.float32), jnp.array([[0, 1, 5]])
  params = module.init(jax.random.key(0), x, positions, 6)
  kernel = params["params"]["joined"]["kernel_UD"]
  assert kernel.shape == (D + width, D)
  encoding = module.apply(params, positions, 6, method="encoding")
  wanted = np.concatenate([x, encoding], -1) @ np.asarray(kernel)
  np.testing.assert_allclose(module.apply(params, x, positions, 6), wanted, rtol=1e-5, atol=1e-5)
