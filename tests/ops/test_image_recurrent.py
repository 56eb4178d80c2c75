"""Row and diagonal LSTM against loops over pixels, and skewing against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops import image_recurrent as ops
from tests.ops.against import assert_matches, assert_same_on_eight_devices, normal

B, Y, X, F = 2, 3, 4, 2


def cell(gates, c):
  sigmoid = lambda x: 1 / (1 + np.exp(-x))
  i, f, g, o = np.split(gates, 4, -1)
  c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
  return sigmoid(o) * np.tanh(c), c


def row_oracle(projected, recurrent):
  taps = recurrent.reshape(-1, F, 4 * F)
  reach = len(taps) // 2
  h = np.zeros((Y + 1, X + 2 * reach, B, F))  # a row above the image, columns left and right of it
  c = np.zeros((Y + 1, X, B, F))
  for y, x in np.ndindex(Y, X):
    gates = projected[:, y, x] + sum(h[y, x + w] @ tap for w, tap in enumerate(taps))
    h[y + 1, x + reach], c[y + 1, x] = cell(gates, c[y, x])
  return h[1:, reach : reach + X].transpose(2, 0, 1, 3)


def diagonal_oracle(projected, recurrent):
  above, left = recurrent.reshape(2, F, 4 * F)
  h, c = np.zeros((2, Y + 1, X + 1, B, F))
  for y, x in np.ndindex(Y, X):
    gates = projected[:, y, x] + h[y, x + 1] @ above + h[y + 1, x] @ left
    h[y + 1, x + 1], c[y + 1, x + 1] = cell(gates, c[y + 1, x])
  return h[1:, 1:].transpose(2, 0, 1, 3)


@pytest.mark.parametrize("width", [1, 3])
def test_row_lstm_is_the_loop_over_pixels(width):
  assert_matches(ops.row_lstm, row_oracle, *normal(0, (B, Y, X, 4 * F), (width * F, 4 * F)))


def test_diagonal_lstm_is_the_loop_over_pixels():
  assert_matches(ops.diagonal_lstm, diagonal_oracle, *normal(1, (B, Y, X, 4 * F), (2 * F, 4 * F)))


def test_skewing_moves_each_row_by_one_and_back():
  (x,) = normal(2, (B, Y, X, F))
  skewed = np.asarray(ops.skew(x))
  assert skewed.shape == (B, Y, X + Y - 1, F)
  for y in range(Y):
    np.testing.assert_allclose(skewed[:, y, y : y + X], x[:, y], rtol=1e-6)
    assert not skewed[:, y, :y].any() and not skewed[:, y, y + X :].any()
  np.testing.assert_array_equal(ops.unskew(jnp.asarray(skewed), X), jnp.asarray(x, jnp.float32))


@pytest.mark.parametrize("function", [ops.row_lstm, ops.diagonal_lstm])
def test_what_a_pixel_sees(function):
  """A row LSTM sees a triangle above, a diagonal one all of the upper left."""
  taps = 3 if function is ops.row_lstm else 2
  projected, recurrent = (jnp.asarray(a, jnp.float32) for a in normal(3, (1, Y, X, 4 * F), (taps * F, 4 * F)))
  gradient = jax.jit(jax.grad(lambda x: function(x, recurrent)[0, 2, 1].sum()))(projected)
  wanted = np.zeros((Y, X), bool)
  if function is ops.row_lstm:
    wanted[0], wanted[1, :3], wanted[2, 1] = True, True, True
  else:
    wanted[:3, :2] = True
  np.testing.assert_array_equal(np.asarray(gradient)[0].any(-1), wanted)


def test_shapes_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match="wanted UA = .odd width"):
    ops.row_lstm(jnp.zeros((B, Y, X, 4 * F)), jnp.zeros((2 * F, 4 * F)))
  with pytest.raises(ValueError, match="wanted UA = .2 F, 4 F"):
    ops.diagonal_lstm(jnp.zeros((B, Y, X, 4 * F)), jnp.zeros((F, 4 * F)))


def test_eight_devices_give_the_same():
  arrays = [jnp.asarray(a, jnp.float32) for a in normal(4, (8, Y, X, 4 * F), (2 * F, 4 * F))]
  assert_same_on_eight_devices(ops.diagonal_lstm, arrays, [("all",), ()], ("all",))
