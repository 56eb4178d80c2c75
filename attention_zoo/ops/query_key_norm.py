"""Attention by the angle between query and key (Henry et al. 2020, "Query-Key Normalization for Transformers")."""

import math

import jax.numpy as jnp

from attention_zoo.ops import shapes
from attention_zoo.ops.adapters import masked
from attention_zoo.ops.dot_product import attention, dot
from attention_zoo.ops.variant import Parameter


def query_key_norm_attention(q_BTNK, k_BSNK, v_BSNH, scale_N, **options):
  """softmax(g q k^T) v with every q and k scaled to length 1 and a learnt g (Henry et al. 2020, eq. 3).

  A query or key of length 0 stays 0. options: bias, mask, dropout, return_weights as `dot_product.attend` takes them.
  Returns out_BTNH. Cost: time O(T S N (K + H)), memory O(T S N).
  """
  shapes.check(q_BTNK=q_BTNK, k_BSNK=k_BSNK, v_BSNH=v_BSNH, scale_N=scale_N)

  def unit(x):
    return x * jnp.reciprocal(jnp.sqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-12))

  return attention(dot, unit(q_BTNK) * scale_N[None, None, :, None], unit(k_BSNK), v_BSNH, **options)


def query_key_norm(sizes, *, length=64):
  """length: the sequence length that g = log2(length^2 - length) at the start is right for, as in the paper."""
  start = math.log2(length**2 - length)
  return masked(sizes, query_key_norm_attention, scale_N=Parameter((sizes.num_heads,), 0, start))


VARIANTS = (query_key_norm,)
