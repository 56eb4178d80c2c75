"""Sparsely gated mixture of experts in place of the feed-forward network (Shazeer et al. 2017).

Letters beside the house's: Q places in an expert's queue.
"""

import math

import flax.linen as nn
import jax.numpy as jnp

from attention_zoo.ops import mixture_of_experts as ops


class MixtureOfExperts(nn.Module):
  """y = sum_e G_e(x) relu(x W_in,e) W_out,e over the k experts that noisy top-k gating chooses for each token.

  An expert has room for capacity_factor times its fair share of a row's tokens; who comes later goes without it, in
  training and in teacher forcing. Cached decoding sees one token at a time, which always has room: it equals teacher
  forcing where nobody was left out, as with capacity_factor = num_experts / k.

  The load-balancing loss (importance and load) is sown in the collection "losses", and how the experts are used in
  "figures". Both are of all tokens of the batch. Noise is drawn from the stream "dropout" in training.
  """

  d_ff: int
  num_experts: int
  k: int = 2
  capacity_factor: float = 1.25
  balance: float = 0.1  # weight of both balancing losses, the paper's for language modelling
  matmul_dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x_BTD, segments_BT=None, *, train=False):
    """segments_BT: 0 is padding, which goes to no expert. Returns BTD; a token no expert had room for gets zeros."""
    D, E, F = x_BTD.shape[-1], self.num_experts, self.d_ff
    gate_DE = self.param("gate_DE", nn.initializers.zeros, (D, E))
    noise_DE = self.param("noise_DE", nn.initializers.zeros, (D, E))
    # Each expert is drawn as a feed-forward network of its own.
    glorot = nn.initializers.glorot_uniform(batch_axis=0)
    dtype = self.matmul_dtype or x_BTD.dtype
    in_EDF = self.param("experts_in_EDF", glorot, (E, D, F)).astype(dtype)
    out_EFD = self.param("experts_out_EFD", glorot, (E, F, D)).astype(dtype)
    gates_BTE, load_BTE = ops.noisy_top_k_gates(
      x_BTD.astype(jnp.float32), gate_DE, noise_DE, k=self.k,
      rng=self.make_rng("dropout") if train else None,
      mask_BT=None if segments_BT is None else segments_BT > 0,
    )  # fmt: skip
    self.sow(
      "losses",
      "balance",
      ops.load_balancing_loss(gates_BTE, load_BTE, importance_weight=self.balance, load_weight=self.balance),
    )
    y_BTD, (load, dropped) = self.mix(x_BTD, gates_BTE, in_EDF, out_EFD, train)
    self.sow("figures", "expert_load", load)
    self.sow("figures", "expert_dropped", dropped)
    return y_BTD

  def mix(self, x_BTD, gates_BTE, in_EDF, out_EFD, train):
    """(BTD, `ops.expert_use`); the experts' matrices have the dtype that they multiply in."""
    capacity = ops.expert_capacity(x_BTD.shape[1], self.num_experts, k=self.k, capacity_factor=self.capacity_factor)
    experts = lambda x_EBQD: ops.feed_forward_experts(x_EBQD.astype(in_EDF.dtype), in_EDF, out_EFD)
    return ops.mixture_of_experts(x_BTD, gates_BTE, experts, capacity=capacity), ops.expert_use(gates_BTE, capacity)


class ManyExperts(MixtureOfExperts):
  """The same for many experts: in training `group_rows` rows share the places of an expert (the greatest number that
  divides both them and the rows of the batch). In evaluation nobody goes without an expert, so that a sentence does not
  depend on others, and cached decoding equals teacher forcing; that costs the work of all experts on all tokens."""

  group_rows: int = 1

  def mix(self, x_BTD, gates_BTE, in_EDF, out_EFD, train):
    if not train:
      y_BTD = ops.every_expert(x_BTD.astype(in_EDF.dtype), gates_BTE, in_EDF, out_EFD)
      return y_BTD.astype(x_BTD.dtype), ops.expert_use(gates_BTE)
    B, T, _ = x_BTD.shape
    rows = math.gcd(B, self.group_rows)
    grouped = lambda x: x.reshape(B // rows, rows * T, x.shape[-1])
    capacity = ops.expert_capacity(rows * T, self.num_experts, k=self.k, capacity_factor=self.capacity_factor)
    experts = lambda x_EBQD: ops.feed_forward_experts(x_EBQD.astype(in_EDF.dtype), in_EDF, out_EFD)
    y_BTD = ops.looked_up_experts(grouped(x_BTD), grouped(gates_BTE), experts, k=self.k, capacity=capacity)
    return y_BTD.reshape(x_BTD.shape), ops.expert_use(grouped(gates_BTE), capacity)
