"""Positional encodings that are added to the embeddings (Vaswani et al. 2017, section 3.5)."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np


def sinusoidal(positions, d_model):
  """PE(pos, 2i) = sin(pos / 10000^(2i/d_model)), PE(pos, 2i+1) = the cosine; float32 of shape positions + [d_model]."""
  if d_model % 2:
    raise ValueError(f"sinusoidal positions need an even d_model, got {d_model}")
  frequency = np.exp(-np.log(10000.0) * np.arange(0, d_model, 2) / d_model).astype(np.float32)
  angle = positions[..., None].astype(jnp.float32) * frequency.reshape((1,) * positions.ndim + (-1,))
  return jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1).reshape(*positions.shape, d_model)


class LearnedPositions(nn.Module):
  """A table of max_length embeddings (Gehring et al. 2017; Table 3, row E). `length` is the static bound of positions."""

  max_length: int
  d_model: int

  @nn.compact
  def __call__(self, positions, length):
    if length > self.max_length:
      raise ValueError(
        f"learned positions end at model.max_length = {self.max_length}, but the sequence may be {length} long: "
        "raise model.max_length before training, or shorten the input"
      )
    table = self.param("table", nn.initializers.normal(self.d_model**-0.5), (self.max_length, self.d_model))
    return jnp.take(table, positions, axis=0, mode="clip")
