"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957): a matrix divided by its largest singular value.

Letters beside the house's: U all inputs of a kernel in one dimension, F its outputs.
"""

import jax
import jax.numpy as jnp


def spectral_norm(kernel_UF, u_F, *, steps=1):
  """(kernel_UF / sigma, u_F after the steps), sigma estimated by power iteration (algorithm 1).

    v = W u / |W u|;  u' = W^T v / |W^T v|;  sigma = v^T W u'

  u_F: what the iteration has found so far, kept from step to step of training; v and u have no gradient, as in the
  paper. Cost: time O(steps U F).
  """
  kernel = jax.lax.stop_gradient(kernel_UF.astype(jnp.float32))
  u_F = jax.lax.stop_gradient(u_F)
  for _ in range(steps):
    v_U = _unit(kernel @ u_F)
    u_F = _unit(v_U @ kernel)
  sigma = v_U @ kernel_UF.astype(jnp.float32) @ u_F
  return kernel_UF / jnp.maximum(sigma, 1e-12), u_F


def _unit(x):
  return x * jax.lax.rsqrt(jnp.square(x).sum() + 1e-12)
