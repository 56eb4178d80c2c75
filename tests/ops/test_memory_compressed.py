"""Memory-compressed attention: its convolution, its cache, chunks, first rows, and the T-DMCA stack."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops import local
from attention_zoo.ops import memory_compressed as compressed
from attention_zoo.ops.variant import Sizes
from tests.ops.against import assert_close, assert_matches, normal
from tests.ops.reference import strided_convolution

B, T, N, K, H = 2, 13, 2, 4, 3


def inputs(W, length=T):
  """q, k, v, and the two kernels and biases."""
  shapes = (length, N, K), (length, N, K), (length, N, H)
  parameters = (W, N, K, K), (W, N, H, H), (N, K), (N, H)
  return [jnp.float32(x) for x in normal(W, *((B, *s) for s in shapes), *parameters)]


@pytest.mark.parametrize("W, stride", [(3, 3), (4, 2), (2, 3), (1, 1)])
def test_compress(W, stride):
  arrays = normal(0, (B, 7, N, K), (W, N, K, H), (N, H))
  function = partial(compressed.compress, stride=stride)
  assert_matches(function, lambda *x: strided_convolution(*x, stride), *arrays)


@pytest.mark.parametrize("W, stride", [(3, 3), (4, 2), (1, 1), (2, 3)])
def test_step_by_step_equals_all_at_once(W, stride):
  """A scan over single positions; beams and blocks of positions are in test_cache."""
  q, k, v, *parameters = inputs(W)
  attention = compressed.memory_compressed(Sizes(8, N, K, H, causal=True), width=W, stride=stride)

  @jax.jit
  def both(q, k, v, *parameters):
    p = dict(zip(attention.parameters, parameters, strict=True))
    ancestry_BJZ = jnp.zeros((B, 1, T), jnp.int32)

    def step(cache, t):
      now = (jax.lax.dynamic_slice_in_dim(x, t, 1, axis=1)[:, None] for x in (q, k, v))
      out, cache = attention.step(p, *now, t, cache, ancestry_BJZ)
      return cache, out[:, 0, 0]

    _, steps = jax.lax.scan(step, attention.init_cache(B, 1, T, jnp.float32), jnp.arange(T))
    at_once = compressed.masked_memory_compressed_attention(q, k, v, *parameters, stride=stride)
    return jnp.moveaxis(steps, 0, 1), at_once

  assert_close(*both(q, k, v, *parameters))


def test_first_rows_and_borders():
  """Rows before the end of the first field see position 0 alone; a field appears with its last position, not
  before."""
  q, k, v, *parameters = inputs(3)

  @jax.jit
  def output_and_reach(v):
    def function(v):
      return compressed.masked_memory_compressed_attention(q, k, v, *parameters)

    reach = jax.vmap(lambda t: jax.grad(lambda v: function(v)[:, t].sum())(v))(jnp.arange(T))
    return function(v), jnp.abs(reach).sum((1, 3, 4)) > 0

  out, reach = output_and_reach(v)
  assert_close(out[:, :2], jnp.broadcast_to(v[:, :1], (B, 2, N, H)))
  assert (reach == np.array([[s < max((t + 1) // 3 * 3, 1) for s in range(T)] for t in range(T)])).all()


def test_chunks_are_of_no_influence():
  """On value and gradient, with padding; dropout makes one chunk of all rows."""
  q, k, v, *parameters = inputs(3)
  valid = jnp.arange(T)[None] < jnp.array([[9], [13]])
  results = []
  for chunk in (4, 100):
    function = partial(compressed.masked_memory_compressed_attention, valid_BS=valid, chunk=chunk)
    out, vjp = jax.vjp(jax.jit(function), q, k, v, *parameters)
    results.append((out, *vjp(v)))
  for a, b in zip(*results, strict=True):
    assert_close(a, b)
  seen = []
  options = {"chunk": 4, "dropout": lambda weights: seen.append(weights.shape) or weights}
  out = jax.eval_shape(partial(compressed.memory_compressed_attention, **options), q, k, v, *parameters)
  assert out.shape == v.shape and seen == [(B, N, T, 5)]


def test_local_and_compressed_layers_in_turn_do_not_leak():
  """T-DMCA's L-M-L-M-L: no output depends on a later input, and the last one on every earlier input."""
  x, _, _, kernel, *_ = inputs(3)

  @jax.jit
  def reach(x):
    def stack(x):
      for layer in "LMLML":
        if layer == "L":
          x = x + local.masked_local_attention_1d(x, x, x, block_width=4, memory_width=0)
        else:
          x = x + compressed.masked_memory_compressed_attention(x, x, x, kernel, kernel)
      return x

    return jax.vmap(lambda t: jnp.abs(jax.grad(lambda x: stack(x)[:, t].sum())(x)).sum((0, 2, 3)))(
      jnp.arange(T)
    )

  reached = np.asarray(reach(x)) > 0
  assert not np.triu(reached, 1).any()
  assert reached[-1].all()


@pytest.mark.parametrize(
  "change, message",
  [
    ({3: (3, N, K, K + 1)}, r"key_kernel_WNDK has shape \(3, 2, 4, 5\), wanted \(3, 2, 4, 4\)"),
    ({4: (4, N, H, H)}, r"value_kernel_WNDH has shape \(4, 2, 3, 3\), wanted \(3, 2, 3, 3\)"),
    ({1: (B, T + 1, N, K), 2: (B, T + 1, N, H)}, "k_BTNK has shape .* wanted T = 13 positions"),
    ({0: (B, T, K)}, "q_BTNK must have rank 4"),
    ({6: (H,)}, r"value_bias_NH has shape \(3,\), wanted \(2, 3\)"),
  ],
)
def test_bad_input(change, message):
  shapes = [x.shape for x in inputs(3)]
  for i, shape in change.items():
    shapes[i] = shape
  arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(compressed.masked_memory_compressed_attention, *arrays)


def test_bad_options():
  q, k, v, *parameters = inputs(3)
  with pytest.raises(ValueError, match="stride is 0"):
    compressed.memory_compressed_attention(q, k, v, *parameters, stride=0)
  with pytest.raises(ValueError, match=r"valid_BS is float32\(2, 13\), wanted bool\(2, 13\)"):
    compressed.memory_compressed_attention(q, k, v, *parameters, valid_BS=jnp.ones((B, T)))
