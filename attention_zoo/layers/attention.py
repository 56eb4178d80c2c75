"""Multi-head attention (Vaswani et al. 2017, section 3.2.2) around any attention of ops/.

Letters beyond the house's: I = beam slots in a cache (the slot an entry was written by, as J is the beam that reads it).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers.linear import Linear
from attention_zoo.ops.dot_product import dot_product, masked_softmax
from attention_zoo.ops.einsum import einsum
from attention_zoo.ops.variant import Variant


def _draw(parameter, key):
  return parameter.mean + parameter.deviation * jax.random.normal(key, parameter.shape)


class MultiHeadAttention(nn.Module):
  """Concat(head_1 .. head_h) W^O with head_i = attention(x W_i^Q, memory W_i^K, memory W_i^V); no biases.

  d_k and d_v are free (row B of Table 3 varies d_k alone). `attention` is a Variant of ops/, whose parameters stand beside
  the four kernels. When the "intermediates" collection is mutable, the weights that made the output are sown there as
  `weights` [B, N, T, S], if the attention can give them.
  """

  num_heads: int
  d_k: int
  d_v: int
  d_model: int
  attention: Variant = dot_product(None)
  matmul_dtype: jnp.dtype | None = None

  def setup(self):
    D, N, K, H = self.d_model, self.num_heads, self.d_k, self.d_v
    asked, given = self.attention.query_depth or K, self.attention.output_depth or H
    linear = functools.partial(Linear, matmul_dtype=self.matmul_dtype)
    self.query = linear("BTD,DNK->BTNK", (D, N, asked))
    self.key = linear("BSD,DNK->BSNK", (D, N, K))
    self.value = linear("BSD,DNH->BSNH", (D, N, H))
    self.output = linear("BTNH,NHD->BTD", (N, given, D), num_inputs=2)
    self.own = {
      name: self.param(name, functools.partial(_draw, parameter)) for name, parameter in self.attention.parameters.items()
    }

  def __call__(self, x_BTD, memory_BSD, *, mask=None, segments_BT=None, dropout=None):
    """x_BTD asks, memory_BSD (x_BTD itself in self-attention) answers.

    mask broadcasts to BNTS; segments_BT is what those attentions go by that do not look at masks. Returns BTD.
    """
    qkv = self.query(x_BTD), self.key(memory_BSD), self.value(memory_BSD)
    attend = functools.partial(self._attend, *qkv, mask=mask, segments_BT=segments_BT, dropout=dropout)
    if self.attention.weights and self.is_mutable_collection("intermediates"):
      out_BTNH, weights_BNTS = attend(return_weights=True)
      self.sow("intermediates", "weights", weights_BNTS)
    else:
      out_BTNH = attend()
    return self.output(out_BTNH)

  def _attend(self, q_BTNK, k_BSNK, v_BSNH, **options):
    return self.attention.attend(self._own(q_BTNK.dtype), q_BTNK, k_BSNK, v_BSNH, **options)

  def _own(self, dtype):
    return {name: parameter.astype(dtype) for name, parameter in self.own.items()}

  def keys_values(self, memory_BSD):
    """What cached decoding asks at every step: (k_BNSK, v_BNSH), heads first so that no step transposes them."""
    return jnp.swapaxes(self.key(memory_BSD), 1, 2), jnp.swapaxes(self.value(memory_BSD), 1, 2)

  def attend(self, x_BJD, k_BNSK, v_BNSH, mask=None):
    """Dot-product attention of one position of J beams to keys and values they share; mask broadcasts to BNJS.

    Returns BJD.
    """
    q_BJNK = self.query(x_BJD) * self.d_k**-0.5
    logits_BNJS = einsum("BJNK,BNSK->BNJS", q_BJNK, k_BNSK, jnp.float32)
    weights_BNJS = masked_softmax(logits_BNJS, mask).astype(v_BNSH.dtype)
    return self.output(einsum("BNJS,BNSH->BJNH", weights_BNJS, v_BNSH))

  def step(self, x_BJD, t, k_BNSK, v_BNSH, ancestry_BJT):
    """Position t of J beams, for any causal attention.

    k_BNSK, v_BNSH: what all beams have written, S = T J: beam i's entry of time s at s J + i. ancestry_BJT[b, j, s]: whose
    entry of time s belongs to the hypothesis j, -1 where there is none yet. Returns BJD.
    """
    J = ancestry_BJT.shape[1]
    mine_BJTI = ancestry_BJT[..., None] == jnp.arange(J)[None, None, None]
    if self.attention.step is None:
      return self.attend(x_BJD, k_BNSK, v_BNSH, mine_BJTI.reshape(*ancestry_BJT.shape[:1], 1, J, -1))
    # Each beam's own past, in a row of its own.
    slots_BJT = jnp.arange(ancestry_BJT.shape[2])[None, None] * J + jnp.maximum(ancestry_BJT, 0)
    own = [
      jax.vmap(lambda x_NSK, slots_JT: jnp.moveaxis(x_NSK[:, slots_JT], 0, 2))(x_BNSK, slots_BJT)
      for x_BNSK in (k_BNSK, v_BNSH)
    ]
    rows = [x.reshape(-1, *x.shape[2:]) for x in own]
    q_BJNK = self.query(x_BJD)
    q_B1NK = q_BJNK.reshape(-1, 1, *q_BJNK.shape[2:])
    out_B1NH = self.attention.step(self._own(q_BJNK.dtype), q_B1NK, *rows, t)
    return self.output(out_B1NH.reshape(*q_BJNK.shape[:2], *out_B1NH.shape[2:]))
