"""Convolutions over time: dense, depthwise and separable. W: width of the kernel, F: output channels."""

import jax
import jax.numpy as jnp

from attention_zoo.ops import shapes

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
  for name, value in (("stride", stride), ("dilation", dilation), ("the kernel's width W", kernel.shape[0])):
    if value < 1:
      raise ValueError(f"{name} must be at least 1, got {value}")
  if padding not in PADDINGS:
    raise ValueError(f"padding must be one of {PADDINGS}, got {padding!r}")
  total = (kernel.shape[0] - 1) * dilation
  left = {"same": total // 2, "causal": total, "valid": 0}[padding]
  right = total - left if padding == "same" else 0
  return jnp.pad(x_BTD, ((0, 0), (left, right), (0, 0)))
