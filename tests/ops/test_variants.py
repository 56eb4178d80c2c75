"""What holds for every attention there is: the paper's equation, gradients, causality, steps, heads,
sharding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.ops.variants import CAUSAL, VARIANTS, B, H, K, N, example

each = pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
each_causal = pytest.mark.parametrize("variant", CAUSAL, ids=lambda v: v.name)


def everything(variant, T, batch=B, heads=N):
  """The extra that hides nothing."""
  return {
    "mask": np.ones((batch, 1, T, T), bool),
    "segments": np.ones((batch, T), np.int32),
    "valid": np.ones((batch, T), bool),
    None: np.ones((batch, T), bool),
  }[variant.extra]


_compiled = {}


def value_and_gradients(variant):
  """Jitted (parameters, arrays, extra, cotangent) -> out, (gradients of the parameters, of the arrays)."""

  def function(parameters, arrays, extra, cotangent):
    out, vjp = jax.vjp(lambda p, a: variant.apply(p, *a, extra), parameters, arrays)
    return out, vjp(cotangent.astype(out.dtype))

  return _compiled.setdefault(variant.name, jax.jit(function))


def run(variant, parameters, arrays, extra, cotangent=None):
  depth = variant.depth - K + H
  cotangent = np.zeros((*arrays[0].shape[:3], depth), np.float32) if cotangent is None else cotangent
  return value_and_gradients(variant)(parameters, arrays, extra, cotangent)


def assert_close(a, b, tolerance=1e-5):
  np.testing.assert_allclose(
    np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=tolerance, atol=tolerance
  )


@each
@settings(deadline=None, derandomize=True, max_examples=3, phases=[Phase.generate])
@given(seed=st.integers(0, 99))
def test_equals_the_papers_equation(variant, seed):
  """With random masks, segments and padding, with rows that see nothing; empty, of one element, odd, a
  multiple of 4."""
  for T in (0, 1, 7, 12):
    parameters, arrays, extra = example(variant, seed, T)
    out, _ = run(variant, parameters, arrays, extra)
    assert_close(out, variant.expected(parameters, *arrays, extra))


@each
def test_gradient_equals_the_slope_of_the_papers_equation(variant):
  """A central difference of the float64 oracle along a random direction, for parameters, queries, keys and
  values."""
  parameters, arrays, extra = example(variant, 1, 7)
  rng = np.random.default_rng(2)
  out, _ = run(variant, parameters, arrays, extra)
  cotangent = rng.standard_normal(out.shape).astype(np.float32)
  _, gradients = run(variant, parameters, arrays, extra, cotangent)
  leaves, tree = jax.tree.flatten((parameters, arrays))
  directions = [rng.standard_normal(leaf.shape) for leaf in leaves]
  for i, gradient in enumerate(jax.tree.leaves(gradients)):
    ends = []
    for e in (-1e-5, 1e-5):
      moved = [
        x.astype(np.float64) + e * d * (i == j)
        for j, (x, d) in enumerate(zip(leaves, directions, strict=True))
      ]
      parameters_, arrays_ = jax.tree.unflatten(tree, moved)
      ends.append(np.sum(cotangent * variant.expected(parameters_, *arrays_, extra)))
    slope = (ends[1] - ends[0]) / 2e-5
    assert np.isfinite(gradient).all()
    assert abs(np.sum(gradient * directions[i]) - slope) < 1e-4 * max(1, np.abs(gradient).sum()), i


@each_causal
def test_no_gradient_reaches_the_future(variant):
  T = 12
  parameters, arrays, _ = example(variant, 3, T)
  rank, extra = variant.rank(T), everything(variant, T)
  out, _ = run(variant, parameters, arrays, extra)
  reached = np.zeros((T, T), bool)
  for t in range(T):
    cotangent = np.zeros(out.shape, np.float32)
    cotangent[:, t] = 1
    _, (_, gradients) = run(variant, parameters, arrays, extra, cotangent)
    reached[t] = sum(np.abs(gradient).sum((0, 2, 3)) for gradient in gradients) > 0
  assert not (reached & (rank[None, :] > rank[:, None])).any()
  assert reached.sum() > T  # and the past is reached


@each_causal
def test_step_by_step_equals_all_at_once(variant):
  """A scan over positions; slots of the cache that are still to come hold rubbish."""
  if variant.step is None:
    pytest.skip("its cache is not one of keys and values: see test_memory_compressed")
  T = 12
  parameters, (q, k, v), _ = example(variant, 4, T)
  rank = variant.rank(T)

  @jax.jit
  def decode(parameters, q, k, v):
    def step(_, t):
      written = (jnp.asarray(rank) <= jnp.asarray(rank)[t])[None, :, None, None]
      caches = (jnp.where(written, x, 1e3) for x in (k, v))
      return None, variant.step(parameters, jax.lax.dynamic_slice_in_dim(q, t, 1, axis=1), *caches, t)

    return jnp.moveaxis(jax.lax.scan(step, None, jnp.arange(T))[1][:, :, 0], 0, 1)

  out, _ = run(variant, parameters, (q, k, v), everything(variant, T))
  assert_close(decode(parameters, q, k, v), out)


@each
def test_permutation(variant):
  """Without positions and mask, permuted inputs give permuted outputs; with either of them they do not."""
  T = 12
  parameters, arrays, _ = example(variant, 5, T)
  order = np.random.default_rng(6).permutation(T)
  extra = everything(variant, T)
  out, _ = run(variant, parameters, arrays, extra)
  permuted, _ = run(variant, parameters, tuple(x[:, order] for x in arrays), extra)
  difference = np.abs(permuted - out[:, order]).max()
  assert difference < 1e-6 if variant.permutes else difference > 1e-2


@each
def test_linear_in_the_values(variant):
  """With queries and keys as they are, out(a v + b w) - out(0) = a (out(v) - out(0)) + b (out(w) -
  out(0))."""
  parameters, (q, k, v), extra = example(variant, 7, 12)
  w = np.random.default_rng(8).standard_normal(v.shape).astype(np.float32)
  zero, of_v, of_w, of_sum = (
    run(variant, parameters, (q, k, x), extra)[0] for x in (0 * v, v, w, 2 * v - 3 * w)
  )
  assert_close(of_sum - zero, 2 * (of_v - zero) - 3 * (of_w - zero))


@each
def test_heads_are_independent(variant):
  if variant.name == "alibi":
    pytest.skip("its slopes depend on the number of heads")
  parameters, arrays, extra = example(variant, 9, 7)
  out, _ = run(variant, parameters, arrays, extra)
  single = jax.jit(variant.apply)
  for n in range(N):
    axes = {name: shape.index("N") for name, shape in variant.parameters.items() if "N" in shape}
    one = {name: p.take([n], axes[name]) if name in axes else p for name, p in parameters.items()}
    alone = single(one, *(x[:, :, [n]] for x in arrays), extra)
    assert_close(out[:, :, [n]], alone, 1e-6)


@each
def test_bfloat16(variant):
  """Stays bfloat16, and within 3 % of float32, relative to the largest entry; the softmax is in float32."""
  parameters, arrays, extra = jax.tree.map(jnp.asarray, example(variant, 10, 7))
  narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (parameters, arrays))
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), narrow)
  out = jax.jit(variant.apply)(narrow[0], *narrow[1], extra)
  expected = run(variant, *wide, extra)[0]
  assert out.dtype == jnp.bfloat16
  assert np.abs(np.asarray(out, np.float32) - expected).max() < 0.03 * np.abs(expected).max()


@each
def test_one_device_equals_eight(variant):
  """Batch over four devices, heads over two."""
  mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("batch", "heads"))
  parameters, arrays, extra = example(variant, 11, 7, batch=4)
  specs = {
    name: P(*("heads" if size == "N" else None for size in shape))
    for name, shape in variant.parameters.items()
  }
  rows = P("batch", None, "heads")
  place = partial(jax.tree.map, lambda spec, x: jax.device_put(x, NamedSharding(mesh, spec)))
  is_spec = {"is_leaf": lambda x: isinstance(x, P)}
  sharded = place(specs, parameters, **is_spec), place((rows,) * 3, arrays, **is_spec)
  out = jax.jit(variant.apply, out_shardings=NamedSharding(mesh, rows))(sharded[0], *sharded[1], extra)
  assert len(out.sharding.device_set) == 8
  assert_close(out, variant.expected(parameters, *arrays, extra))
