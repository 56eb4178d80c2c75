"""Causal convolutions of images against loops over pixels and taps, and what each may see as exactly zero gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops import masked_convolution as ops
from tests.ops.against import assert_bfloat16, assert_matches, assert_same_on_eight_devices, normal

B, Y, X, D, F = 2, 4, 5, 3, 6


def oracle(x, kernel, margins, stride=1, scale=1):
  """y_ij = sum_ab x_(i stride + a - top, j stride + b - left) K_ab, x with zeros between its pixels."""
  if scale > 1:
    spread = np.zeros((len(x), x.shape[1] * scale, x.shape[2] * scale, x.shape[3]))
    spread[:, ::scale, ::scale] = x
    x, margins = spread, [(first, last - scale + 1) for first, last in margins]
  (top, bottom), (left, right) = margins
  padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
  rows = (padded.shape[1] - kernel.shape[0]) // stride + 1
  columns = (padded.shape[2] - kernel.shape[1]) // stride + 1
  out = np.zeros((len(x), rows, columns, kernel.shape[3]))
  for i, j, a, b in np.ndindex(rows, columns, *kernel.shape[:2]):
    out[:, i, j] += padded[:, i * stride + a, j * stride + b] @ kernel[a, b]
  return out


@pytest.mark.parametrize(
  ("function", "kernel", "options", "margins"),
  [
    (ops.down_shifted_conv2d, (2, 3), {}, ((1, 0), (1, 1))),
    (ops.down_shifted_conv2d, (3, 5), {"stride": 2}, ((2, 0), (2, 2))),
    (ops.down_shifted_conv2d, (2, 3), {"scale": 2}, ((1, 1), (1, 2))),
    (ops.down_right_shifted_conv2d, (2, 2), {}, ((1, 0), (1, 0))),
    (ops.down_right_shifted_conv2d, (1, 3), {}, ((0, 0), (2, 0))),
    (ops.down_right_shifted_conv2d, (2, 2), {"stride": 2}, ((1, 0), (1, 0))),
    (ops.down_right_shifted_conv2d, (2, 2), {"scale": 2}, ((1, 1), (1, 1))),
  ],
)
def test_shifted_is_the_sum_over_taps(function, kernel, options, margins):
  arrays = normal(0, (B, Y, X, D), (*kernel, D, F))
  assert_matches(functools.partial(function, **options), functools.partial(oracle, margins=margins, **options), *arrays)


@pytest.mark.parametrize("kind", ops.KINDS)
@pytest.mark.parametrize(("groups", "blocks"), [(1, 1), (3, 1), (3, 2), (2, 1)])
def test_masked_is_the_sum_over_taps_that_are_not_later(kind, groups, blocks):
  def masked_oracle(x, kernel):
    kernel = kernel.copy()
    for a, b, d, f in np.ndindex(*kernel.shape):
      width = F // blocks
      source, target = d * groups // D, f % width * groups // width
      here = source < target if kind == "A" else source <= target
      if (a, b) > (1, 1) or ((a, b) == (1, 1) and not here):
        kernel[a, b, d, f] = 0
    return oracle(x, kernel, ((1, 1), (1, 1)))

  arrays = normal(1, (B, Y, X, D), (3, 3, D, F))
  assert_matches(functools.partial(ops.masked_conv2d, kind=kind, groups=groups, blocks=blocks), masked_oracle, *arrays)


def seen(function, shape=(1, Y, X, D), at=(2, 2), feature=None):
  """bool [Y, X, D]: which inputs an output at a pixel has a gradient of."""
  (x,) = normal(2, shape)
  pick = lambda x: jnp.sum(function(x)[0, at[0], at[1]] if feature is None else function(x)[0, at[0], at[1], feature])
  return np.asarray(jax.jit(jax.grad(pick))(jnp.asarray(x, jnp.float32)))[0] != 0


def kernel(*shape):
  return jnp.asarray(normal(3, shape)[0], jnp.float32)


def test_layers_of_masked_convolutions_see_the_past_and_have_a_blind_spot():
  first, second = kernel(3, 3, D, D), kernel(3, 3, D, D)

  def network(x, groups=3):
    for _ in range(2):
      x = ops.masked_conv2d(x, second, kind="B", groups=groups)
    return ops.masked_conv2d(x, first, kind="A", groups=groups)

  for feature in range(D):
    found = seen(network, feature=feature)
    assert not found[3:].any() and not found[2, 3:].any()
    assert found[2, 2].tolist() == [other < feature for other in range(D)]
    assert found[2, 1].any() and found[1, 3].any()
    assert not found[1, 4].any()  # the blind spot: two to the right and only one row up


def test_the_two_stacks_have_no_blind_spot():
  vertical, horizontal, across = kernel(2, 3, D, D), kernel(1, 2, D, D), kernel(1, 1, D, D)

  def network(x):
    up = ops.down_shifted_conv2d(ops.shift_down(x), vertical)
    left = ops.down_right_shifted_conv2d(ops.shift_right(x), horizontal) + ops.conv2d(up, across, ((0, 0), (0, 0)))
    for _ in range(3):
      up = ops.down_shifted_conv2d(up, vertical)
      left = ops.down_right_shifted_conv2d(left, horizontal) + ops.conv2d(up, across, ((0, 0), (0, 0)))
    return left

  found = seen(network).any(-1)
  wanted = np.zeros((Y, X), bool)
  wanted[:2], wanted[2, :2] = True, True
  np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("row", range(4))
def test_down_and_up_again_sees_no_later_row_nor_column(row):
  """Through half the resolution and back, as PixelCNN++ does; shifted before, a pixel does not see itself."""
  both = kernel(2, 2, D, D)

  def corner(x):
    x = ops.down_right_shifted_conv2d(ops.shift_right(x), both, stride=2)
    return ops.down_right_shifted_conv2d(x, both, scale=2)

  def vertical(x):
    x = ops.down_shifted_conv2d(ops.shift_down(x), kernel(2, 3, D, D), stride=2)
    return ops.down_shifted_conv2d(x, kernel(2, 3, D, D), scale=2)

  shape = (1, 4, 4, D)
  assert jax.eval_shape(corner, jnp.zeros(shape)).shape == jax.eval_shape(vertical, jnp.zeros(shape)).shape == shape
  found = seen(corner, shape, (row, 2)).any(-1)
  assert not found[row + 1 :].any() and not found[:, 2:].any() and found.any()
  found = seen(vertical, shape, (row, 2)).any(-1)
  assert not found[row:].any() and found.any() == (row > 1)  # rows 0 and 1 share a row of half the resolution


def test_arguments_that_do_not_fit_are_refused():
  x = jnp.zeros((1, 4, 4, D))
  with pytest.raises(ValueError, match="must be one of"):
    ops.masked_conv2d(x, jnp.zeros((3, 3, D, F)), kind="C")
  with pytest.raises(ValueError, match="3 and 4 features cannot be divided into 3 groups in 2 blocks"):
    ops.masked_conv2d(x, jnp.zeros((3, 3, D, 4)), kind="A", groups=3, blocks=2)
  with pytest.raises(ValueError, match="odd sizes, got 2 x 3"):
    ops.masked_conv2d(x, jnp.zeros((2, 3, D, F)), kind="A")
  with pytest.raises(ValueError, match="odd number of columns, got 2"):
    ops.down_shifted_conv2d(x, jnp.zeros((2, 2, D, F)))
  with pytest.raises(ValueError, match=r"kernel_YXDF has shape \(2, 2, 5, 6\), and x_BYXD has 3 features"):
    ops.down_right_shifted_conv2d(x, jnp.zeros((2, 2, 5, F)))
  with pytest.raises(ValueError, match="stride and scale must be at least 1"):
    ops.down_right_shifted_conv2d(x, jnp.zeros((2, 2, D, F)), stride=0)


def test_bfloat16_stays_bfloat16_and_eight_devices_agree():
  arrays = normal(4, (8, Y, X, D), (2, 2, D, F))
  assert_bfloat16(
    ops.down_right_shifted_conv2d, functools.partial(oracle, margins=((1, 0), (1, 0))), *arrays, bound=0.02
  )
  single = [jnp.asarray(array, jnp.float32) for array in arrays]
  assert_same_on_eight_devices(ops.down_right_shifted_conv2d, single, [("all",), ()], ("all",))
