"""2-D convolutions that see the past of raster order alone: masked (PixelRNN, PixelCNN) and shifted (PixelCNN++).

Raster order goes row by row from the top, each row from the left. The features of a pixel may be divided into groups,
one for each colour, of nearly equal size and in order: then the values of a pixel follow each other, too.

Letters beside the house's: Y, X of a kernel: its rows and columns; F output channels. Cost of a mask: O(Y X D F).
"""

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.ops import shapes

KINDS = ("A", "B")


def channel_mask(kind: str, D: int, F: int, groups: int, blocks: int = 1) -> np.ndarray:
  """Which features of a pixel may see which of the same pixel, bool [D, F] (van den Oord et al. 2016a, section 3.4).

  Mask A: output group g sees the input groups before g; mask B: and g itself. With one group A sees nothing. blocks:
  the outputs are so many parts side by side, as gates are, each with all groups. Raises ValueError for a kind that
  there is not, and for fewer features than groups.
  """
  if kind not in KINDS:
    raise ValueError(f"the kind of a mask must be one of {KINDS}, got {kind!r}")
  if blocks < 1 or F % blocks or groups < 1 or min(D, F // blocks) < groups:
    raise ValueError(f"{D} and {F} features cannot be divided into {groups} groups in {blocks} blocks")
  source, target = (np.arange(width) * groups // width for width in (D, F // blocks))
  before = np.less if kind == "A" else np.less_equal
  return np.tile(before(source[:, None], target[None]), blocks)


def raster_mask(kind: str, kernel_shape, groups: int = 1, blocks: int = 1) -> np.ndarray:
  """Which entries of a kernel YXDF that is centred on a pixel see no later one: the rows above, what is left of it
  in its own row, and of the pixel itself what `channel_mask` says. bool [Y, X, D, F]. Y and X must be odd."""
  Y, X, D, F = kernel_shape
  if Y % 2 == 0 or X % 2 == 0:
    raise ValueError(f"a kernel that is centred on a pixel has odd sizes, got {Y} x {X}")
  mask = np.zeros((Y, X, D, F), bool)
  mask[: Y // 2] = True
  mask[Y // 2, : X // 2] = True
  mask[Y // 2, X // 2] = channel_mask(kind, D, F, groups, blocks)
  return mask


def masked_conv2d(x_BYXD, kernel_YXDF, *, kind, groups=1, blocks=1, matmul_dtype=None):
  """A convolution whose kernel is 0 where `raster_mask` says. Returns BYXF.

  Layers of these see a part of the past alone: what is above and to the right of the diagonal is blind to them (van den
  Oord et al. 2016b, figure 1). Cost: time O(Y X D F) a pixel, Y and X the kernel's, twice of what is needed.
  """
  Y, X = kernel_YXDF.shape[:2]
  kernel_YXDF = jnp.where(raster_mask(kind, kernel_YXDF.shape, groups, blocks), kernel_YXDF, 0)
  return conv2d(x_BYXD, kernel_YXDF, ((Y // 2, Y // 2), (X // 2, X // 2)), matmul_dtype=matmul_dtype)


def down_shifted_conv2d(x_BYXD, kernel_YXDF, *, stride=1, scale=1, matmul_dtype=None):
  """A pixel sees Y rows, its own the last of them, and of each row X columns around its own (Salimans et al. 2017).

  With x shifted down by a row (`shift_down`) before: the rows above alone, the vertical stack of a gated PixelCNN.
  stride: every stride-th row and column is computed. scale: the image has so many times more rows and columns
  afterwards (a transposed convolution); row i of the result sees rows up to i // scale. Returns BYXF. Raises ValueError
  for an argument that does not fit. Cost: time O(Y X D F) a pixel of the result, Y and X the kernel's.
  """
  Y, X = kernel_YXDF.shape[:2]
  if X % 2 == 0:
    raise ValueError(f"a kernel that is centred on a column has an odd number of columns, got {X}")
  margins = ((Y - 1, scale - 1), (X // 2, X // 2 + scale - 1))
  return conv2d(x_BYXD, kernel_YXDF, margins, stride=stride, scale=scale, matmul_dtype=matmul_dtype)


def down_right_shifted_conv2d(x_BYXD, kernel_YXDF, *, stride=1, scale=1, matmul_dtype=None):
  """A pixel sees Y rows and X columns, of which its own are the last. Everything else as in `down_shifted_conv2d`."""
  Y, X = kernel_YXDF.shape[:2]
  margins = ((Y - 1, scale - 1), (X - 1, scale - 1))
  return conv2d(x_BYXD, kernel_YXDF, margins, stride=stride, scale=scale, matmul_dtype=matmul_dtype)


def conv2d(x_BYXD, kernel_YXDF, margins, *, stride=1, scale=1, matmul_dtype=None):
  """A plain 2-D convolution: y_ij = sum_ab x_{i stride + a - top, j stride + b - left} K_ab. Returns BYXF.

  margins: zeros ((above, below), (left, right)). scale: zeros are put between the rows and columns of x first, so that
  there are scale times as many. Operands are rounded to matmul_dtype (x's by default); returns x's dtype.
  """
  sizes = shapes.check(x_BYXD=x_BYXD)
  if sizes["D"] != kernel_YXDF.shape[2]:
    raise ValueError(f"kernel_YXDF has shape {kernel_YXDF.shape}, and x_BYXD has {sizes['D']} features")
  if stride < 1 or scale < 1:
    raise ValueError(f"stride and scale must be at least 1, got {stride} and {scale}")
  dtype = matmul_dtype or x_BYXD.dtype
  y_BYXF = jax.lax.conv_general_dilated(
    x_BYXD.astype(dtype), kernel_YXDF.astype(dtype), (stride, stride), margins, lhs_dilation=(scale, scale),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )  # fmt: skip
  return y_BYXF.astype(x_BYXD.dtype)


def shift_down(x_BYXD):
  """Row i is row i - 1, and the first row zeros."""
  return jnp.pad(x_BYXD, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


def shift_right(x_BYXD):
  """Column j is column j - 1, and the first column zeros."""
  return jnp.pad(x_BYXD, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
