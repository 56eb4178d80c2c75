"""What a model says of pixels, whatever its head: likelihoods, and drawing images.

Letters beside the house's: P parameters of a pixel's distribution, or logits of a value.
"""

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.ops import dmol
from attention_zoo.protocols import PixelDecoding

HEADS = ("categorical", "dmol")
VALUES = 256


def log_likelihoods(head: str, outputs_BYXP, pixels_BYX3):
  """log P of each value in nats, float32 [B, Y, X, 3]; their sum is that of the image."""
  if head == "dmol":
    return dmol.log_likelihoods(outputs_BYXP, pixels_BYX3)
  logits = jax.nn.log_softmax(outputs_BYXP.reshape(*pixels_BYX3.shape, VALUES).astype(jnp.float32))
  return jnp.take_along_axis(logits, pixels_BYX3[..., None], -1)[..., 0]


def by_whole_passes(head: str, forward, size: int) -> PixelDecoding:
  """The decoding of a model that has none: row by row, each step a forward pass. forward: pixels_BYX3 -> outputs_BYXP.
  """
  count = size * size * (3 if head == "categorical" else 1)

  def step(pixels_BYX3, i, cache):
    outputs = forward(pixels_BYX3)
    outputs = outputs.reshape(outputs.shape[0], count, -1)
    return jax.lax.dynamic_index_in_dim(outputs, i, 1, keepdims=False), cache

  return PixelDecoding(np.arange(count, dtype=np.int32), step)


def draw(decoding: PixelDecoding, head: str, pixels_BYX3, known_BYX, seeds_B, temperature):
  """Images, int32 [B, Y, X, 3]: those given where they are known, and drawn elsewhere.

  Row b is drawn with seeds_B[b] alone. temperature: the logarithms of probabilities are divided by it; at 0 the most
  probable value, or the mean of the most probable component, is taken.
  """
  B, *shape = pixels_BYX3.shape
  order, keys_B = jnp.asarray(decoding.order), jax.vmap(jax.random.key)(seeds_B)
  width = 3 if head == "dmol" else 1  # values that a step draws
  known_BL = jnp.broadcast_to(known_BYX[..., None], pixels_BYX3.shape).reshape(B, -1)
  pixels_BL = jnp.where(known_BL, pixels_BYX3.reshape(B, -1), 0)

  def one(outputs_P, key):
    if head == "dmol":
      return dmol.sample(outputs_P, 3, key, temperature=temperature)
    # Where log p / t + gumbel has its maximum, log p + t gumbel has it.
    logits = jax.nn.log_softmax(outputs_P.astype(jnp.float32))
    return jnp.argmax(logits + temperature * jax.random.gumbel(key, logits.shape))[None].astype(jnp.int32)

  def body(i, state):
    pixels_BL, cache = state
    outputs_BP, cache = decoding.step(pixels_BL.reshape(B, *shape), i, cache)
    drawn = jax.vmap(one)(outputs_BP, jax.vmap(lambda key: jax.random.fold_in(key, i))(keys_B))
    at = order[i] * width
    old, known = (jax.lax.dynamic_slice_in_dim(x, at, width, 1) for x in (pixels_BL, known_BL))
    return jax.lax.dynamic_update_slice_in_dim(pixels_BL, jnp.where(known, old, drawn), at, 1), cache

  pixels_BL, _ = jax.lax.fori_loop(0, len(order), body, (pixels_BL, decoding.cache))
  return pixels_BL.reshape(B, *shape)
