"""From functions of arrays to Variants: one adapter for each way that an attention is told what it may see.

`masked` for what asks for no order, `positioned` and `biased` for what goes by the positions of queries and keys,
`by_masks` and `by_segments` for what brings a step of its own. Cost of all: that of the function.
"""

import functools

import jax
import jax.numpy as jnp

from attention_zoo import hardware
from attention_zoo.ops import cache as cache_lib
from attention_zoo.ops import masks
from attention_zoo.ops.dot_product import dot_product_attention
from attention_zoo.ops.variant import Variant


def masked(sizes, function, **parameters):
  """function: (q, k, v, *parameters, mask=, dropout=, return_weights=)."""

  def attend(p, *qkv, **options):
    return function(*qkv, *(p[name] for name in parameters), **options)

  def step(p, q_B1NK, k_BSNK, v_BSNH, index):
    return attend(p, q_B1NK, k_BSNK, v_BSNH, mask=masks.step(k_BSNK.shape[1], index))

  return by_masks(sizes, attend, step, **parameters)


def biased(sizes, bias, **parameters):
  """bias: (p, t_T, s_S) -> what is added to the logits of dot-product attention: [1, N, T, S], of s - t alone."""

  def function(p, q_BTNK, k_BSNK, v_BSNH, t_T, s_S, **options):
    return dot_product_attention(q_BTNK, k_BSNK, v_BSNH, bias=bias(p, t_T, s_S), **options)

  def fused(kernels, p, *qkv, **segments):
    return kernels.biased_attention(*qkv, functools.partial(bias, p), causal=sizes.causal, **segments)

  return positioned(sizes, function, fused=fused, **parameters)


def positioned(sizes, function, *, fused=None, **parameters):
  """function: (p, q, k, v, t_T, s_S, mask=, dropout=, return_weights=),
  t_T and s_S the positions of queries and keys."""

  def attend(p, q_BTNK, k_BTNK, v_BTNH, **options):
    t_T = jnp.arange(q_BTNK.shape[1])
    return function(p, q_BTNK, k_BTNK, v_BTNH, t_T, t_T, **options)

  def step(p, q_B1NK, k_BSNK, v_BSNH, index):
    S = k_BSNK.shape[1]
    return function(p, q_B1NK, k_BSNK, v_BSNH, index[None], jnp.arange(S), mask=masks.step(S, index))

  return by_masks(sizes, attend, step, fused=fused, **parameters)


def by_masks(sizes, attend, step, *, fused=None, max_length=None, **parameters):
  """attend: (p, q, k, v, mask=, dropout=, return_weights=). step: as `cached` takes it.

  fused: (`kernels.relative`, p, q, k, v, query_segments_BT=, key_segments_BS=), the same where that runs. Its segments
  stand for the mask, which in a layer says the same.
  """

  def without_segments(p, *qkv, segments_BT=None, mask=None, **options):
    if fused and segments_BT is not None and (kernels := relative_kernels(*qkv, **options)):
      return fused(kernels, p, *qkv, query_segments_BT=segments_BT, key_segments_BS=segments_BT)
    return attend(p, *qkv, mask=mask, **options)

  fields = {"parameters": parameters, "weights": True, "max_length": max_length}
  return Variant(without_segments, **cached(sizes, step), **fields)


def by_segments(sizes, attend, step, *, before, shift=1, **fields):
  """attend: (p, q, k, v, segments_BT=, dropout=). step, before, shift: as `cached` takes them."""

  def without_mask(*arrays, mask=None, **options):
    return attend(*arrays, **options)

  return Variant(without_mask, **cached(sizes, step, before=before, shift=shift), **fields)


def cached(sizes, step, *, before=None, shift=1):
  """The fields `init_cache` and `step` of a Variant, from one position of one hypothesis.

  step: (p, q_B1NK, k_BSNK, v_BSNH, index) -> out_B1NH,
    with the past and position `index` (traced) in k and v and rubbish behind.
  before: how many positions before its own it looks at; None: all. What is further back is not read from the cache, and
    positions are counted from a multiple of `shift`, the width of the blocks that it cuts its past into.
  """

  def steps(p, q_BJTNK, k_BJTNK, v_BJTNH, t, cache, ancestry_BJZ):
    cache = cache_lib.write(cache, (k_BJTNK, v_BJTNH), t)
    J, T, length = *q_BJTNK.shape[1:3], ancestry_BJZ.shape[2]
    first, size = 0, length
    if before is not None:
      first, size = jnp.maximum((t - before) // shift, 0) * shift, min(before + shift - 1 + T, length)
    past = [cache_lib.own(x, ancestry_BJZ, first + jnp.arange(size)) for x in cache]
    q_BTNK = q_BJTNK.reshape(-1, *q_BJTNK.shape[2:])
    one = jax.vmap(lambda q_BNK, index: step(p, q_BNK[:, None], *past, index)[:, 0], (1, 0), 1)
    out_BTNH = one(q_BTNK, t - first + jnp.arange(T))
    return out_BTNH.reshape(-1, J, *out_BTNH.shape[1:]), cache

  return {"init_cache": functools.partial(cache_lib.empty, sizes), "step": steps}


def relative_kernels(q_BTNK, k_BSNK, v_BSNH, **options):
  """The module `kernels.relative` where its `runs` says so, else None. Only a TPU imports it: Pallas takes a while."""
  if hardware.platform() != "tpu":
    return None
  from attention_zoo.ops.kernels import relative

  return relative if relative.runs(q_BTNK, k_BSNK, v_BSNH, **options) else None
