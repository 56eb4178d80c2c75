"""What the models share that say what a pixel is from the pixels before it: masked and weight-normalised convolutions.

Letters beside the house's: Y, X of a kernel: its rows and columns; F output channels; V classes of images; U value
and gate side by side.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.linear import glorot
from attention_zoo.ops import masked_convolution as ops

DTYPES = ("float32", "bfloat16")
VALUES = 256


@dataclasses.dataclass(frozen=True)
class Config:
  """Fields that every model has. Whole numbers are at least 1, unless their metadata says otherwise."""

  size: int  # rows and columns of the images
  num_classes: int = dataclasses.field(default=0, metadata={"low": 0})  # 0: labels are not looked at
  dtype: str = "float32"  # of activations; parameters are float32
  matmul_dtype: str = "float32"  # what the operands of convolutions are rounded to

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value, least = getattr(self, field.name), field.metadata.get("low", 1)
      if field.type is int and value < least:
        raise ValueError(f"model.{field.name} must be at least {least}, got {value!r}")
    for field in ("dtype", "matmul_dtype"):
      if getattr(self, field) not in DTYPES:
        raise ValueError(f"model.{field} must be one of {DTYPES}, got {getattr(self, field)!r}")
    if not 0 <= getattr(self, "dropout", 0) <= 1:
      raise ValueError(f"model.dropout must be from 0 to 1, got {self.dropout!r}")


def places(pixels_BYX3, dtype):
  """Values from 0 to 255 as numbers from -1 to 1."""
  return (pixels_BYX3.astype(jnp.float32) / 127.5 - 1).astype(dtype)


class Classes(nn.Module):
  """A vector for each class, to be added at every pixel: B11F."""

  num_classes: int
  features: int

  @nn.compact
  def __call__(self, labels_B, dtype):
    table_VF = self.param("table_VF", nn.initializers.normal(0.05), (self.num_classes, self.features))
    return jnp.take(table_VF, labels_B, axis=0, mode="clip").astype(dtype)[:, None, None]


class Conv(nn.Module):
  """A convolution with a bias. convolve: a function of `ops/masked_convolution.py`, its options bound; mask: what its
  kernel is 0 at, a function of the kernel's shape."""

  features: int
  kernel: tuple[int, int] = (1, 1)
  convolve: Callable = ops.down_right_shifted_conv2d
  mask: Callable | None = None
  matmul_dtype: str | None = None

  @nn.compact
  def __call__(self, x_BYXD):
    shape = (*self.kernel, x_BYXD.shape[-1], self.features)
    kernel_YXDF = self.param("kernel_YXDF", glorot(3), shape)
    bias_F = self.param("bias_F", nn.initializers.zeros, shape[-1:])
    if self.mask is not None:
      kernel_YXDF = jnp.where(self.mask(shape), kernel_YXDF, 0)
    y_BYXF = self.convolve(x_BYXD, kernel_YXDF, matmul_dtype=self.matmul_dtype)
    return y_BYXF + bias_F.astype(y_BYXF.dtype)[None, None, None]


def count_conv(kernel, D, F) -> int:
  """Parameters of `Conv`, those that a mask leaves out with them."""
  return kernel[0] * kernel[1] * D * F + F


class NormedConv(nn.Module):
  """A weight-normalised convolution (Salimans and Kingma 2016): K = gain v / |v|, a norm for each output."""

  features: int
  kernel: tuple[int, int] = (1, 1)
  convolve: Callable = ops.down_right_shifted_conv2d
  gain: float = 1.0  # the first one
  matmul_dtype: str | None = None

  @nn.compact
  def __call__(self, x_BYXD):
    shape = (*self.kernel, x_BYXD.shape[-1], self.features)
    direction_YXDF = self.param("direction_YXDF", nn.initializers.normal(0.05), shape)
    gain_F = self.param("gain_F", nn.initializers.constant(self.gain), shape[-1:])
    bias_F = self.param("bias_F", nn.initializers.zeros, shape[-1:])
    norm_F = jnp.sqrt(jnp.square(direction_YXDF).sum((0, 1, 2)) + 1e-12)
    kernel_YXDF = direction_YXDF * (gain_F / norm_F)[None, None, None]
    y_BYXF = self.convolve(x_BYXD, kernel_YXDF, matmul_dtype=self.matmul_dtype)
    return y_BYXF + bias_F.astype(y_BYXF.dtype)[None, None, None]


def count_normed(kernel, D, F) -> int:
  return kernel[0] * kernel[1] * D * F + 2 * F


def concat_elu(x):
  """ELU of x and of -x, side by side (Salimans et al. 2017, after the concatenated ReLU of Shang et al. 2016)."""
  return jax.nn.elu(jnp.concatenate([x, -x], -1))


class GatedResnet(nn.Module):
  """x + a sigmoid(b), with a and b of two convolutions over x, and of `also`, pixel by pixel, where it is given
  (Salimans et al. 2017, figure 2 and section 2.4)."""

  convolve: Callable = ops.down_right_shifted_conv2d
  kernel: tuple[int, int] = (1, 1)
  num_classes: int = 0
  dropout: float = 0.0
  matmul_dtype: str | None = None

  @nn.compact
  def __call__(self, x_BYXD, also_BYXD=None, labels_B=None, *, train=False):
    D = x_BYXD.shape[-1]
    conv = lambda features, name, gain=1.0: NormedConv(
      features, self.kernel, self.convolve, gain, self.matmul_dtype, name=name
    )
    y_BYXD = conv(D, "first")(concat_elu(x_BYXD))
    if also_BYXD is not None:
      y_BYXD += NormedConv(D, matmul_dtype=self.matmul_dtype, name="also")(concat_elu(also_BYXD))
    y_BYXD = Dropout(self.dropout)(concat_elu(y_BYXD), train)
    y_BYXU = conv(2 * D, "second", 0.1)(y_BYXD)
    if self.num_classes:
      y_BYXU += Classes(self.num_classes, 2 * D, name="classes")(labels_B, y_BYXU.dtype)
    value_BYXD, gate_BYXD = jnp.split(y_BYXU, 2, -1)
    return x_BYXD + value_BYXD * jax.nn.sigmoid(gate_BYXD)


def count_gated_resnet(kernel, D, also=0, num_classes=0) -> int:
  """also: features of what is added to the first convolution."""
  first = count_normed(kernel, 2 * D, D) + (count_normed((1, 1), 2 * also, D) if also else 0)
  return first + count_normed(kernel, 2 * D, 2 * D) + num_classes * 2 * D
