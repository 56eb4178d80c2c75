import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from attention_zoo.training import loss
from attention_zoo.training.loss import linear_cross_entropy, smoothed_cross_entropy


def naive(logits, targets, weights, eps):
  """The definition, one row at a time, in float64."""
  total = nll = correct = 0.0
  for z, target, weight in zip(np.asarray(logits, np.float64), targets, weights, strict=True):
    logp = z - z.max() - math.log(np.exp(z - z.max()).sum())
    q = np.full(len(z), eps / (len(z) - 1))
    q[target] = 1 - eps
    total -= weight * (q * logp).sum()
    nll -= weight * logp[target]
    correct += weight * (z[target] == z.max())
  return total, nll, correct


def inputs(M=22, V=19, D=8, dtype=jnp.float32, leading=None):
  keys = jax.random.split(jax.random.key(0), 4)
  leading = leading or (M,)
  hidden = jax.random.normal(keys[0], (*leading, D)).astype(dtype)
  embedding = jax.random.normal(keys[1], (V, D))
  targets = jax.random.randint(keys[2], leading, 0, V)
  weights = jax.random.uniform(keys[3], leading) * (jnp.arange(leading[0]) % 5 > 0).reshape(
    -1, *(1,) * (len(leading) - 1)
  )
  return hidden, embedding, targets, weights


def plain(hidden, embedding, targets, weights, eps, chunk=None):
  logits = jnp.einsum(
    "...D,VD->...V", hidden, embedding.astype(hidden.dtype), preferred_element_type=jnp.float32
  )
  return smoothed_cross_entropy(logits, targets, weights, eps)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.4])
def test_smoothed_cross_entropy_against_the_definition(eps):
  hidden, embedding, targets, weights = inputs()
  logits = hidden @ embedding.T
  expected = naive(logits, np.asarray(targets), np.asarray(weights), eps)
  np.testing.assert_allclose(smoothed_cross_entropy(logits, targets, weights, eps), expected, rtol=1e-5)


def test_closed_forms():
  V, eps = 11, 0.1
  one = jnp.ones(1)
  # Uniform logits: log V, smoothed or not.
  loss, nll, _ = smoothed_cross_entropy(jnp.full((1, V), 3.0), jnp.array([4]), one, eps)
  np.testing.assert_allclose([loss, nll], [math.log(V)] * 2, rtol=1e-6)
  # The smoothed distribution itself: its entropy, which is the least there can be.
  q = np.full(V, eps / (V - 1))
  q[4] = 1 - eps
  loss, nll, correct = smoothed_cross_entropy(jnp.log(q)[None], jnp.array([4]), one, eps)
  np.testing.assert_allclose(loss, -(q * np.log(q)).sum(), rtol=1e-6)
  np.testing.assert_allclose(nll, -math.log(1 - eps), rtol=1e-5)
  assert correct == 1
  gradient = jax.grad(lambda z: smoothed_cross_entropy(z, jnp.array([4]), one, eps)[0])(jnp.log(q)[None])
  np.testing.assert_allclose(gradient, np.zeros((1, V)), atol=1e-6)


def test_large_logits_stay_finite():
  loss, nll, _ = smoothed_cross_entropy(jnp.array([[1e4, 0.0, -1e4]]), jnp.array([0]), jnp.ones(1), 0.1)
  assert nll == 0
  np.testing.assert_allclose(loss, 0.05 * (1e4 + 2e4), rtol=1e-6)


@pytest.mark.parametrize("chunk", [5, 8, 22, 100])
def test_fused_equals_plain_in_value_and_gradients(chunk):
  arguments = inputs()
  for eps in (0.0, 0.1):
    fused = functools.partial(linear_cross_entropy, label_smoothing=eps, chunk=chunk)
    expected = plain(*arguments, eps)
    np.testing.assert_allclose(fused(*arguments), expected, rtol=1e-5)

    def scaled(f, hidden, embedding, rest):
      return 3.0 * f(hidden, embedding, *rest)[0]

    gradients = jax.jit(jax.grad(functools.partial(scaled, fused), (0, 1)))(*arguments[:2], arguments[2:])
    as_plain = functools.partial(plain, eps=eps)
    expected = jax.jit(jax.grad(functools.partial(scaled, as_plain), (0, 1)))(*arguments[:2], arguments[2:])
    for got, want in zip(gradients, expected, strict=True):
      np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_value_is_the_same_with_and_without_gradient():
  arguments = inputs(leading=(4, 6))
  loss = functools.partial(linear_cross_entropy, label_smoothing=0.1, chunk=8)
  (value, _), _ = jax.value_and_grad(lambda *a: (loss(*a)[0], None), (0, 1), has_aux=True)(*arguments)
  np.testing.assert_allclose(value, loss(*arguments)[0], rtol=1e-6)


def test_bfloat16_operands_accumulate_in_float32():
  hidden, embedding, targets, weights = inputs(M=64, V=33, D=16, dtype=jnp.bfloat16)
  exact = (hidden.astype(jnp.float32), embedding.astype(jnp.bfloat16).astype(jnp.float32), targets, weights)
  fused = functools.partial(linear_cross_entropy, label_smoothing=0.1, chunk=16)
  # The operands are rounded, the sums are not: the value is that of the rounded operands.
  np.testing.assert_allclose(fused(hidden, embedding, targets, weights), plain(*exact, 0.1), rtol=1e-5)
  loss, gradients = jax.value_and_grad(lambda *a: fused(*a)[0], (0, 1))(hidden, embedding, targets, weights)
  assert loss.dtype == jnp.float32
  assert gradients[0].dtype == jnp.bfloat16 and gradients[1].dtype == jnp.float32
  expected = jax.grad(lambda *a: plain(*a, 0.1)[0], (0, 1))(*exact)
  for got, want in zip(gradients, expected, strict=True):
    error = jnp.linalg.norm(got.astype(jnp.float32) - want) / jnp.linalg.norm(want)
    assert error < 2.0**-8  # one rounding to bfloat16 is 2^-9
  # On a CPU the compiler may keep more digits than it was asked for: see what is asked for.
  text = str(jax.make_jaxpr(jax.grad(lambda *a: fused(*a)[0], (0, 1)))(hidden, embedding, targets, weights))
  assert "f32[16,33] = dot_general" in text and "f32[33,16] = dot_general" in text


def test_logits_are_never_stored_whole():
  hidden, embedding, targets, weights = inputs(M=64, V=40, D=8)
  text = str(
    jax.make_jaxpr(jax.grad(lambda *a: linear_cross_entropy(*a, 0.1, 16)[0], (0, 1)))(
      hidden, embedding, targets, weights
    )
  )
  assert "f32[16,40]" in text and "f32[64,40]" not in text


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (2, 2, 2, 1), (1, 2, 2, 2), (1, 1, 1, 8)])
def test_on_a_mesh(shape):
  axes = ("replica", "data", "fsdp", "tensor")
  mesh = jax.make_mesh(shape, axes, (AxisType.Auto,) * 4)
  hidden, embedding, targets, weights = inputs(V=24, D=8, leading=(8, 6))
  loss = functools.partial(linear_cross_entropy, label_smoothing=0.1, chunk=3)

  def value_and_gradient(*arguments):
    return jax.value_and_grad(lambda *a: loss(*a)[0], (0, 1))(*arguments), loss(*arguments)

  expected = value_and_gradient(hidden, embedding, targets, weights)
  rows, table = NamedSharding(mesh, P(axes[:3])), NamedSharding(mesh, P("tensor", "fsdp"))
  with jax.set_mesh(mesh):
    compiled = (
      jax.jit(value_and_gradient, in_shardings=(rows, table, rows, rows))
      .lower(hidden, embedding, targets, weights)
      .compile()
    )
    got = compiled(*jax.device_put((hidden, embedding, targets, weights), (rows, table, rows, rows)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, expected)
  if shape == (1, 8, 1, 1):
    text = compiled.as_text()
    assert "all-reduce" in text
    for other in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
      assert other not in text


def test_one_pass_over_the_logits_gives_what_two_do():
  rng = np.random.default_rng(0)
  logits_MV = (10 * rng.standard_normal((7, 300))).astype(np.float32)
  logits_MV[0, :5] = -np.inf
  logits_MV[1] = -200.0
  logits_MV[2, 299] = 500.0
  once, twice = jax.jit(loss._max_and_lse_at_once)(logits_MV), jax.jit(loss._max_and_lse)(logits_MV)
  np.testing.assert_array_equal(once[0], twice[0])
  np.testing.assert_allclose(once[1], twice[1], rtol=1e-6)
  logits_MV[3, 17] = np.nan
  found = np.asarray(jax.jit(loss._max_and_lse_at_once)(logits_MV)[1])
  assert np.isnan(found).tolist() == [row == 3 for row in range(7)]


def test_the_loss_of_a_gpu_is_the_same(monkeypatch):
  arrays = inputs()
  here = jax.jit(lambda *x: linear_cross_entropy(*x, 0.1, 3))(*arrays)
  monkeypatch.setattr(loss.hardware, "platform", lambda: "gpu")
  there = jax.jit(lambda *x: linear_cross_entropy(*x, 0.1, 3))(*arrays)
  np.testing.assert_allclose(there, here, rtol=1e-6)
