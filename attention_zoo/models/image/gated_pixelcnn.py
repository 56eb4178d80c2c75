"""Gated PixelCNN: "Conditional Image Generation with PixelCNN Decoders", van den Oord et al. 2016b (arXiv:1606.05328).

Two stacks of gated convolutions. The vertical one sees all rows above a pixel, the horizontal one what is left of it in
its row, and the vertical one: together the whole past, without the blind spot of PixelCNN. The colours of a pixel
follow each other by masks. num_classes > 0 is the class-conditional model (eq. 4).

| what               | the paper                              | here                                                |
|--------------------|----------------------------------------|-----------------------------------------------------|
| vertical stack     | n x n, masked, shifted at its end      | n // 2 + 1 rows of n; its input is shifted instead  |
| horizontal stack   | 1 x n, masked                          | 1 x (n // 2 + 1), the last tap masked by colours    |
| first layer        | 7 x 7, mask A (from memory)            | the same                                            |
| activation         | tanh(W_f x) sigmoid(W_g x)             | the same                                            |
| residual           | in the horizontal stack alone          | the same, but for the first layer                   |
| condition          | V h before each gate, in both stacks   | the same; h is one-hot, so that V h is a table      |
| colours            | three groups of features               | the same; their sizes differ by one if need be      |
| output             | 1 x 1, mask B, ReLUs (PixelRNN)        | ReLU, 1 x 1, ReLU, 1 x 1 to 3 x 256 logits          |
| first values       | not stated                             | Glorot-uniform                                      |

Letters beside the house's: F features, A = 2F the halves of a gate side by side, Y and X of a kernel its rows and
columns, V classes of images.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.layers import pixels
from attention_zoo.layers.pixels import Classes, Conv, count_conv
from attention_zoo.ops import masked_convolution as ops

BATCH = ("pixels", "labels")
COLOURS = 3


@dataclasses.dataclass(frozen=True)
class Config(pixels.Config):
  """The paper's model for ImageNet 32 x 32; of that for CIFAR-10 it says less."""

  num_layers: int = 20  # beside the first one
  features: int = 384  # p
  kernel_size: int = 5  # n
  first_kernel_size: int = 7
  output_features: int = 1024

  def __post_init__(self):
    super().__post_init__()
    for field in ("kernel_size", "first_kernel_size"):
      if getattr(self, field) % 2 == 0:
        raise ValueError(f"model.{field} must be odd, got {getattr(self, field)}")
    for field in ("features", "output_features"):
      if getattr(self, field) < COLOURS:
        raise ValueError(f"model.{field} must be at least {COLOURS}, one for each colour, got {getattr(self, field)}")

  @property
  def head(self) -> str:
    return "categorical"


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters, those that a mask leaves out with them."""
  F, classes = config.features, config.num_classes * 2 * config.features

  def layer(n, D):
    stacks = count_conv((n // 2 + 1, n), D, 2 * F) + count_conv((1, n // 2 + 1), D, 2 * F)
    return stacks + count_conv((1, 1), 2 * F, 2 * F) + count_conv((1, 1), F, F) + 2 * classes

  output = count_conv((1, 1), F, config.output_features)
  output += count_conv((1, 1), config.output_features, COLOURS * pixels.VALUES)
  layers = layer(config.first_kernel_size, COLOURS) + config.num_layers * layer(config.kernel_size, F)
  return layers - classes + output  # the vertical stack ends before the last layer's gate


def small() -> Config:
  """For tests. A pixel sees all of the past."""
  return Config(size=4, num_classes=3, num_layers=2, features=5, kernel_size=3, first_kernel_size=5, output_features=5)


def gate(x_BYXA):
  value, gate = jnp.split(x_BYXA, 2, -1)
  return jnp.tanh(value) * jax.nn.sigmoid(gate)


def last_tap(kind, shape):
  """Of a kernel that ends at the pixel: everything but the colours of the pixel itself that come later."""
  mask = np.ones(shape, bool)
  mask[:, -1] = ops.channel_mask(kind, *shape[2:], COLOURS, blocks=2)
  return mask


class Layer(nn.Module):
  """Figure 2 of the paper: (vertical, horizontal) -> the same, BYXD to BYXF."""

  config: Config
  kernel_size: int
  kind: str = "B"  # of the mask: "A" in the first layer, whose inputs are the pixels themselves
  last: bool = False  # no layer reads its vertical output

  @nn.compact
  def __call__(self, vertical, horizontal, labels_B):
    c, n = self.config, self.kernel_size
    A, half = 2 * c.features, n // 2 + 1
    conv = functools.partial(Conv, matmul_dtype=c.matmul_dtype)

    def condition(name):
      return Classes(c.num_classes, A, name=name)(labels_B, vertical.dtype) if c.num_classes else 0

    above = conv(A, (half, n), ops.down_shifted_conv2d, name="vertical")(vertical)
    left = conv(A, (1, half), mask=functools.partial(last_tap, self.kind), name="horizontal")(horizontal)
    left += conv(A, name="from_vertical")(above)
    here = gate(left + condition("horizontal_classes"))
    mask = functools.partial(ops.raster_mask, "B", groups=COLOURS)
    here = conv(c.features, mask=mask, name="out")(here)
    here = here if self.kind == "A" else here + horizontal
    return None if self.last else gate(above + condition("vertical_classes")), here


class GatedPixelCNN(nn.Module):
  config: Config

  @nn.compact
  def __call__(self, batch, *, train=False):
    """Logits [B, Y, X, 3 * 256], float32, red's first. batch: "pixels" int [B, Y, X, 3], "labels" int [B]."""
    c, labels_B = self.config, batch["labels"]
    horizontal = pixels.places(batch["pixels"], c.dtype)
    vertical = ops.shift_down(horizontal)  # what is computed of it at a pixel is of the rows above
    vertical, horizontal = Layer(c, c.first_kernel_size, "A", name="first")(vertical, horizontal, labels_B)
    for i in range(c.num_layers):
      layer = Layer(c, c.kernel_size, last=i == c.num_layers - 1, name=f"layer_{i}")
      vertical, horizontal = layer(vertical, horizontal, labels_B)
    mask = functools.partial(ops.raster_mask, "B", groups=COLOURS)
    x = horizontal
    for name, features in (("output_0", c.output_features), ("output_1", COLOURS * pixels.VALUES)):
      x = Conv(features, mask=mask, matmul_dtype=c.matmul_dtype, name=name)(jax.nn.relu(x))
    return x.astype(jnp.float32)


Model = GatedPixelCNN
