"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), and the steps that lead to it.

  step 0  any similarity        attention(similarity, q_B1NK, x_BSNK)
  step 1  dot product           attention(dot, q_B1NK, x_BSNK)
  step 2  scaled dot product    attention(scaled_dot, q_B1NK, x_BSNK)
  step 3  many queries          attention(scaled_dot, q_BTNK, x_BSNK)
  step 4  keys and values       attention(scaled_dot, q_BTNK, k_BSNK, v_BSNH)

The last is `dot_product_attention(q_BTNK, k_BSNK, v_BSNH)`. Every attention in this package ends in `attend`:
logits in, softmax over the keys, weighted mean of the values.

Incremental decoding of anything built on `attend`: keys and values of all S positions there will ever be, position
`index` written, and the same function with one query and `mask=masks.step(S, index)`. Dot-product attention itself
takes the queries of all beams to the keys of all beams instead, and the mask says which are whose: `beams_attention`.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp

from attention_zoo import hardware
from attention_zoo.ops import cache as cache_lib
from attention_zoo.ops import shapes
from attention_zoo.ops.einsum import einsum
from attention_zoo.ops.variant import Variant

_IMPLEMENTATION = jax.make_user_context(None)  # None: the best there is


def masked_softmax(logits_BNTS, mask=None):
  """Softmax over the keys in float32, where masked keys get exactly 0.

  mask (bool, True = may attend) broadcasts to BNTS. In a row that may attend nowhere every key gets 0.
  Cost: time and memory O(T S N).
  """
  logits_BNTS = logits_BNTS.astype(jnp.float32)
  if mask is None:
    return jax.nn.softmax(logits_BNTS)
  # The most negative float rather than -inf: the softmax of a row of only -inf is NaN. The two `where` would
  # keep that out of weights and gradient, but jax_debug_nans would stop there. Other rows come out the same.
  weights_BNTS = jax.nn.softmax(jnp.where(mask, logits_BNTS, jnp.finfo(jnp.float32).min))
  return jnp.where(mask, weights_BNTS, 0.0)


def attend(logits_BNTS, v_BSNH, *, bias=None, mask=None, dropout=None, return_weights=False):
  """softmax(logits + bias) v for every head: what follows the similarity in every attention.

  bias and mask (bool, True = may attend) broadcast to BNTS; dropout is a function of the weights. Returns
  out_BTNH, or (out_BTNH, weights_BNTS) with return_weights. Cost: time O(T S N H), memory O(T S N).
  """
  out_BTNH, _, weights_BNTS = weighted_mean(logits_BNTS, v_BSNH, bias=bias, mask=mask, dropout=dropout)
  return (out_BTNH, weights_BNTS) if return_weights else out_BTNH


def weighted_mean(logits_BNTS, v_BSNH, *, bias=None, mask=None, dropout=None):
  """What `attend` does, for those that have more to add up with the same weights.

  Returns (out_BTNH, kept_BNTS, weights_BNTS): the weights after dropout, which made the output, and before.
  Cost: `attend`'s.
  """
  check_broadcast(logits_BNTS.shape, bias=bias, mask=mask)
  if bias is not None:
    logits_BNTS = logits_BNTS + bias
  weights_BNTS = masked_softmax(logits_BNTS, mask).astype(v_BSNH.dtype)
  kept_BNTS = weights_BNTS if dropout is None else dropout(weights_BNTS)
  return einsum("BNTS,BSNH->BTNH", kept_BNTS, v_BSNH), kept_BNTS, weights_BNTS


def dot(q_BTNK, k_BSNK):
  """logits_BNTS = q . k. They grow with sqrt(d_k), which is why `scaled_dot` divides. Cost: O(T S N K)."""
  shapes.check(q_BTNK=q_BTNK, k_BSNK=k_BSNK)
  return einsum("BTNK,BSNK->BNTS", q_BTNK, k_BSNK, jnp.float32)


def scaled_dot(q_BTNK, k_BSNK):
  """logits_BNTS = q . k / sqrt(d_k) (Vaswani et al. 2017, eq. 1). Cost: O(T S N K)."""
  return dot(q_BTNK * q_BTNK.shape[-1] ** -0.5, k_BSNK)


def attention(similarity, q_BTNK, k_BSNK, v_BSNH=None, **options):
  """The general attention layer: y_t = sum_s softmax_s(similarity(q_t, k_s)) v_s.

  similarity: (q_BTNK, k_BSNK) -> logits_BNTS, any function of the two, which checks its arguments.
  Without v_BSNH the keys are the values. options: bias, mask, dropout, return_weights, as `attend`
  takes them. Cost: the similarity's, and O(T S N H).
  """
  return attend(similarity(q_BTNK, k_BSNK), k_BSNK if v_BSNH is None else v_BSNH, **options)


def dot_product_attention(
  q_BTNK, k_BSNK, v_BSNH, *, bias=None, mask=None, dropout=None, return_weights=False
):
  """softmax(q k^T / sqrt(d_k)) v for every head (Vaswani et al. 2017, eq. 1).

  q_BTNK, k_BSNK, v_BSNH: queries, keys, values. bias is added to the logits and mask (bool, True = may
  attend) applied; both broadcast to BNTS. dropout is a function of the weights. A row that may attend nowhere
  returns zeros. Softmax runs in float32. Returns out_BTNH, or (out_BTNH, weights_BNTS) with return_weights.

  On a GPU `fused` decides whether cuDNN's flash attention runs instead of the einsums; the results differ by
  the rounding of its 16-bit types. Elsewhere the einsums run: JAX's TPU kernels are experimental, not used.
  What layers take, `dot_product`, comes before that: where segments say the same as the mask, and `supported` of
  `kernels/flash.py` says yes, its kernel runs and no mask is made. `implementation` asks for one of the three.

  Cost: time O(T S N (K + H)), memory O(T S N) for the weights; fused O((T + S) N K), and the mask's own size.
  Raises ValueError naming the argument that does not fit.
  """
  check_shapes(q_BTNK, k_BSNK, v_BSNH, bias, mask)
  plain = bias is None and dropout is None and not return_weights
  if plain and _allowed("cudnn") and fused(q_BTNK, k_BSNK, v_BSNH):
    return _cudnn_attention(q_BTNK, k_BSNK, v_BSNH, mask)
  logits_BNTS = scaled_dot(q_BTNK, k_BSNK)
  return attend(logits_BNTS, v_BSNH, bias=bias, mask=mask, dropout=dropout, return_weights=return_weights)


def beams_attention(q_BJTNK, k_BNSK, v_BNSH, mask=None):
  """`dot_product_attention` of T queries of each of J beams to keys and values that the beams of a row share.

  mask broadcasts to BNJTS. Returns out_BJTNH. Cost: time O(J T S N (K + H)), memory O(J T S N); the keys are read once.
  """
  logits_BNJTS = einsum("BJTNK,BNSK->BNJTS", q_BJTNK * q_BJTNK.shape[-1] ** -0.5, k_BNSK, jnp.float32)
  weights_BNJTS = masked_softmax(logits_BNJTS, mask).astype(v_BNSH.dtype)
  return einsum("BNJTS,BNSH->BJTNH", weights_BNJTS, v_BNSH)


def fused(q_BTNK, k_BSNK, v_BSNH):
  """Whether cuDNN's kernel takes these: a GPU, one 16-bit type, d_k = d_v <= 128 in eights, even lengths.

  `dot_product_attention` asks, and adds: no bias (the kernel drops the gradient of one with a batch), no
  dropout, no weights to return. Cost: none, the shapes decide.
  """
  T, K = q_BTNK.shape[1], q_BTNK.shape[3]
  S, H = v_BSNH.shape[1], v_BSNH.shape[3]
  return (
    hardware.platform() == "gpu"
    and q_BTNK.dtype == k_BSNK.dtype == v_BSNH.dtype
    and q_BTNK.dtype in (jnp.bfloat16, jnp.float16)
    and K == H <= 128
    and K % 8 == 0
    and T % 2 == S % 2 == 0
    and q_BTNK.size > 0
    and S > 0
  )


def _cudnn_attention(q_BTNK, k_BSNK, v_BSNH, mask):
  """cuDNN's flash attention; rows that may attend nowhere, which it would average, are set to zero."""
  T, S = q_BTNK.shape[1], k_BSNK.shape[1]
  if mask is None:
    return jax.nn.dot_product_attention(q_BTNK, k_BSNK, v_BSNH, implementation="cudnn")
  mask = jnp.broadcast_to(mask, (*mask.shape[:2], T, S))
  out_BTNH = jax.nn.dot_product_attention(q_BTNK, k_BSNK, v_BSNH, mask=mask, implementation="cudnn")
  return jnp.where(mask.any(-1).swapaxes(1, 2)[..., None], out_BTNH, 0)


@contextlib.contextmanager
def implementation(name):
  """What is traced within takes "flash", "cudnn" or "einsum", where that can be taken, and einsums elsewhere.

  For measurements. Functions under jit are traced anew. Cost: none. Raises ValueError for another name.
  """
  if name not in ("flash", "cudnn", "einsum"):
    raise ValueError(f'implementation must be "flash", "cudnn" or "einsum", got {name!r}')
  with _IMPLEMENTATION(name):
    yield


def _allowed(name):
  return _IMPLEMENTATION.value in (None, name)


def check_shapes(q_BTNK, k_BSNK, v_BSNH, bias=None, mask=None):
  """Raises ValueError naming the argument whose rank, heads, depth or length does not fit."""
  for name, x in (("q_BTNK", q_BTNK), ("k_BSNK", k_BSNK), ("v_BSNH", v_BSNH)):
    if x.ndim != 4:
      raise ValueError(f"{name} must have rank 4, got shape {x.shape}")
  B, T, N, K = q_BTNK.shape
  S = k_BSNK.shape[1]
  if k_BSNK.shape != (B, S, N, K):
    wanted = (B, "any", N, K)
    raise ValueError(f"k_BSNK has shape {k_BSNK.shape}, wanted {wanted} to match q_BTNK {q_BTNK.shape}")
  if v_BSNH.shape[:3] != (B, S, N):
    wanted = (B, S, N, "any")
    raise ValueError(f"v_BSNH has shape {v_BSNH.shape}, wanted {wanted} to match k_BSNK {k_BSNK.shape}")
  check_broadcast((B, N, T, S), bias=bias, mask=mask)


def check_broadcast(BNTS, *, bias=None, mask=None):
  """Raises ValueError unless bias and mask broadcast to the shape BNTS and mask is bool."""
  for name, x in (("bias", bias), ("mask", mask)):
    if x is not None and (x.ndim != 4 or any(a not in (1, b) for a, b in zip(x.shape, BNTS, strict=True))):
      raise ValueError(f"{name} has shape {x.shape}, wanted one that broadcasts to BNTS = {tuple(BNTS)}")
  if mask is not None and mask.dtype != jnp.bool_:
    raise ValueError(f"mask must be bool (True = may attend), got {mask.dtype}")


def dot_product(sizes):
  """For layers: the paper's. Of cross-attention it takes `memory_segments_BS` beside the queries' segments_BT."""

  def attend(p, q_BTNK, k_BSNK, v_BSNH, *, mask=None, segments_BT=None, memory_segments_BS=None, **options):
    plain = segments_BT is not None and not any(options.values())  # neither dropout nor weights to return
    if plain and _allowed("flash") and hardware.platform() == "gpu":
      from attention_zoo.ops.kernels import flash  # Pallas takes a while to import.

      if flash.supported(q_BTNK, k_BSNK, v_BSNH):
        keys = segments_BT if memory_segments_BS is None else memory_segments_BS
        segments = {"query_segments_BT": segments_BT, "key_segments_BS": keys}
        return flash.flash_attention(q_BTNK, k_BSNK, v_BSNH, **segments, causal=sizes.causal)
    return dot_product_attention(q_BTNK, k_BSNK, v_BSNH, mask=mask, **options)

  def step(p, q_BJTNK, k_BJTNK, v_BJTNH, t, cache, ancestry_BJZ):
    cache = cache_lib.write(cache, (k_BJTNK, v_BJTNH), t)
    mask = cache_lib.visible(ancestry_BJZ, t, q_BJTNK.shape[2])
    return beams_attention(q_BJTNK, *cache, mask), cache

  return Variant(attend, functools.partial(cache_lib.empty, sizes), step, weights=True)


VARIANTS = (dot_product,)
