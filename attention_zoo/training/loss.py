"""Label-smoothed cross-entropy, from logits or fused with the output projection.

With label smoothing eps (Szegedy et al. 2016, in the form of Tensor2Tensor) the target distribution q has
1 - eps on the target and eps / (V - 1) on each other entry. The loss is its cross-entropy with softmax(z),

  loss = lse(z) - sum_v q_v z_v = lse(z) - (1 - eps - o) z_target - o sum_v z_v,     o = eps / (V - 1),

so uniform logits cost log V whatever eps is. Tensor2Tensor prints this less the entropy of q, a constant: the
gradient is the same. nll is the loss at eps = 0; its exponential is the perplexity that papers print.

Letters beyond the house's: M = positions of all sentences, in one row.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from attention_zoo import hardware
from attention_zoo.training.sharding import BATCH_AXES

# Rows of logits at a time. On two CPU cores 512 was fastest at V = 8,000 (256 to 2,048 hardly differ). For an
# accelerator 4,096 is an estimate, not measured: each chunk reads and writes embedding's gradient once, which
# that many rows make small beside the matrix products.
CHUNK_CPU, CHUNK = 512, 4096


def _entropies(logits_MV, sum_M, targets_M, label_smoothing, max_and_lse):
  """(loss_M, nll_M, correct_M, lse_M) of float32 logits and their sums. correct: no entry is above the target's."""
  off = label_smoothing / (logits_MV.shape[-1] - 1)
  max_M, lse_M = max_and_lse(logits_MV)
  target_M = jnp.take_along_axis(logits_MV, targets_M[..., None], axis=-1)[..., 0]
  loss_M = lse_M - (1 - label_smoothing - off) * target_M - off * sum_M
  return loss_M, lse_M - target_M, (target_M >= max_M).astype(jnp.float32), lse_M


def _max_and_lse(logits_MV):
  """(largest entry, log of the sum of exponentials) of each row."""
  max_M = jnp.max(logits_MV, axis=-1)
  return max_M, max_M + jnp.log(jnp.sum(jnp.exp(logits_MV - max_M[..., None]), axis=-1))


def _max_and_lse_at_once(logits_MV):
  """`_max_and_lse` that reads the logits once and not twice; without a gradient.

  For GPUs, where a pass over the logits takes two thirds as long as the product that made them
  (V = 37,000, D = 512 on an H100). A CPU does not vectorise it.
  """

  def add(one, other):
    (max_1, sum_1), (max_2, sum_2) = one, other
    largest = jnp.maximum(max_1, max_2)
    return largest, sum_1 * jnp.exp(max_1 - largest) + sum_2 * jnp.exp(max_2 - largest)

  nothing = jnp.finfo(jnp.float32).min, jnp.float32(0)
  each = logits_MV, jnp.ones_like(logits_MV)
  max_M, sum_M = jax.lax.reduce(each, tuple(map(jnp.float32, nothing)), add, (logits_MV.ndim - 1,))
  return max_M, max_M + jnp.log(sum_M)


def smoothed_cross_entropy(logits, targets, weights, label_smoothing=0.0):
  """(loss_sum, nll_sum, correct_sum), float32 scalars, weighted sums over all positions.

  logits [..., V]; targets [...] int; weights [...]: 0 leaves a position out, whatever its target is.
  """
  weights = weights.astype(jnp.float32)
  logits = logits.astype(jnp.float32)
  loss, nll, correct, _ = _entropies(logits, jnp.sum(logits, axis=-1), targets, label_smoothing, _max_and_lse)
  return jnp.sum(loss * weights), jnp.sum(nll * weights), jnp.sum(correct * weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def linear_cross_entropy(hidden_MD, embedding_VD, targets_M, weights_M, label_smoothing=0.0, chunk=None):
  """`smoothed_cross_entropy` of the logits hidden_MD @ embedding_VD.T, which never exist all at once.

  Rows are taken `chunk` at a time. When it is differentiated, the gradient of a chunk is computed right after
  its logits, in the forward pass: three matrix products in all, as many as with stored logits, and chunk x V
  numbers instead of M x V. Products take operands of hidden's dtype and accumulate in float32; sums are
  float32. hidden's gradient has hidden's dtype, embedding's is summed in float32. Only loss_sum has a
  gradient: nll_sum and correct_sum are for show. Where a mesh is set (`jax.set_mesh`), each device takes its
  own rows, and one all-reduce ends it.

  hidden_MD [..., D], targets_M and weights_M [...]: on a mesh their first dimension must be divisible by the
  number of devices that share the batch. chunk: rows of one device; None: what suits it.
  """
  return _on_own_rows(hidden_MD, embedding_VD, targets_M, weights_M, label_smoothing, chunk, gradient=False)[
    0
  ]


def _forward(hidden_MD, embedding_VD, targets_M, weights_M, label_smoothing, chunk):
  sums, hidden_gradient_MD, embedding_gradient_VD = _on_own_rows(
    hidden_MD, embedding_VD, targets_M, weights_M, label_smoothing, chunk, gradient=True
  )
  return sums, (hidden_gradient_MD, embedding_gradient_VD.astype(embedding_VD.dtype))


def _backward(label_smoothing, chunk, gradients, cotangents):
  hidden_gradient_MD, embedding_gradient_VD = gradients
  scale = cotangents[0]
  return (
    (hidden_gradient_MD * scale).astype(hidden_gradient_MD.dtype),
    (embedding_gradient_VD * scale).astype(embedding_gradient_VD.dtype),
    None,
    None,
  )


linear_cross_entropy.defvjp(_forward, _backward)


def _on_own_rows(hidden_MD, embedding_VD, targets_M, weights_M, label_smoothing, chunk, gradient):
  """Runs `_chunks` on each device's part of the batch and adds up what belongs to all."""
  mesh = jax.sharding.get_abstract_mesh()
  axes = tuple(axis for axis in BATCH_AXES if mesh.shape.get(axis, 1) > 1 and axis not in mesh.manual_axes)

  def run(hidden, embedding, targets, weights):
    leading, D = targets.shape, hidden.shape[-1]
    sums, hidden_gradient, embedding_gradient = _chunks(
      hidden.reshape(-1, D), embedding, targets.ravel(), weights.ravel(), label_smoothing, chunk, gradient
    )
    if axes:
      sums, embedding_gradient = jax.lax.psum((sums, embedding_gradient), axes)
    return sums, hidden_gradient.reshape(*leading, D) if gradient else None, embedding_gradient

  if axes:
    rows, whole = PartitionSpec(axes), PartitionSpec()
    run = jax.shard_map(
      run,
      in_specs=(rows, whole, rows, rows),
      out_specs=(whole, rows, whole),
      axis_names=set(axes),
      check_vma=False,
    )
  return run(hidden_MD, embedding_VD, targets_M, weights_M)


def _chunks(hidden_MD, embedding_VD, targets_M, weights_M, label_smoothing, chunk, gradient):
  """(sums, hidden gradient or None, float32 embedding gradient or None), chunk by chunk of the rows."""
  M, D = hidden_MD.shape
  V = embedding_VD.shape[0]
  operand_VD = embedding_VD.astype(hidden_MD.dtype)
  max_and_lse = _max_and_lse_at_once if hardware.platform() == "gpu" else _max_and_lse
  sum_D = jnp.sum(operand_VD, axis=0, dtype=jnp.float32)  # times hidden: the sum of the logits, without reading them

  def one_chunk(carry, rows):
    sums, embedding_gradient_VD = carry
    hidden_MD, targets_M, weights_M = rows
    logits_MV = jnp.einsum("MD,VD->MV", hidden_MD, operand_VD, preferred_element_type=jnp.float32)
    sum_M = jnp.sum(hidden_MD.astype(jnp.float32) * sum_D[None], axis=-1)
    loss_M, nll_M, correct_M, lse_M = _entropies(logits_MV, sum_M, targets_M, label_smoothing, max_and_lse)
    sums = tuple(
      total + jnp.sum(x_M * weights_M) for total, x_M in zip(sums, (loss_M, nll_M, correct_M), strict=True)
    )
    if not gradient:
      return (sums, None), None
    off = label_smoothing / (V - 1)
    hit_MV = jnp.arange(V)[None, :] == targets_M[:, None]
    slope_MV = jnp.exp(logits_MV - lse_M[:, None]) - jnp.where(hit_MV, 1 - label_smoothing, off)
    slope_MV = (slope_MV * weights_M[:, None]).astype(hidden_MD.dtype)
    # A bfloat16 product with a float32 result is the one that CPUs have in hardware; it is rounded once.
    hidden_gradient_MD = jnp.einsum("MV,VD->MD", slope_MV, operand_VD, preferred_element_type=jnp.float32)
    hidden_gradient_MD = hidden_gradient_MD.astype(hidden_MD.dtype)
    embedding_gradient_VD += jnp.einsum("MV,MD->VD", slope_MV, hidden_MD, preferred_element_type=jnp.float32)
    return (sums, embedding_gradient_VD), hidden_gradient_MD

  chunk = chunk or (CHUNK_CPU if hardware.platform() == "cpu" else CHUNK)
  chunks = -(-M // chunk)
  size = -(-M // chunks)
  carry = ((jnp.float32(0),) * 3, jnp.zeros((V, D), jnp.float32) if gradient else None)
  rows = (hidden_MD, targets_M, weights_M.astype(jnp.float32))
  if chunks == 1:
    (sums, embedding_gradient_VD), hidden_gradient_MD = one_chunk(carry, rows)
    return sums, hidden_gradient_MD, embedding_gradient_VD
  # The last chunk is filled up with rows of weight 0.
  rows = tuple(
    jnp.pad(x, ((0, chunks * size - M),) + ((0, 0),) * (x.ndim - 1)).reshape(chunks, size, *x.shape[1:])
    for x in rows
  )
  (sums, embedding_gradient_VD), hidden_gradient = jax.lax.scan(one_chunk, carry, rows)
  hidden_gradient_MD = hidden_gradient.reshape(-1, D)[:M] if gradient else None
  return sums, hidden_gradient_MD, embedding_gradient_VD
