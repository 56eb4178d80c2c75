"""Dropout (Srivastava et al. 2014) that spends half the random bits, of single values or of whole rows."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def dropout(x, rate, rng):
  """Zeroes each element with probability `rate` (to 1/65,536) and scales the others by 1 / (1 - rate).

  A 32-bit draw decides two elements: random bits are most of what dropout costs on a CPU.
  """
  threshold = round(rate * 2**16)
  if threshold == 2**16:
    return jnp.zeros_like(x)
  bits = jax.random.bits(rng, (*x.shape[:-1], -(-x.shape[-1] // 2)), jnp.uint32)
  halves = jax.lax.bitcast_convert_type(bits, jnp.uint16).reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]
  return jnp.where(halves >= threshold, x * (2**16 / (2**16 - threshold)), 0).astype(x.dtype)


class Dropout(nn.Module):
  """Dropout of rate `rate` with the "dropout" stream when `train`, the identity otherwise."""

  rate: float

  def __call__(self, x, train):
    if not train or self.rate == 0:
      return x
    return dropout(x, self.rate, self.make_rng("dropout"))


class LockedDropout(nn.Module):
  """Dropout by one mask for all positions of a row (Gal and Ghahramani 2016)."""

  rate: float

  def __call__(self, x_BTD, train):
    if not train or self.rate == 0:
      return x_BTD
    B, _, D = x_BTD.shape
    return x_BTD * dropout(jnp.ones((B, 1, D), x_BTD.dtype), self.rate, self.make_rng("dropout"))
