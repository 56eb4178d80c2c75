"""Holds arrays against the dimension letters that end their names."""

import jax.numpy as jnp


def check(**arrays):
  """Binds the letters at the end of each name to sizes, from left to right, and returns them as a dict.

  check(x_BTD=x, kernel_WDF=kernel) returns {"B": 2, "T": 7, "D": 4, "W": 3, "F": 8}. None is passed over.
  Raises ValueError naming the first array whose rank or size does not fit what was bound before it.
  """
  sizes = {}
  for name, array in arrays.items():
    if array is None:
      continue
    letters, shape = name.rsplit("_", 1)[1], jnp.shape(array)
    wanted = [sizes.get(letter, letter) for letter in letters]
    if len(shape) != len(letters) or any(sizes.get(a, b) != b for a, b in zip(letters, shape, strict=True)):
      raise ValueError(f"{name} has shape {shape}, wanted {letters} = ({', '.join(map(str, wanted))})")
    sizes.update(zip(letters, shape, strict=True))
  return sizes


def check_mask(**masks):
  """Raises ValueError naming the first mask that is not bool. None is passed over."""
  for name, mask in masks.items():
    if mask is not None and mask.dtype != jnp.bool_:
      raise ValueError(f"{name} must be bool, got {mask.dtype}")
