"""Multi-head attention (Vaswani et al. 2017, section 3.2.2) around any attention function of ops/."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from attention_zoo.layers.linear import Linear
from attention_zoo.ops.dot_product import dot_product_attention, masked_softmax
from attention_zoo.ops.einsum import einsum


class MultiHeadAttention(nn.Module):
  """Concat(head_1 .. head_h) W^O with head_i = attention(x W_i^Q, memory W_i^K, memory W_i^V); no biases.

  d_k and d_v are free (row B of Table 3 varies d_k alone). `attention` is a function like
  `ops.dot_product.dot_product_attention`. When the "intermediates" collection is mutable, the weights that made the
  output are sown there as `weights` [B, N, T, S].
  """

  num_heads: int
  d_k: int
  d_v: int
  d_model: int
  attention: Callable = dot_product_attention
  matmul_dtype: jnp.dtype | None = None

  def setup(self):
    D, N, K, H = self.d_model, self.num_heads, self.d_k, self.d_v
    linear = functools.partial(Linear, matmul_dtype=self.matmul_dtype)
    self.query = linear("BTD,DNK->BTNK", (D, N, K))
    self.key = linear("BSD,DNK->BSNK", (D, N, K))
    self.value = linear("BSD,DNH->BSNH", (D, N, H))
    self.output = linear("BTNH,NHD->BTD", (N, H, D), num_inputs=2)

  def __call__(self, x_BTD, memory_BSD, *, mask=None, dropout=None):
    """x_BTD asks, memory_BSD (x_BTD itself in self-attention) answers; mask broadcasts to BNTS. Returns BTD."""
    q_BTNK, k_BSNK, v_BSNH = self.query(x_BTD), self.key(memory_BSD), self.value(memory_BSD)
    if self.is_mutable_collection("intermediates"):
      out_BTNH, weights_BNTS = self.attention(
        q_BTNK, k_BSNK, v_BSNH, mask=mask, dropout=dropout, return_weights=True
      )
      self.sow("intermediates", "weights", weights_BNTS)
    else:
      out_BTNH = self.attention(q_BTNK, k_BSNK, v_BSNH, mask=mask, dropout=dropout)
    return self.output(out_BTNH)

  def keys_values(self, memory_BSD):
    """What cached decoding asks at every step: (k_BNSK, v_BNSH), heads first so that no step transposes them."""
    return jnp.swapaxes(self.key(memory_BSD), 1, 2), jnp.swapaxes(self.value(memory_BSD), 1, 2)

  def attend(self, x_BJD, k_BNSK, v_BNSH, mask=None):
    """One position of J beams against cached keys and values; mask broadcasts to BNJS. Returns BJD."""
    q_BJNK = self.query(x_BJD) * self.d_k**-0.5
    logits_BNJS = einsum("BJNK,BNSK->BNJS", q_BJNK, k_BNSK, jnp.float32)
    weights_BNJS = masked_softmax(logits_BNJS, mask).astype(v_BNSH.dtype)
    return self.output(einsum("BNJS,BNSH->BJNH", weights_BNJS, v_BNSH))
