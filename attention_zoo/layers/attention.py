"""Multi-head attention (Vaswani et al. 2017, section 3.2.2) around any attention of ops/.

Letters beside the house's: M = J T, the T new positions of each of J beams in cached decoding (`ops/cache.py`).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers.linear import Linear
from attention_zoo.ops.dot_product import beams_attention, dot_product
from attention_zoo.ops.variant import Sizes, Variant


def _draw(parameter, key):
  return parameter.mean + parameter.deviation * jax.random.normal(key, parameter.shape)


class MultiHeadAttention(nn.Module):
  """Concat(head_1 .. head_h) W^O with head_i = attention(x W_i^Q, memory W_i^K, memory W_i^V);
  biases only if asked for.

  d_k and d_v are free (row B of Table 3 varies d_k alone). `attention` is a Variant of ops/, whose parameters stand
  beside the four kernels. When the "intermediates" collection is mutable, the weights that made the output are sown
  there as `weights` [B, N, T, S], if the attention can give them.
  """

  num_heads: int
  d_k: int
  d_v: int
  d_model: int
  attention: Variant | None = None  # the paper's dot-product attention
  use_bias: bool = False
  matmul_dtype: jnp.dtype | None = None

  def setup(self):
    D, N, K, H = self.d_model, self.num_heads, self.d_k, self.d_v
    self.variant = self.attention or dot_product(Sizes(D, N, K, H))
    query_depth, output_depth = self.variant.query_depth or K, self.variant.output_depth or H
    linear = functools.partial(Linear, use_bias=self.use_bias, matmul_dtype=self.matmul_dtype)
    self.query = linear("BTD,DNK->BTNK", (D, N, query_depth))
    self.key = linear("BSD,DNK->BSNK", (D, N, K))
    self.value = linear("BSD,DNH->BSNH", (D, N, H))
    self.output = linear("BTNH,NHD->BTD", (N, output_depth, D), num_inputs=2)
    self.variant_params = {
      name: self.param(name, functools.partial(_draw, parameter)) for name, parameter in self.variant.parameters.items()
    }

  def __call__(
    self, x_BTD, memory_BSD, *, mask=None, segments_BT=None, memory_segments_BS=None, marks=None, dropout=None
  ):
    """Queries come from x_BTD, keys and values from memory_BSD, which is x_BTD in self-attention.

    mask broadcasts to BNTS; segments_BT, in cross-attention with the memory's, says the same to those attentions that
    do not look at masks (see `Variant`, which has marks too). Returns BTD.
    """
    qkv = self.query(x_BTD), self.key(memory_BSD), self.value(memory_BSD)
    segments = {"segments_BT": segments_BT}
    if memory_segments_BS is not None:
      segments["memory_segments_BS"] = memory_segments_BS
    marked = {} if marks is None else {"marks": marks}
    attend = functools.partial(self._attend, *qkv, mask=mask, dropout=dropout, **segments, **marked)
    if self.variant.weights and self.is_mutable_collection("intermediates"):
      out_BTNH, weights_BNTS = attend(return_weights=True)
      self.sow("intermediates", "weights", weights_BNTS)
    else:
      out_BTNH = attend()
    return self.output(out_BTNH)

  def _attend(self, q_BTNK, k_BSNK, v_BSNH, **options):
    return self.variant.attend(self._params(q_BTNK.dtype), q_BTNK, k_BSNK, v_BSNH, **options)

  def _params(self, dtype):
    return {name: parameter.astype(dtype) for name, parameter in self.variant_params.items()}

  def keys_values(self, memory_BSD):
    """What `attend` reads at every step: (k_BNSK, v_BNSH), heads first so that no step transposes them."""
    return jnp.swapaxes(self.key(memory_BSD), 1, 2), jnp.swapaxes(self.value(memory_BSD), 1, 2)

  def attend(self, x_BTD, k_BNSK, v_BNSH, mask=None):
    """Dot-product attention to what `keys_values` gave, which all beams share; mask broadcasts to BNTS.

    x_BTD: positions of all beams, in any order. Returns BTD.
    """
    mask = None if mask is None else mask[:, :, None]
    out_B1TNH = beams_attention(self.query(x_BTD)[:, None], k_BNSK, v_BNSH, mask)
    return self.output(out_B1TNH[:, 0])

  def step(self, x_BMD, t, cache, ancestry_BJZ, marks=None):
    """The positions t .. t + T - 1 of J beams, with the cache of the Variant. marks: BM. Returns (out_BMD, cache)."""
    B, J = ancestry_BJZ.shape[:2]
    T = x_BMD.shape[1] // J
    maps = self.query, self.key, self.value
    qkv = [project(x_BMD).reshape(B, J, T, *project.shape[1:]) for project in maps]
    marked = {} if marks is None else {"marks": jax.tree.map(lambda x_BM: x_BM.reshape(B, J, T), marks)}
    out_BJTNH, cache = self.variant.step(self._params(x_BMD.dtype), *qkv, t, cache, ancestry_BJZ, **marked)
    return self.output(out_BJTNH.reshape(B, J * T, *out_BJTNH.shape[3:])), cache
