"""What the machine can do at best: matrix products and copies."""

import jax
import jax.numpy as jnp

from benchmarks.accelerator.part import seconds


def matmul(size, dtype, precision=None):
  """FLOP/s of a square product of random matrices with float32 sums."""
  a, b = (jax.random.normal(jax.random.key(i), (size, size), dtype) for i in range(2))

  @jax.jit
  def product(a, b):
    return jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32).astype(dtype)

  return 2 * size**3 / seconds(lambda: product(a, b))


def copy(size):
  """Bytes/s, read and written, of a pass over an array."""
  x = jax.random.normal(jax.random.key(0), (size // 4,), jnp.float32)
  pass_over = jax.jit(lambda x: x + 1)
  return 2 * size / seconds(lambda: pass_over(x))


def run(part):
  size, large = (256, 2**20) if part.tiny else (8192, 2**31)
  part.add(what="product, bfloat16", size=size, flops=matmul(size, jnp.bfloat16))
  part.add(what="product, float32 as JAX does it by default", size=size, flops=matmul(size, jnp.float32))
  part.add(what="product, float32, precision highest", size=size, flops=matmul(size, jnp.float32, "highest"))
  part.add(what="copy", size=large, bytes_per_second=copy(large))
