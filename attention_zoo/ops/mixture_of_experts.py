"""Sparsely gated mixture of experts (Shazeer et al. 2017).

In the form that Mesh-TensorFlow and GShard gave it, products with dispatch and combine tensors, so that the
experts shard over devices with static shapes; and, for many experts, by looking tokens up (`looked_up_experts`) or by
asking all experts one after the other (`every_expert`).

Letters beside the house's: Q places in an expert's queue (its capacity). Each row of the batch is a group of
its own: its tokens have Q places at each expert, and compete for them with no other row's.
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


def looked_up_experts(x_BTD, gates_BTE, experts, *, k, capacity):
  """`mixture_of_experts` without its arrays of tokens by places: what sits in a place is looked up.

  k: the most gates of a token above 0. For many experts, in groups of many tokens. Cost, beside the experts': time and
  memory O(B T (E + k D) + B E Q D).
  """
  sizes = shapes.check(x_BTD=x_BTD, gates_BTE=gates_BTE)
  if capacity < 1:
    raise ValueError(f"capacity must be at least 1, got {capacity}")
  E, B, D = sizes["E"], sizes["B"], sizes["D"]
  place_BTE = jnp.cumsum(gates_BTE > 0, axis=1, dtype=jnp.int32) - 1

  def group(x_TD, gates_TE, place_TE):
    """(what sits in each place [E * capacity, D], its place for each choice of each token or none, their gates)."""
    gates, chosen = jax.lax.top_k(gates_TE, k)
    place = jnp.take_along_axis(place_TE, chosen, axis=-1)
    seated = (gates > 0) & (place < capacity)
    seat = jnp.where(seated, chosen * capacity + place, E * capacity)  # beyond the last: none
    T = len(x_TD)
    token = jnp.broadcast_to(jnp.arange(T)[:, None], seat.shape)
    sitting = jnp.full(E * capacity, T).at[seat].set(token, mode="drop")
    return x_TD.at[sitting].get(mode="fill", fill_value=0), seat, gates

  x, seat, gates = jax.vmap(group)(x_BTD, gates_BTE, place_BTE)
  y_EBQD = experts(jnp.moveaxis(x.reshape(B, E, capacity, D), 1, 0))
  y = jnp.moveaxis(y_EBQD, 0, 1).reshape(B, E * capacity, -1)

  def combined(y, seat, gates):
    found = y.at[seat].get(mode="fill", fill_value=0).astype(jnp.float32)
    return (found * gates[..., None]).sum(1)

  return jax.vmap(combined)(y, seat, gates).astype(x_BTD.dtype)


def every_expert(x_BTD, gates_BTE, in_EDF, out_EFD):
  """The mixture of `feed_forward_experts` where nobody goes without: all experts work on all tokens, one after the
  other. Cost: time O(B T E D F), memory O(B T F)."""
  shapes.check(x_BTD=x_BTD, gates_BTE=gates_BTE, in_EDF=in_EDF, out_EFD=out_EFD)

  def add(y_BTD, one):
    in_DF, out_FD, gate_BT = one
    hidden_BTF = jax.nn.relu(jnp.einsum("BTD,DF->BTF", x_BTD, in_DF))
    found_BTD = jnp.einsum("BTF,FD->BTD", hidden_BTF, out_FD, preferred_element_type=jnp.float32)
    return y_BTD + gate_BT[..., None] * found_BTD, None

  nothing_BTD = jnp.zeros(x_BTD.shape, jnp.float32)
  return jax.lax.scan(add, nothing_BTD, (in_EDF, out_EFD, jnp.moveaxis(gates_BTE, -1, 0)))[0]


def expert_use(gates_BTE, capacity=None):
  """(tokens of the expert that has most over the mean of all, share of a token's choices that found no place).

  capacity: places of an expert in each of the B groups; None: as many as are asked for. float32 scalars, 0 where there
  is no token. Cost: time O(B T E).
  """
  asked_BE = (gates_BTE > 0).sum(1).astype(jnp.float32)
  asked_E, all_asked = asked_BE.sum(0), jnp.maximum(asked_BE.sum(), 1)
  over = 0.0 if capacity is None else jnp.maximum(asked_BE - capacity, 0).sum()
  return asked_E.max() * len(asked_E) / all_asked, over / all_asked


def _squared_variation(amounts_BTE):
  total_E = amounts_BTE.astype(jnp.float32).sum((0, 1))
  # Without a token there is nothing to balance: 0 / eps.
  return total_E.var() / (jnp.square(total_E.mean()) + 1e-10)
