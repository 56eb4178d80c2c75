"""Sparsely gated mixture of experts (Shazeer et al. 2017).

In the form that Mesh-TensorFlow and GShard gave it, products with dispatch and combine tensors, so that the
experts shard over devices with static shapes.

Letters beside the house's: Q places in an expert's queue (its capacity). Each row of the batch is a group of
its own: its tokens compete for B x Q places with nobody outside the row.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm

from attention_zoo.ops import shapes
from attention_zoo.ops.dot_product import masked_softmax

NOISE_FLOOR = 1e-2  # of the noise's deviation


def noisy_top_k_gates(x_BTD, gate_DE, noise_DE, *, k, rng=None, mask_BT=None):
  """Noisy top-k gating (Shazeer et al. 2017, eq. 3-5) and the smooth load (appendix A, eq. 8-9).

    H_e = (x W_g)_e + noise_e scale_e;  scale_e = softplus((x W_noise)_e) + 0.01
    G = softmax over the k largest H, exactly 0 elsewhere
    P_e = Phi(((x W_g)_e - k-th largest of the other H) / scale_e)

  x_BTD: tokens; gate_DE, noise_DE: W_g and W_noise (both start at 0 in the paper). rng: key of the noise;
  None, in evaluation, leaves it out. The 0.01 is not in the paper but in its code (tensor2tensor's
  noise_epsilon): without it the gradient of P is NaN where softplus underflows.
  mask_BT: bool, True = a real token; the others get no expert.

  Returns (gates_BTE, load_BTE), float32. load is P, the chance that a token goes to expert e if only the
  noise of e were drawn again, which has a gradient; without noise it is 1 for the chosen and 0 for the rest.
  Ties go to the expert of the lower number, so that there are never more than k. Raises ValueError for an
  argument that does not fit.

  Cost, with n tokens: time O(n D E), memory O(n E).
  """
  sizes = shapes.check(x_BTD=x_BTD, gate_DE=gate_DE, noise_DE=noise_DE, mask_BT=mask_BT)
  shapes.check_mask(mask_BT=mask_BT)
  E = sizes["E"]
  if not 1 <= k <= E:
    raise ValueError(f"k must be between 1 and E = {E} (gate_DE has shape {gate_DE.shape}), got {k}")
  clean_BTE = scores_BTE = jnp.einsum("BTD,DE->BTE", x_BTD, gate_DE, preferred_element_type=jnp.float32)
  if rng is not None:
    noise_BTE = jnp.einsum("BTD,DE->BTE", x_BTD, noise_DE, preferred_element_type=jnp.float32)
    scale_BTE = jax.nn.softplus(noise_BTE) + NOISE_FLOOR
    scores_BTE = clean_BTE + scale_BTE * jax.random.normal(rng, clean_BTE.shape)

  largest, experts = jax.lax.top_k(scores_BTE, min(k + 1, E))
  chosen_BTE = jax.nn.one_hot(experts[..., :k], E, dtype=bool).any(-2)
  if mask_BT is not None:
    chosen_BTE &= mask_BT[:, :, None]
  gates_BTE = masked_softmax(scores_BTE, chosen_BTE)
  if rng is None or k == E:
    return gates_BTE, chosen_BTE.astype(jnp.float32)
  rival_BTE = jnp.where(chosen_BTE, largest[..., k : k + 1], largest[..., k - 1 : k])
  load_BTE = norm.cdf((clean_BTE - rival_BTE) / scale_BTE)
  return gates_BTE, load_BTE if mask_BT is None else jnp.where(mask_BT[:, :, None], load_BTE, 0.0)


def load_balancing_loss(gates_BTE, load_BTE, *, importance_weight=0.1, load_weight=0.1):
  """w_importance CV(sum of gates)^2 + w_load CV(sum of load)^2 (Shazeer et al. 2017, eq. 6, 7 and 11).

  CV: the coefficient of variation over the experts of the sum over all tokens. The default weights are the
  paper's for language modelling. Returns a float32 scalar, 0 where all experts are used alike. Raises
  ValueError for an argument that does not fit. Cost: time O(n E), memory O(E).
  """
  shapes.check(gates_BTE=gates_BTE, load_BTE=load_BTE)
  return importance_weight * _squared_variation(gates_BTE) + load_weight * _squared_variation(load_BTE)


def expert_capacity(num_tokens, num_experts, *, k, capacity_factor):
  """Places an expert needs to serve capacity_factor times its fair share of num_tokens, at least 1. Cost: none."""
  return max(1, math.ceil(num_tokens * k / num_experts * capacity_factor))


def dispatch_and_combine(gates_BTE, capacity):
  """Who sits where: places in the queues of the experts, first come first served.

  A token takes a place in the queue of each expert whose gate is above 0, behind the tokens before it in its
  row; where the queue is full it goes without that expert. Its places do not depend on later tokens, so that
  a causal model stays causal.

  Returns (dispatch_BTEQ in 0 and 1, combine_BTEQ = gate where dispatched), float32. Raises ValueError for an
  argument that does not fit. Cost, with Q = capacity: time and memory O(B T E Q).
  """
  shapes.check(gates_BTE=gates_BTE)
  if capacity < 1:
    raise ValueError(f"capacity must be at least 1, got {capacity}")
  chosen_BTE = gates_BTE > 0
  place_BTE = jnp.where(chosen_BTE, jnp.cumsum(chosen_BTE, axis=1, dtype=jnp.int32) - 1, capacity)
  # one_hot leaves a row of zeros where the place is beyond the last.
  dispatch_BTEQ = jax.nn.one_hot(place_BTE, capacity, dtype=jnp.float32)
  return dispatch_BTEQ, dispatch_BTEQ * gates_BTE[..., None]


def feed_forward_experts(x_EBQD, in_EDF, out_EFD):
  """relu(x W_in) W_out, each expert with its own matrices (Shazeer et al. 2017, section 3.2).

  Cost: time O(E B Q D F), memory O(E B Q F).
  """
  shapes.check(x_EBQD=x_EBQD, in_EDF=in_EDF, out_EFD=out_EFD)
  hidden_EBQF = jax.nn.relu(jnp.einsum("EBQD,EDF->EBQF", x_EBQD, in_EDF))
  return jnp.einsum("EBQF,EFD->EBQD", hidden_EBQF, out_EFD)


def mixture_of_experts(x_BTD, gates_BTE, experts, *, capacity):
  """y = sum_e G_e(x) Expert_e(x) over the experts with a place for the token (Shazeer et al. 2017, eq. 1).

  x_BTD: tokens; gates_BTE: from `noisy_top_k_gates`; experts: maps x_EBQD to y_EBQD, expert by expert, such
  as `feed_forward_experts` with its matrices bound. A token that no expert had a place for gets zeros.
  Returns BTD in the dtype of x. Raises ValueError for an argument that does not fit.

  Cost: the experts', on E B Q tokens whatever the gates, and for dispatching time O(B T E Q D), memory
  O(B T E Q): with Q proportional to T / E that is quadratic in T, linear in the number of rows B.
  """
  shapes.check(x_BTD=x_BTD, gates_BTE=gates_BTE)
  dispatch_BTEQ, combine_BTEQ = dispatch_and_combine(gates_BTE, capacity)
  x_EBQD = jnp.einsum("BTEQ,BTD->EBQD", dispatch_BTEQ.astype(x_BTD.dtype), x_BTD)
  y_EBQD = experts(x_EBQD)
  y_BTD = jnp.einsum("BTEQ,EBQD->BTD", combine_BTEQ, y_EBQD, preferred_element_type=jnp.float32)
  return y_BTD.astype(x_BTD.dtype)


def _squared_variation(amounts_BTE):
  total_E = amounts_BTE.astype(jnp.float32).sum((0, 1))
  # Without a token there is nothing to balance: 0 / eps.
  return total_E.var() / (jnp.square(total_E.mean()) + 1e-10)
