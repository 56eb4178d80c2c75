"""Keys and values of cached decoding, and which of them belong to which hypothesis.

A layer's cache holds what the beams have written, where they wrote it: k_BNSK and v_BNSH with S = Z I in one axis, the
entry of beam i and position z at z I + i. Heads come first so that no step transposes them. ancestry_BJZ[b, j, z] says
whose entry of position z belongs to hypothesis j (-1: none yet). Choosing beams permutes that small array, which all
layers share, and never the keys and values.

A step may go back to an earlier position: it overwrites what stands there, and what stands behind it is not seen.

Letters beside the house's: I beam slots of a cache (the slot an entry was written by, as J is the beam that reads it).
Cost of each function: time and memory of what it returns, unless it says more.
"""

import jax
import jax.numpy as jnp

from attention_zoo.errors import UserError

# All layers of a model


def start(variants, batch, beams, length, dtype):
  """An empty cache with room for `length` positions: {"layers": one of each variant, "ancestry_BJZ"}.

  variants: the attention of each layer. Raises UserError naming one that cannot decode.
  """
  for variant in variants:
    if variant.step is None:
      raise UserError(
        f"the attention {variant.name!r} has no step: it cannot decode position by position; choose another, "
        "or give its Variant a step"
      )
  return {
    "layers": [variant.init_cache(batch, beams, length, dtype) for variant in variants],
    "ancestry_BJZ": jnp.full((batch, beams, length), -1, jnp.int32),
  }


def extend(ancestry_BJZ, t, T):
  """The ancestry after every beam has written the positions t .. t + T - 1."""
  B, J = ancestry_BJZ.shape[:2]
  written_BJT = jnp.broadcast_to(jnp.arange(J, dtype=jnp.int32)[None, :, None], (B, J, T))
  return jax.lax.dynamic_update_slice_in_dim(ancestry_BJZ, written_BJT, t, 2)


def reorder(variants, cache, parents_BJ):
  """Hypothesis j goes on from hypothesis parents_BJ[:, j]."""
  # vmap: each row is indexed on the device that holds it.
  ancestry_BJZ = jax.vmap(lambda row_JZ, parents_J: row_JZ[parents_J])(cache["ancestry_BJZ"], parents_BJ)
  layers = [
    variant.reorder(layer, parents_BJ) if variant.reorder else layer
    for variant, layer in zip(variants, cache["layers"], strict=True)
  ]
  return {"layers": layers, "ancestry_BJZ": ancestry_BJZ}


def grow(variants, cache, length):
  """Room for `length` positions, at least as many as there were."""
  B, J, _ = cache["ancestry_BJZ"].shape
  longer = start(variants, B, J, length, jnp.float32)

  def into(old, new):
    return jax.lax.dynamic_update_slice(new.astype(old.dtype), old, (0,) * old.ndim)

  return jax.tree.map(into, cache, longer)


# One layer, for steps


def empty(sizes, batch, beams, length, dtype):
  """(k_BNSK, v_BNSH) with room for `length` positions; with its sizes bound the `init_cache` of most variants."""
  shape = batch, sizes.num_heads, length * beams
  return jnp.zeros((*shape, sizes.d_k), dtype), jnp.zeros((*shape, sizes.d_v), dtype)


def write(cache, new, t):
  """(k_BNSK, v_BNSH) with (k_BJTNK, v_BJTNH) at the positions t .. t + T - 1. Cost: that of what is written."""

  def into(x_BNSK, new_BJTNK):
    B, J, T, N, K = new_BJTNK.shape
    new_BNSK = new_BJTNK.transpose(0, 3, 2, 1, 4).reshape(B, N, T * J, K).astype(x_BNSK.dtype)
    # Not reshaped between update and use: XLA would copy the cache instead of writing into it.
    return jax.lax.dynamic_update_slice_in_dim(x_BNSK, new_BNSK, t * J, 2)

  return tuple(into(*pair) for pair in zip(cache, new, strict=True))


def visible(ancestry_BJZ, t, T, last_Z=None):
  """Which entries the queries at t .. t + T - 1 see: those of their own hypothesis, none later than they are.

  last_Z: the last position that an entry has read; the entry's own, if None. Returns [B, 1, J, T, S].
  """
  B, J, Z = ancestry_BJZ.shape
  last_Z = jnp.arange(Z) if last_Z is None else last_Z
  mine_BJZI = ancestry_BJZ[..., None] == jnp.arange(J)[None, None, None]
  past_TZ = last_Z[None] <= t + jnp.arange(T)[:, None]
  return (mine_BJZI[:, None, :, None] & past_TZ[None, None, None, :, :, None]).reshape(B, 1, J, T, Z * J)


def own(x_BNSK, ancestry_BJZ, positions_T):
  """What each hypothesis has at these positions, in a row of its own: [B J, T, N, K].
  Where nothing is yet: anything."""
  B, J, Z = ancestry_BJZ.shape
  positions_T = jnp.clip(positions_T, 0, Z - 1)
  slots_BJT = positions_T[None, None] * J + jnp.maximum(ancestry_BJZ[:, :, positions_T], 0)
  own_BJTNK = jax.vmap(lambda x_NSK, slots_JT: jnp.moveaxis(x_NSK[:, slots_JT], 0, 2))(x_BNSK, slots_BJT)
  return own_BJTNK.reshape(B * J, *own_BJTNK.shape[2:])
