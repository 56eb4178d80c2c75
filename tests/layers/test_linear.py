"""The linear map, its bias, its first values and the types it multiplies in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.layers.linear import Linear, glorot

B, T, D, N, K = 2, 3, 4, 5, 6


def draw(*shape):
  return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape), jnp.float32)


def test_values_and_bias():
  x, kernel, bias = draw(B, T, D), draw(D, N, K), draw(N, K)
  out = Linear("BTD,DNK->BTNK", (D, N, K)).apply({"params": {"kernel_DNK": kernel}}, x)
  wanted = np.einsum("btd,dnk->btnk", x, kernel)
  np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)
  with_bias = Linear("BTD,DNK->BTNK", (D, N, K), use_bias=True)
  out = with_bias.apply({"params": {"kernel_DNK": kernel, "bias_NK": bias}}, x)
  np.testing.assert_allclose(out, wanted + np.asarray(bias), rtol=1e-5, atol=1e-5)
  first = jax.eval_shape(with_bias.init, jax.random.key(0), x)["params"]
  assert {name: leaf.shape for name, leaf in first.items()} == {"kernel_DNK": (D, N, K), "bias_NK": (N, K)}


@pytest.mark.parametrize(
  ("dtype", "matmul_dtype"), [("bfloat16", None), ("float32", "bfloat16"), ("bfloat16", "float32")]
)
def test_only_operands_are_rounded(dtype, matmul_dtype):
  """1 + 2^-9 is 1 in bfloat16, and of 2,049 ones the last would be lost."""
  length = 2049
  x = jnp.full((1, 1, length), 1 + 2**-9, dtype)
  kernel = jnp.full((length, 1), 1 + 2**-9, jnp.float32)
  linear = Linear("BTD,DF->BTF", (length, 1), matmul_dtype=matmul_dtype)
  run = lambda kernel: linear.apply({"params": {"kernel_DF": kernel}}, x)
  out, vjp = jax.vjp(run, kernel)
  (gradient,) = vjp(jnp.ones_like(out))
  assert out.dtype == dtype and gradient.dtype == jnp.float32
  fine = {"bfloat16": 1.0, "float32": 1 + 2**-9}
  multiplied = matmul_dtype or dtype
  wanted = length * min(float(x[0, 0, 0]), fine[multiplied]) * fine[multiplied]
  assert float(out[0, 0, 0]) == pytest.approx(wanted, rel=1e-6 if dtype == "float32" else 2**-8)


def test_glorot_looks_at_the_flat_matrix():
  for shape, num_inputs, fans in (((6, 40, 50), 1, 2006), ((40, 50, 6), 2, 2006), ((6, 2000), 1, 2006)):
    values = glorot(num_inputs)(jax.random.key(0), shape)
    bound = (6 / fans) ** 0.5
    assert values.shape == shape and values.dtype == jnp.float32
    assert 0.99 * bound < abs(values).max() <= bound * (1 + 1e-6)
    assert float(values.std()) == pytest.approx(bound / 3**0.5, rel=0.03)
