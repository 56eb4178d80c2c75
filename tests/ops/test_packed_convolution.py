"""Convolutions of packed rows against those of each sentence alone, and step by step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops.convolution import conv1d_step, packed_conv1d
from tests.ops.against import as_float32, assert_bfloat16, assert_close, assert_matches, normal
from tests.ops.test_convolution import oracle as of_one

B, T, D, F = 2, 9, 3, 4
SEGMENTS_BT = np.array([[1, 1, 1, 1, 2, 2, 2, 3, 0], [1, 2, 2, 2, 2, 2, 2, 0, 0]])
CASES = [
  (3, {}),
  (1, {}),
  (2, {}),
  (3, {"dilation": 2}),
  (3, {"padding": "causal"}),
  (3, {"padding": "causal", "dilation": 2}),
  (3, {"padding": "causal", "dilation": 16}),
]


def oracle(x, kernel, **options):
  """`conv1d` of each segment by itself."""
  y = np.zeros((*x.shape[:2], kernel.shape[2]))
  for b, segments in enumerate(SEGMENTS_BT):
    for segment in np.unique(segments):
      here = segments == segment
      y[b, here] = of_one(x[b : b + 1, here], kernel, **options)[0]
  return y


@pytest.mark.parametrize("width, options", CASES)
def test_each_sentence_is_convolved_alone(width, options):
  function = partial(packed_conv1d, segments_BT=jnp.asarray(SEGMENTS_BT), **options)
  assert_matches(function, partial(oracle, **options), *normal(0, (B, T, D), (width, D, F)))


def test_bfloat16():
  function = partial(packed_conv1d, segments_BT=jnp.asarray(SEGMENTS_BT))
  assert_bfloat16(function, oracle, *normal(1, (B, T, D), (3, D, F)), bound=1e-2)
  x, kernel = as_float32(normal(1, (B, T, D), (3, D, F)))
  rounded = function(x, kernel, matmul_dtype=jnp.bfloat16)
  assert rounded.dtype == jnp.float32 and 1e-4 < np.abs(rounded - function(x, kernel)).max() < 0.1


@pytest.mark.parametrize("width, dilation", [(3, 1), (3, 2), (1, 4), (2, 3)])
def test_steps_equal_the_whole(width, dilation):
  x, kernel = as_float32(normal(2, (B, T, D), (width, D, F)))
  wanted = packed_conv1d(x, kernel, jnp.ones((B, T), jnp.int32), dilation=dilation, padding="causal")
  past = jnp.zeros((B, (width - 1) * dilation, D))
  step = jax.jit(partial(conv1d_step, dilation=dilation))
  for t in range(T):
    y, past = step(x[:, t], past, kernel)
    assert_close(y, wanted[:, t])


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda x: packed_conv1d(x, jnp.zeros((3, D, F)), jnp.zeros((B, T + 1))), r"segments_BT has shape \(2, 10\)"),
    (lambda x: packed_conv1d(x, jnp.zeros((3, D, F)), jnp.zeros((B, T)), padding="valid"), "got 'valid'"),
    (lambda x: packed_conv1d(x, jnp.zeros((3, D, F)), jnp.zeros((B, T)), dilation=0), "dilation must be at least 1"),
    (lambda x: conv1d_step(x[:, 0], x, jnp.zeros((3, D, F))), r"U = 9, wanted \(W - 1\) dilation = 2"),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call(jnp.zeros((B, T, D)))
