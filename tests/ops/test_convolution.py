"""Convolutions against loops over outputs and taps, and against attention."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops import convolution
from attention_zoo.ops.convolution import conv1d, depthwise_conv1d, separable_conv1d
from attention_zoo.ops.dot_product import dot_product_attention
from tests.ops.against import (
  as_float32,
  assert_bfloat16,
  assert_close,
  assert_matches,
  assert_same_on_eight_devices,
  normal,
)

B, T, D, F = 2, 7, 3, 4


def oracle(x, kernel, bias=None, *, stride=1, dilation=1, padding="same"):
  reach = (kernel.shape[0] - 1) * dilation
  left = {"same": reach // 2, "causal": reach, "valid": 0}[padding]
  last = x.shape[1] - reach if padding == "valid" else x.shape[1]
  out = []
  for start in range(0, max(last, 0), stride):
    y = np.zeros((x.shape[0], kernel.shape[2])) if bias is None else np.tile(bias, (x.shape[0], 1))
    for w in range(kernel.shape[0]):
      t = start + w * dilation - left
      if 0 <= t < x.shape[1]:
        y = y + x[:, t] @ kernel[w]
    out.append(y)
  return np.stack(out, 1) if out else np.zeros((x.shape[0], 0, kernel.shape[2]))


CASES = [
  (3, {}),
  (1, {}),
  (4, {"padding": "same"}),
  (3, {"padding": "causal", "dilation": 2}),
  (2, {"padding": "causal", "stride": 2}),
  (3, {"padding": "valid", "stride": 3}),
  (4, {"padding": "same", "dilation": 2, "stride": 2}),
  (9, {"padding": "causal"}),
]


@pytest.mark.parametrize("width, options", CASES)
def test_dense_is_the_sum_over_taps(width, options):
  arrays = normal(0, (B, T, D), (width, D, F), (F,))
  assert_matches(partial(conv1d, **options), partial(oracle, **options), *arrays)


@pytest.mark.parametrize("width, options", [case for case in CASES if "stride" not in case[1]])
def test_separable_is_dense_with_a_kernel_of_rank_one(width, options):
  def dense(x, depthwise, pointwise, bias):
    return oracle(x, depthwise[:, :, None] * pointwise[None], bias, **options)

  arrays = normal(1, (B, T, D), (width, D), (D, F), (F,))
  assert_matches(partial(separable_conv1d, **options), dense, *arrays)


@pytest.mark.parametrize("dilation", [1, 2])
def test_causal_sees_nothing_of_the_future(dilation):
  x, dense, depthwise = as_float32(normal(2, (B, T, D), (3, D, F), (3, D)))
  for layer, kernel in ((conv1d, dense), (depthwise_conv1d, depthwise)):
    gradient = jax.grad(lambda x: layer(x, kernel, dilation=dilation, padding="causal")[:, 4].sum())(x)
    seen = gradient.any((0, 2))
    assert seen.tolist() == [t in (4 - 2 * dilation, 4 - dilation, 4) for t in range(T)]


def test_shifts_with_its_input_and_minds_the_order():
  x, kernel = as_float32(normal(3, (B, T, D), (3, D, F)))
  y = conv1d(x, kernel, padding="causal")
  assert_close(conv1d(jnp.roll(x, 2, axis=1), kernel, padding="causal")[:, 4:], y[:, 2:-2], 1e-6)
  assert np.abs(conv1d(x[:, ::-1], kernel)[:, ::-1] - conv1d(x, kernel)).max() > 0.1


def test_attention_with_one_offset_a_head_is_a_convolution():
  """Heads whose positions look at t - 1, t and t + 1 and nowhere else, with the taps as their value matrices."""
  x, kernel = normal(4, (B, T, D), (3, D, F))
  offsets = np.arange(T)[None, :] - np.arange(T)[:, None]
  mask = jnp.asarray(offsets[None] == np.arange(-1, 2)[:, None, None])[None]
  value = jnp.einsum("BSD,NDH->BSNH", *as_float32([x, kernel]))
  nothing = jnp.zeros((B, T, 3, 1))
  assert_close(dot_product_attention(nothing, nothing, value, mask=mask).sum(2), oracle(x, kernel))


def test_bfloat16():
  arrays = normal(5, (B, T, D), (3, D, F), (F,))
  assert_bfloat16(conv1d, oracle, *arrays, bound=1e-2)
  arrays = normal(6, (B, T, D), (3, D), (D, F))
  assert_bfloat16(separable_conv1d, lambda x, d, p: oracle(x, d[:, :, None] * p[None]), *arrays, bound=2e-2)


@pytest.mark.parametrize("batch, length", [(0, 4), (2, 0), (1, 1)])
@pytest.mark.parametrize("padding", convolution.PADDINGS)
def test_empty_and_one_element(batch, length, padding):
  x, dense, depthwise = normal(7, (batch, length, D), (3, D, F), (3, D))
  assert_close(conv1d(*as_float32([x, dense]), padding=padding), oracle(x, dense, padding=padding))
  out = depthwise_conv1d(*as_float32([x, depthwise]), padding=padding)
  assert out.shape == oracle(x, np.zeros((3, D, D)), padding=padding).shape


def test_one_device_equals_eight():
  arrays = as_float32(normal(8, (8, T, D), (3, D, F)))
  assert_same_on_eight_devices(conv1d, arrays, [("all",), ()], ("all",))
  arrays = as_float32(normal(9, (8, T, D), (3, D), (D, F)))
  assert_same_on_eight_devices(separable_conv1d, arrays, [("all",), (), ()], ("all",))


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda x: conv1d(x[0], jnp.zeros((3, D, F))), r"x_BTD has shape \(7, 3\), wanted BTD"),
    (
      lambda x: conv1d(x, jnp.zeros((3, D + 1, F))),
      r"kernel_WDF has shape \(3, 4, 4\), wanted WDF = \(W, 3, F\)",
    ),
    (lambda x: conv1d(x, jnp.zeros((3, D, F)), jnp.zeros(D)), r"bias_F has shape \(3,\), wanted F = \(4\)"),
    (lambda x: conv1d(x, jnp.zeros((3, D, F)), stride=0), "stride must be at least 1, got 0"),
    (lambda x: conv1d(x, jnp.zeros((3, D, F)), padding="full"), "padding must be one of .* got 'full'"),
    (lambda x: conv1d(x, jnp.zeros((0, D, F))), "kernel's width W must be at least 1"),
    (
      lambda x: depthwise_conv1d(x, jnp.zeros((3, D + 1))),
      r"kernel_WD has shape \(3, 4\), wanted WD = \(W, 3\)",
    ),
    (lambda x: separable_conv1d(x, jnp.zeros((3, D)), jnp.zeros((F, D))), r"pointwise_DF has shape \(4, 3\)"),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call(jnp.zeros((B, T, D)))
