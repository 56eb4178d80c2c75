"""Position-wise feed-forward network (Vaswani et al. 2017, eq. 2)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers.linear import Linear

ACTIVATIONS = {
  "relu": jax.nn.relu,
  # Hendrycks & Gimpel 2016: x times the normal distribution of x, and their approximation by tanh, of GPT and GPT-2.
  "gelu": functools.partial(jax.nn.gelu, approximate=False),
  "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
  "swish": jax.nn.silu,  # Ramachandran et al. 2017: x sigmoid(x)
}


class FeedForward(nn.Module):
  """activation(x W_i + b_i) W_o + b_o at every position alike, whatever its segment, in training and after."""

  d_ff: int
  activation: str = "relu"
  matmul_dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x_BTD, segments_BT=None, *, train=False):
    D = x_BTD.shape[-1]
    linear = functools.partial(Linear, use_bias=True, matmul_dtype=self.matmul_dtype)
    hidden_BTF = ACTIVATIONS[self.activation](linear("BTD,DF->BTF", (D, self.d_ff), name="wi")(x_BTD))
    return linear("BTF,FD->BTD", (self.d_ff, D), name="wo")(hidden_BTF)
