"""Attention with learned similarities: Bahdanau's MLP, Luong's general, concat and location-based scores.

Both papers have one head: N = 1. Luong's `dot` is `dot_product.attention(dot, q, k, v)`, without the scale.
options everywhere: bias, mask, dropout, return_weights as `dot_product.attend` takes them. For incremental
decoding see `dot_product`; `additive_logits` takes the keys already projected, once and not at every step.

Letters beside the house's: U width of a query and a key side by side.
"""

import jax.numpy as jnp

from attention_zoo.ops import shapes
from attention_zoo.ops.adapters import masked
from attention_zoo.ops.dot_product import attention
from attention_zoo.ops.variant import Parameter


def additive_logits(q_BTNF, k_BSNF, w_score_NF):
  """logits_ts = w . tanh(q_t + k_s), queries and keys already projected to the MLP's width F.

  Cost: time and memory O(T S N F): the hidden layer exists for every pair.
  """
  shapes.check(q_BTNF=q_BTNF, k_BSNF=k_BSNF, w_score_NF=w_score_NF)
  hidden_BTSNF = jnp.tanh(q_BTNF[:, :, None] + k_BSNF[:, None])
  return jnp.einsum("BTSNF,NF->BNTS", hidden_BTSNF, w_score_NF, preferred_element_type=jnp.float32)


def additive_attention(q_BTNK, k_BSND, v_BSNH, w_query_NKF, w_key_NDF, w_score_NF, **options):
  """Bahdanau's alignment model e_ts = w_score . tanh(W_query q_t + W_key k_s) (Bahdanau et al. 2015, A.1.2).

  In the paper q_t is the decoder state s_{t-1}, keys and values are the encoder annotations h_s and N = 1;
  queries and keys may differ in depth. Returns out_BTNH. Cost: time and memory O(T S N F).
  """

  def similarity(q_BTNK, k_BSND):
    queries = {"q_BTNK": q_BTNK, "w_query_NKF": w_query_NKF}
    shapes.check(**queries, k_BSND=k_BSND, w_key_NDF=w_key_NDF, w_score_NF=w_score_NF, v_BSNH=v_BSNH)
    q_BTNF = jnp.einsum("BTNK,NKF->BTNF", q_BTNK, w_query_NKF)
    k_BSNF = jnp.einsum("BSND,NDF->BSNF", k_BSND, w_key_NDF)
    return additive_logits(q_BTNF, k_BSNF, w_score_NF)

  return attention(similarity, q_BTNK, k_BSND, v_BSNH, **options)


def concat_attention(q_BTNK, k_BSND, v_BSNH, w_NUF, w_score_NF, **options):
  """Luong's concat score w_score . tanh(W [q_t; k_s]) (Luong et al. 2015, section 3.1), with U = K + D.

  The same family as `additive_attention`: W's first K rows meet the query, the others the key.
  Returns out_BTNH. Cost: time and memory O(T S N F).
  """
  K, D = q_BTNK.shape[-1], k_BSND.shape[-1]
  shapes.check(q_BTNK=q_BTNK, k_BSND=k_BSND, w_score_NF=w_score_NF, w_NUF=w_NUF)
  if w_NUF.shape[1] != K + D:
    raise ValueError(f"w_NUF has shape {w_NUF.shape}, wanted U = K + D = {K + D}")
  return additive_attention(q_BTNK, k_BSND, v_BSNH, w_NUF[:, :K], w_NUF[:, K:], w_score_NF, **options)


def general_attention(q_BTNK, k_BSND, v_BSNH, w_NKD, **options):
  """Luong's general (bilinear) score q_t^T W k_s (Luong et al. 2015, section 3.1). Not scaled. Returns out_BTNH.

  Cost: time O(T S N (D + H)) and O(T N K D), memory O(T S N).
  """

  def similarity(q_BTNK, k_BSND):
    shapes.check(q_BTNK=q_BTNK, k_BSND=k_BSND, v_BSNH=v_BSNH, w_NKD=w_NKD)
    q_BTND = jnp.einsum("BTNK,NKD->BTND", q_BTNK, w_NKD)
    return jnp.einsum("BTND,BSND->BNTS", q_BTND, k_BSND, preferred_element_type=jnp.float32)

  return attention(similarity, q_BTNK, k_BSND, v_BSNH, **options)


def location_attention(q_BTNK, v_BSNH, w_NSK, **options):
  """Luong's location-based score: a_t = softmax(W q_t) looks at the query alone (Luong et al. 2015, eq. 8).

  w_NSK holds one row for each source position there may be; the first S are used. Returns out_BTNH.
  Cost: time O(T S N (K + H)), memory O(T S N).
  """

  def similarity(q_BTNK, v_BSNH):
    used_NSK = w_NSK[:, : v_BSNH.shape[1]]
    shapes.check(q_BTNK=q_BTNK, v_BSNH=v_BSNH, w_NSK=used_NSK)
    return jnp.einsum("BTNK,NSK->BNTS", q_BTNK, used_NSK, preferred_element_type=jnp.float32)

  return attention(similarity, q_BTNK, v_BSNH, **options)


# For layers


def additive(sizes, *, width=None):
  """Bahdanau's MLP in every head, `width` wide (d_k by default)."""
  N, K = sizes.num_heads, sizes.d_k
  F = width or K
  kernel = Parameter((N, K, F), K**-0.5)
  score = Parameter((N, F), F**-0.5)
  return masked(sizes, additive_attention, w_query_NKF=kernel, w_key_NKF=kernel, w_score_NF=score)


def general(sizes):
  """Luong's bilinear score in every head."""
  N, K = sizes.num_heads, sizes.d_k
  return masked(sizes, general_attention, w_NKK=Parameter((N, K, K), 1 / K))


VARIANTS = (additive, general)
