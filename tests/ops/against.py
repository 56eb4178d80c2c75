"""Holds functions against float64 oracles, in value and in gradient, and one device against eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def normal(seed, *shapes):
  """Float64 arrays of normal draws."""
  rng = np.random.default_rng(seed)
  return [rng.standard_normal(shape) for shape in shapes]


def as_float32(arrays):
  return [jnp.asarray(array, jnp.float32) for array in arrays]


def assert_close(actual, wanted, tolerance=1e-5):
  np.testing.assert_allclose(np.asarray(actual, np.float64), wanted, rtol=tolerance, atol=tolerance)


def assert_matches(function, oracle, *arrays, tolerance=1e-5):
  """function in float32 equals oracle in float64, and so does its gradient along a random direction.

  Both map the arrays to one array. The oracle's derivative is a central difference in float64.
  """
  rng = np.random.default_rng(0)
  wanted = oracle(*arrays)
  cotangent = rng.standard_normal(wanted.shape)
  directions = [rng.standard_normal(array.shape) for array in arrays]

  @jax.jit
  def value_and_gradients(*inputs):
    out, vjp = jax.vjp(function, *inputs)
    return out, vjp(jnp.asarray(cotangent, out.dtype))

  out, gradients = value_and_gradients(*as_float32(arrays))
  assert out.shape == wanted.shape
  assert_close(out, wanted, tolerance)
  for i, (gradient, direction) in enumerate(zip(gradients, directions, strict=True)):
    ends = [
      np.sum(cotangent * oracle(*arrays[:i], arrays[i] + e * direction, *arrays[i + 1 :]))
      for e in (-1e-6, 1e-6)
    ]
    slope = (ends[1] - ends[0]) / 2e-6
    scale = 1 + np.linalg.norm(gradient) * np.linalg.norm(direction)
    assert abs(np.sum(np.asarray(gradient, np.float64) * direction) - slope) < tolerance * scale, (
      f"argument {i}"
    )


def assert_bfloat16(function, oracle, *arrays, bound):
  """In bfloat16 the result stays bfloat16, and within bound of the oracle, relative to its largest entry."""
  out = function(*(jnp.asarray(array, jnp.bfloat16) for array in arrays))
  wanted = oracle(*(np.asarray(jnp.asarray(array, jnp.bfloat16), np.float64) for array in arrays))
  assert out.dtype == jnp.bfloat16
  assert np.abs(np.asarray(out, np.float64) - wanted).max() < bound * np.abs(wanted).max()


def assert_same_on_eight_devices(function, arrays, specs, out_spec):
  """The result with the arrays sharded over eight devices ("all" in specs) is the one of one device, and is sharded."""
  if jax.device_count() < 8:
    pytest.skip("needs eight devices")
  mesh = Mesh(np.array(jax.devices()[:8]), ("all",))
  placed = [
    jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))
    for array, spec in zip(arrays, specs, strict=True)
  ]
  alone = jax.jit(function)(*arrays)
  sharded = jax.jit(function, out_shardings=NamedSharding(mesh, PartitionSpec(*out_spec)))(*placed)
  assert len(sharded.sharding.device_set) == 8
  assert_close(sharded, np.asarray(alone, np.float64), 1e-6)


def softmax(logits, axis=-1):
  exp = np.exp(logits - logits.max(axis, keepdims=True))
  return exp / exp.sum(axis, keepdims=True)
