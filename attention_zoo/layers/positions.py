"""Positional encodings, and how they meet the embeddings (Vaswani et al. 2017, section 3.5, and what came before).

Letters beside the house's: U width of an embedding and its encoding side by side.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from attention_zoo.layers.linear import Linear

KINDS = ("sinusoidal", "learned", "scalar", "none")
MODES = ("add", "add_every_layer", "concatenate")


def sinusoidal(positions, d_model):
  """PE(pos, 2i) = sin(pos / 10000^(2i/d_model)), PE(pos, 2i+1) = the cosine; float32 of shape positions + [d_model]."""
  if d_model % 2:
    raise ValueError(f"sinusoidal positions need an even d_model, got {d_model}")
  frequency = np.exp(-np.log(10000.0) * np.arange(0, d_model, 2) / d_model).astype(np.float32)
  angle = positions[..., None].astype(jnp.float32) * frequency.reshape((1,) * positions.ndim + (-1,))
  return jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1).reshape(*positions.shape, d_model)


class Positions(nn.Module):
  """Tells each token where it stands.

  kind: "sinusoidal" (the paper's), "learned" (Gehring et al. 2017; up to max_length), "scalar" (the position itself,
  a naive way to show what the others are for), "none" (for relative attention). mode: "add" to the embeddings,
  "add_every_layer" (timing signal: to the input of each layer again), "concatenate" (a linear map brings
  [x; encoding] back to d_model).
  """

  kind: str
  mode: str
  max_length: int
  d_model: int
  matmul_dtype: jnp.dtype | None = None
  deviation: float | None = None  # of a learned table's first values; d_model^-0.5 by default

  def setup(self):
    if self.kind == "learned":
      init = nn.initializers.normal(self.deviation or self.d_model**-0.5)
      self.table_TD = self.param("table_TD", init, (self.max_length, self.d_model))
    if self.mode == "concatenate" and self.kind != "none":
      width = self.d_model + (1 if self.kind == "scalar" else self.d_model)
      self.joined = Linear("BTU,UD->BTD", (width, self.d_model), matmul_dtype=self.matmul_dtype)

  def encoding(self, positions, length):
    """float32 [..., d_model], or [..., 1] of the scalar kind. length: static bound of the positions."""
    if self.kind == "learned":
      if length > self.max_length:
        raise ValueError(
          f"learned positions end at model.max_length = {self.max_length}, but the sequence may be {length} long: "
          "raise model.max_length before training, or shorten the input"
        )
      return jnp.take(self.table_TD, positions, axis=0, mode="clip")
    if self.kind == "sinusoidal":
      return sinusoidal(positions, self.d_model)
    return positions[..., None].astype(jnp.float32)

  def __call__(self, x, positions, length):
    if self.kind == "none":
      return x
    encoding = self.encoding(positions, length).astype(x.dtype)
    return self.joined(jnp.concatenate([x, encoding], -1)) if self.mode == "concatenate" else x + encoding

  def signal(self, positions, length, dtype):
    """What is added to the input of each later layer, or None."""
    if self.mode != "add_every_layer" or self.kind == "none":
      return None
    return self.encoding(positions, length).astype(dtype)
