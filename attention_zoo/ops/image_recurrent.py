"""The two recurrences of PixelRNN over images: Row LSTM and Diagonal LSTM (van den Oord et al. 2016a, section 3).

Letters beside the house's: F hidden units, A = 4F gates side by side (`ops/recurrent.py`), U the hidden states that a
step reads, side by side. Cost of skewing: O((Y + X) Y D).
"""

import jax.numpy as jnp

from attention_zoo.ops import recurrent, shapes


def row_lstm(projected_BYXA, recurrent_UA):
  """A row at a time, from the top: gates are projected plus a convolution of the row before of odd width (eq. 3).

    i, f, g, o = projected_y + sum_w h_{y-1, x + w - width // 2} U_w

  projected_BYXA: what the inputs add to the gates, in the order i, f, g, o. recurrent_UA: the taps U_w, from the left,
  U = width F. Returns h, float32 BYXF. Raises ValueError for shapes that do not fit.

  Cost: Y steps one after the other, time O(Y X F U).
  """
  sizes = shapes.check(projected_BYXA=projected_BYXA, recurrent_UA=recurrent_UA)
  F = sizes["A"] // 4
  width = sizes["U"] // max(F, 1)
  if sizes["A"] % 4 or not F or sizes["U"] != width * F or width % 2 == 0:
    raise ValueError(f"recurrent_UA has shape {recurrent_UA.shape}, wanted UA = (odd width * F, 4 F)")

  def taps(h_BXF):
    padded_BXF = jnp.pad(h_BXF, ((0, 0), (width // 2, width // 2), (0, 0)))
    return jnp.concatenate([padded_BXF[:, w : w + sizes["X"]] for w in range(width)], -1)

  return _over(projected_BYXA.swapaxes(0, 1), recurrent_UA, taps).swapaxes(0, 1)


def diagonal_lstm(projected_BYXA, recurrent_UA):
  """A diagonal at a time, from the upper left corner: a pixel reads the states above and left of it (section 3.3).

    i, f, g, o = projected_yx + h_{y-1, x} U_above + h_{y, x-1} U_left;  c_{y, x-1} is the cell before

  recurrent_UA: U_above over U_left, U = 2F. States outside of the image are 0. Arguments and errors as in `row_lstm`;
  returns float32 BYXF. The image is skewed, so that a diagonal is a column.

  Cost: Y + X - 1 steps one after the other, time O((Y + X) Y F U), about twice of what the pixels need.
  """
  sizes = shapes.check(projected_BYXA=projected_BYXA, recurrent_UA=recurrent_UA)
  F = sizes["A"] // 4
  if sizes["A"] % 4 or sizes["U"] != 2 * F:
    raise ValueError(f"recurrent_UA has shape {recurrent_UA.shape}, wanted UA = (2 F, 4 F)")

  def taps(h_BYF):
    above_BYF = jnp.pad(h_BYF, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    return jnp.concatenate([above_BYF, h_BYF], -1)

  X = sizes["X"]
  real_BYX = skew(jnp.ones((1, *projected_BYXA.shape[1:3], 1), bool))[..., 0]
  skewed_BYXA = skew(projected_BYXA)
  h = _over(skewed_BYXA.transpose(2, 0, 1, 3), recurrent_UA, taps, real_BYX.transpose(2, 0, 1)[..., None])
  return unskew(h.transpose(1, 2, 0, 3), X)


def skew(x_BYXD):
  """Each row one column further to the right than the row above, zeros elsewhere: [B, Y, X + Y - 1, D]."""
  B, Y, X, D = x_BYXD.shape
  # Rows of X + Y, one longer than wanted: read as rows of X + Y - 1, each begins one place later.
  flat = jnp.pad(x_BYXD, ((0, 0), (0, 0), (0, Y), (0, 0))).reshape(B, Y * (X + Y), D)
  return flat[:, : Y * (X + Y - 1)].reshape(B, Y, X + Y - 1, D)


def unskew(x_BYXD, width):
  """The image of `width` columns that was skewed."""
  B, Y, X, D = x_BYXD.shape
  flat = jnp.pad(x_BYXD.reshape(B, Y * X, D), ((0, 0), (0, Y), (0, 0)))
  return flat.reshape(B, Y, X + 1, D)[:, :, :width]


def _over(projected, recurrent_UA, taps, real=None):
  """An LSTM over the first dimension of projected [T, B, places, A], each of whose steps reads taps(h)."""
  B, places, F = *projected.shape[1:3], projected.shape[3] // 4

  def step(multiply, state, real, _):
    state = recurrent.CELLS["lstm"].step(lambda name, h: multiply(name, taps(h)), state)
    if real is not None:
      state = tuple(jnp.where(real, part, 0) for part in state)
    return state, state[0]

  start = (jnp.zeros((B, places, F), jnp.float32),) * 2
  added = {"recurrent": projected.astype(jnp.float32)}
  return recurrent.scan(step, {"recurrent": recurrent_UA}, added, start, real)[1]
