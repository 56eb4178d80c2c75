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
  """`einsum(subscripts, x, kernel)`, plus a bias over the dimensions that the kernel brings if asked for.

  The parameters bear the letters of the einsum: "BTD,DNK->BTNK" has kernel_DNK and bias_NK. They are float32; operands
  of the product are rounded to matmul_dtype, sums are float32.
  """

  subscripts: str
  shape: tuple[int, ...]
  num_inputs: int = 1
  use_bias: bool = False
  matmul_dtype: jnp.dtype | None = None  # x's by default

  @nn.compact
  def __call__(self, x):
    letters = self.subscripts.replace("->", ",").split(",")[1]
    kernel = self.param(f"kernel_{letters}", glorot(self.num_inputs), self.shape)
    y = einsum(self.subscripts, x, kernel, None, self.matmul_dtype)
    if self.use_bias:
      n = self.num_inputs
      bias = self.param(f"bias_{letters[n:]}", nn.initializers.zeros, self.shape[n:])
      y = y + jnp.expand_dims(bias.astype(y.dtype), range(y.ndim - bias.ndim))
    return y


def logits(config, x_BTD, table_VD):
  """Scores of all tokens, float32, for any leading dimensions; config has the matmul_dtype."""
  return einsum("...D,VD->...V", x_BTD, table_VD, jnp.float32, config.matmul_dtype)


# Where the logits have a bias, it is a column of the table and x ends in 1: whoever multiplies both needs to know no
# more. Without one, both functions return what they get.


def with_one(x_BTD, bias_V):
  return x_BTD if bias_V is None else jnp.concatenate([x_BTD, jnp.ones_like(x_BTD[..., :1])], -1)


def with_bias(table_VD, bias_V):
  return table_VD if bias_V is None else jnp.concatenate([table_VD, bias_V[:, None]], 1)
