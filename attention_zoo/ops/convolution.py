"""Convolutions over time: dense, depthwise and separable; dense ones of packed rows, and step by step.

Letters beside the house's: W width of the kernel, F output channels, U the inputs that a step keeps, M rows of beams.
"""

import jax
import jax.numpy as jnp

from attention_zoo.ops import shapes
from attention_zoo.ops.einsum import einsum

PADDINGS = ("same", "causal", "valid")


def conv1d(x_BTD, kernel_WDF, bias_F=None, *, stride=1, dilation=1, padding="same"):
  """1-D convolution (LeCun et al. 1989; dilated: Yu and Koltun 2016).

    y_t = sum_w x_{t stride + w dilation - left} K_w + b

  x_BTD: inputs; kernel_WDF: one matrix a tap; bias_F. padding: "same" puts (W - 1) dilation // 2 zeros on the
  left and the rest on the right; "causal" puts all of them on the left, so that y_t sees nothing after x_t;
  "valid" puts none. Returns y of shape [B, T', F], with T' = ceil(T / stride) but for "valid", where it is
  ceil((T - (W - 1) dilation) / stride), at least 0. Raises ValueError for an argument that does not fit.

  Cost: time O(T W D F), 2 W D F multiplications and additions an output, memory O(T F).
  """
  shapes.check(x_BTD=x_BTD, kernel_WDF=kernel_WDF, bias_F=bias_F)
  padded_BTD = _pad(x_BTD, kernel_WDF, dilation, padding, stride)
  y_BTF = jax.lax.conv_general_dilated(
    padded_BTD, kernel_WDF, (stride,), "VALID", None, (dilation,), dimension_numbers=("NWC", "WIO", "NWC")
  )
  return y_BTF if bias_F is None else y_BTF + bias_F[None, None]


def packed_conv1d(x_BTD, kernel_WDF, segments_BT, *, dilation=1, padding="same", matmul_dtype=None):
  """`conv1d` of rows that hold several sentences: of other segments than its own, a position sees zeros.

    y_t = sum_w [segment of s = segment of t] x_s K_w,  s = t + w dilation - left

  segments_BT: int. padding: "same" or "causal". Every position is multiplied by all of the kernel once, and the
  products are shifted and added: one matrix product without shifted copies of x. Its operands are rounded to
  matmul_dtype (x's by default), sums are float32; returns BTF in the dtype of x. Raises ValueError for an argument that
  does not fit.

  Cost: time O(T W D F), memory O(T W F).
  """
  shapes.check(x_BTD=x_BTD, kernel_WDF=kernel_WDF, segments_BT=segments_BT)
  W, T = kernel_WDF.shape[0], x_BTD.shape[1]
  left, right = _margins(W, dilation, padding)
  products_BTWF = einsum("BTD,WDF->BTWF", x_BTD, kernel_WDF, jnp.float32, matmul_dtype)
  y_BTF = 0.0
  for w in range(W):
    # Position t wants the product of s, which stands at t + w dilation once `left` zeros are in front.
    shifted_BTF = jnp.pad(products_BTWF[:, :, w], ((0, 0), (left, right), (0, 0)))[:, w * dilation :][:, :T]
    own_BT = jnp.pad(segments_BT, ((0, 0), (left, right)), constant_values=-1)[:, w * dilation :][:, :T] == segments_BT
    y_BTF += jnp.where(own_BT[..., None], shifted_BTF, 0)
  return y_BTF.astype(x_BTD.dtype)


def conv1d_step(x_MD, past_MUD, kernel_WDF, *, dilation=1, matmul_dtype=None):
  """One position of a causal `packed_conv1d` of one sentence, from the inputs before it.

  past_MUD: the U = (W - 1) dilation inputs before x, the last one at the end; zeros before the first. Returns
  (y_MF, past_MUD for the next position). Raises ValueError for an argument that does not fit.

  Cost: time O(M W D F), and that of moving past_MUD.
  """
  sizes = shapes.check(x_MD=x_MD, past_MUD=past_MUD, kernel_WDF=kernel_WDF)
  if sizes["U"] != (wanted := (sizes["W"] - 1) * dilation):
    raise ValueError(f"past_MUD has U = {sizes['U']}, wanted (W - 1) dilation = {wanted}")
  seen_MUD = jnp.concatenate([past_MUD, x_MD[:, None]], 1)
  y_MF = einsum("MWD,WDF->MF", seen_MUD[:, ::dilation], kernel_WDF, jnp.float32, matmul_dtype)
  return y_MF.astype(x_MD.dtype), seen_MUD[:, 1:]


def depthwise_conv1d(x_BTD, kernel_WD, *, dilation=1, padding="same"):
  """Each channel by itself: y_td = sum_w x_{t + w dilation - left, d} K_wd (Sifre 2014; Chollet 2017).

  padding and T' as in `conv1d` with stride 1. Written as W shifted products, which fuse into one pass over x.
  Raises ValueError for an argument that does not fit.

  Cost: time O(T W D), memory O(T D).
  """
  shapes.check(x_BTD=x_BTD, kernel_WD=kernel_WD)
  padded_BTD = _pad(x_BTD, kernel_WD, dilation, padding)
  W = kernel_WD.shape[0]
  length = max(0, padded_BTD.shape[1] - (W - 1) * dilation)
  return sum(padded_BTD[:, w * dilation : w * dilation + length] * kernel_WD[None, None, w] for w in range(W))


def separable_conv1d(x_BTD, depthwise_WD, pointwise_DF, bias_F=None, *, dilation=1, padding="same"):
  """Depthwise, then pointwise: y_t = (depthwise(x))_t P + b (Chollet 2017, section 3; Kaiser et al. 2018).

  Equal to `conv1d` with the kernel K_wdf = depthwise_wd P_df. ValueError for an argument that does not fit.

  Cost: time O(T D (W + F)) against O(T W D F), memory O(T (D + F)).
  """
  shapes.check(x_BTD=x_BTD, depthwise_WD=depthwise_WD, pointwise_DF=pointwise_DF, bias_F=bias_F)
  y_BTD = depthwise_conv1d(x_BTD, depthwise_WD, dilation=dilation, padding=padding)
  y_BTF = jnp.einsum("BTD,DF->BTF", y_BTD, pointwise_DF)
  return y_BTF if bias_F is None else y_BTF + bias_F[None, None]


def _pad(x_BTD, kernel, dilation, padding, stride=1):
  return jnp.pad(x_BTD, ((0, 0), _margins(kernel.shape[0], dilation, padding, PADDINGS, stride), (0, 0)))


def _margins(width, dilation, padding, paddings=PADDINGS[:2], stride=1):
  """(zeros on the left, on the right)."""
  for name, value in (("stride", stride), ("dilation", dilation), ("the kernel's width W", width)):
    if value < 1:
      raise ValueError(f"{name} must be at least 1, got {value}")
  if padding not in paddings:
    raise ValueError(f"padding must be one of {paddings}, got {padding!r}")
  total = (width - 1) * dilation
  left = {"same": total // 2, "causal": total, "valid": 0}[padding]
  return left, total - left if padding == "same" else 0
