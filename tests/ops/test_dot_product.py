"""The general attention layer in the lecture's steps, its options, and the rule for fused kernels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from attention_zoo.ops import dot_product, masks
from attention_zoo.ops.dot_product import attention, dot, dot_product_attention, scaled_dot
from tests.ops import reference
from tests.ops.against import assert_close, assert_matches, normal

B, T, S, N, K, H = 2, 3, 5, 2, 4, 6
SHAPES = (B, T, N, K), (B, S, N, K), (B, S, N, H)


def loops(q, k, v, score=reference.scaled_dot):
  return reference.attention(q, k, v, score, np.ones((len(q), q.shape[2], q.shape[1], k.shape[1]), bool))


def test_the_lectures_steps():
  q, x, v = normal(0, *SHAPES)
  cosine = lambda q, k: dot(*(a / jnp.linalg.norm(a, axis=-1, keepdims=True) for a in (q, k)))
  scores = {
    cosine: lambda n, t, s, q, k: q @ k / np.linalg.norm(q) / np.linalg.norm(k),
    dot: lambda n, t, s, q, k: q @ k,
    scaled_dot: reference.scaled_dot,
  }
  for similarity, score in scores.items():  # steps 0 to 2: one query, the inputs are keys and values
    assert_matches(partial(attention, similarity), lambda q, x: loops(q, x, x, score), q[:, :1], x)
  assert_matches(partial(attention, scaled_dot), lambda q, x: loops(q, x, x), q, x)  # step 3: many queries
  assert_matches(dot_product_attention, loops, q, x, v)  # step 4: keys and values of their own, d_k != d_v
  assert_close(attention(scaled_dot, *map(jnp.float32, (q, x, v))), loops(q, x, v))


def test_without_the_scale_softmax_saturates():
  """|q . k| grows with sqrt(d): entropy and gradient collapse, with the scale they do not."""

  @partial(jax.jit, static_argnums=0)
  def entropy_and_slope(similarity, q, k, v):
    def weights(q):
      return attention(similarity, q, k, v, return_weights=True)

    out, vjp, w = jax.vjp(weights, q, has_aux=True)
    return -jnp.sum(w * jnp.log(w + 1e-30)) / w[..., 0].size, jnp.linalg.norm(vjp(v[:, :8])[0])

  entropy, slope = {}, {}
  for depth in (4, 1024):
    q, k, v = (jnp.float32(x) for x in normal(1, (4, 8, 1, depth), (4, 32, 1, depth), (4, 32, 1, depth)))
    for similarity in (dot, scaled_dot):
      entropy[similarity, depth], slope[similarity, depth] = entropy_and_slope(
        similarity, q, k, v / depth**0.5
      )
  assert entropy[dot, 1024] < 0.1 * entropy[dot, 4]
  assert entropy[scaled_dot, 1024] > 0.8 * entropy[scaled_dot, 4]
  assert slope[scaled_dot, 1024] > 2 * slope[dot, 1024] / 1024**0.5


def test_weights_come_from_the_same_computation():
  q, k, v = (jnp.float32(x) for x in normal(2, *SHAPES))
  halve = lambda weights: weights * 0.5
  out, weights = dot_product_attention(q, k, v, return_weights=True)
  assert_close(weights.sum(-1), np.ones((B, N, T)))
  assert_close(jnp.einsum("BNTS,BSNH->BTNH", weights, v), out)
  dropped, kept = dot_product_attention(q, k, v, return_weights=True, dropout=halve)
  assert_close(dropped, out / 2)
  assert_close(kept, weights)


def test_rows_that_see_nothing_are_zero_and_so_are_their_gradients():
  q, k, v = (1e4 * jnp.float32(x) for x in normal(3, *SHAPES))
  mask = jnp.ones((1, 1, T, S), bool).at[:, :, 1].set(False)

  @jax.jit
  def value_and_gradients(q, k, v, mask):
    out, vjp = jax.vjp(lambda *x: dot_product_attention(*x, mask=mask), q, k, v)
    return out, vjp(jnp.ones_like(out))

  out, gradients = value_and_gradients(q, k, v, mask)
  assert (out[:, 1] == 0).all() and (gradients[0][:, 1] == 0).all()
  assert all(jnp.isfinite(x).all() for x in (out, *gradients))
  out, gradients = value_and_gradients(q, k, v, jnp.zeros_like(mask))
  assert all((x == 0).all() for x in (out, *gradients))


@pytest.mark.parametrize("T, S", [(1, 1), (3, 5), (0, 5), (3, 0)])
@settings(deadline=None, derandomize=True, max_examples=6, phases=[Phase.generate])
@given(full=st.tuples(*[st.booleans()] * 4), seed=st.integers(0, 9))
def test_masks_and_biases_of_every_shape_that_broadcasts(T, S, full, seed):
  q, k, v, bias = normal(seed, (B, T, N, K), (B, S, N, K), (B, S, N, H), (B, N, T, S))
  bias = bias[tuple(slice(None) if f else slice(0, 1) for f in full)]
  visible = np.broadcast_to(bias < 0.5, (B, N, T, S))
  bias_of = iter(np.broadcast_to(bias, visible.shape)[visible])
  score = lambda n, t, s, q, k: reference.scaled_dot(n, t, s, q, k) + next(bias_of)
  # The oracle visits b, n, t, s in this order.
  expected = reference.attention(q, k, v, score, visible)
  q, k, v, small = map(jnp.float32, (q, k, v, bias))
  assert_close(dot_product_attention(q, k, v, bias=small, mask=jnp.asarray(bias < 0.5)), expected)


def test_rule_for_the_fused_kernel(monkeypatch):
  """What it takes and what not; that the call gives the same, here with XLA in the kernel's place."""
  kernels = []

  def kernel(*arrays, implementation, _plain=jax.nn.dot_product_attention, **options):
    kernels.append(implementation)
    return _plain(*arrays, **options)

  half = jnp.bfloat16
  q, k, v = (jnp.asarray(x, half) for x in normal(5, (2, 4, 2, 8), (2, 6, 2, 8), (2, 6, 2, 8)))
  assert not dot_product.fused(q, k, v)  # a CPU
  mask = masks.padding(jnp.ones((2, 6), bool).at[0].set(False)) & masks.causal(4, 6)
  runs = [lambda *x, o=o: dot_product_attention(*x, **o) for o in ({}, {"mask": mask})]
  plain = [jax.jit(run)(q, k, v) for run in runs]
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
  for run, result in zip(runs, plain, strict=True):
    fused = jax.jit(lambda *x, run=run: run(*x))(q, k, v)
    assert_close(fused, np.asarray(result, np.float64), 2e-2)
  assert kernels == ["cudnn", "cudnn"]
  assert (fused[0] == 0).all()  # sees nothing
  assert not dot_product.fused(q.astype(jnp.float32), k, v)
  assert not dot_product.fused(q, k, v[..., :4])
  assert not dot_product.fused(q[:, :3], k, v)
  assert not dot_product.fused(q[..., :6], k[..., :6], v[..., :6])
  assert not dot_product.fused(q[:, :0], k, v)
  for options in ({"bias": jnp.zeros((1, 1, 4, 6))}, {"dropout": lambda w: w}, {"return_weights": True}):
    jax.eval_shape(lambda *x, o=options: dot_product_attention(*x, **o), q, k, v)
  assert len(kernels) == 2


@pytest.mark.parametrize(
  "change, message",
  [
    ({"q": (B, T, K)}, r"q_BTNK must have rank 4, got shape \(2, 3, 4\)"),
    ({"k": (B, S, N, K + 1)}, r"k_BSNK has shape \(2, 5, 2, 5\), wanted \(2, 'any', 2, 4\)"),
    ({"k": (B, S, N + 1, K)}, "k_BSNK has shape"),
    ({"v": (B, S + 1, N, H)}, r"v_BSNH has shape \(2, 6, 2, 6\), wanted \(2, 5, 2, 'any'\)"),
    ({"mask": (T, S)}, r"mask has shape \(3, 5\), wanted one that broadcasts to BNTS = \(2, 2, 3, 5\)"),
    ({"mask": (B, 1, S, T)}, "mask has shape"),
    ({"bias": (B, 3, T, S)}, "bias has shape"),
  ],
)
def test_bad_input(change, message):
  shapes = {"q": SHAPES[0], "k": SHAPES[1], "v": SHAPES[2], **change}
  arrays = {name: jnp.zeros(shape, bool if name == "mask" else jnp.float32) for name, shape in shapes.items()}
  with pytest.raises(ValueError, match=message):
    dot_product_attention(arrays.pop("q"), arrays.pop("k"), arrays.pop("v"), **arrays)


def test_bad_types_and_depths():
  q, k, v = (jnp.zeros(shape) for shape in SHAPES)
  with pytest.raises(ValueError, match="mask must be bool"):
    dot_product_attention(q, k, v, mask=jnp.ones((1, 1, T, S)))
  with pytest.raises(ValueError, match=r"k_BSNK has shape \(2, 5, 2, 3\), wanted BSNK = \(2, S, 2, 4\)"):
    attention(dot, q, k[..., :3])
