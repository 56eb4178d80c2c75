"""Sparsely gated mixture of experts in place of the feed-forward network (Shazeer et al. 2017).

Letters beside the house's: Q places in an expert's queue.
"""

import flax.linen as nn
import jax.numpy as jnp

from attention_zoo.ops import mixture_of_experts as ops


class MixtureOfExperts(nn.Module):
  """y = sum_e G_e(x) relu(x W_in,e) W_out,e over the k experts that noisy top-k gating chooses for each token.

  An expert has room for capacity_factor times its fair share of a row's tokens; who comes later goes without it, in
  training and in teacher forcing. Cached decoding sees one token at a time, which always has room: it equals teacher
  forcing where nobody was left out, as with capacity_factor = num_experts / k.

  The load-balancing loss (importance and load) is sown in the collection "losses". Noise is drawn from the stream
  "dropout" in training.
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
    capacity = ops.expert_capacity(x_BTD.shape[1], E, k=self.k, capacity_factor=self.capacity_factor)
    experts = lambda x_EBQD: ops.feed_forward_experts(x_EBQD.astype(dtype), in_EDF, out_EFD)
    return ops.mixture_of_experts(x_BTD, gates_BTE, experts, capacity=capacity)
