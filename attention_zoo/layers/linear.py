"""Linear maps whose kernel keeps the shape that its einsum says."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.ops.einsum import einsum


def glorot(num_inputs):
  """Glorot-uniform initialiser of a kernel whose first `num_inputs` dimensions are inputs and the others outputs.

  The fans are those of the flattened matrix ([D, N K] for the heads of attention), as in the paper's code.
  """

  def init(key, shape, dtype=jnp.float32):
    matrix = (math.prod(shape[:num_inputs]), math.prod(shape[num_inputs:]))
    return jax.nn.initializers.glorot_uniform()(key, matrix, dtype).reshape(shape)

  return init


class Linear(nn.Module):
  """`einsum(subscripts, x, kernel)`, plus a bias over the last dimension if asked for.

  Parameters are float32; operands of the product are rounded to matmul_dtype, sums are float32.
  """

  subscripts: str
  shape: tuple[int, ...]
  num_inputs: int = 1
  use_bias: bool = False
  matmul_dtype: jnp.dtype | None = None  # x's by default

  @nn.compact
  def __call__(self, x):
    kernel = self.param("kernel", glorot(self.num_inputs), self.shape)
    y = einsum(self.subscripts, x, kernel, None, self.matmul_dtype)
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, self.shape[-1:])
      y = y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
    return y
