"""PixelRNN: "Pixel Recurrent Neural Networks", van den Oord et al. 2016a (arXiv:1601.06759).

A masked convolution, then residual blocks around two-dimensional LSTMs: `layer = "diagonal_bilstm"`, in which a pixel
sees everything before it, or "row_lstm", in which it sees a triangle above and what lies left of it in its row by the
convolutions of the gates' inputs. The colours of a pixel follow each other by masks.

| what                | the paper                                     | here                                           |
|---------------------|-----------------------------------------------|------------------------------------------------|
| first layer         | 7 x 7, mask A, 2h features                    | the same                                       |
| Row LSTM            | gates from 1 x 3, mask B; state by 1 x 3      | the same                                       |
| Diagonal BiLSTM     | gates from 1 x 1, mask B; state by 2 x 1 of   | the same; states outside of the image are 0    |
|                     | the skewed image, in both directions          |                                                |
| its right direction | moved down by a row, then added               | the same                                       |
| residual            | input 2h, LSTM h, 1 x 1 to 2h, added          | the same; the 1 x 1 has mask B                 |
| layers              | 12 with h = 128 for CIFAR-10                  | the same                                       |
| output              | two of [ReLU, 1 x 1, mask B], 256 by softmax  | the same; 1,024 features between (from memory) |
| colours             | three groups of features                      | the same; their sizes differ by one, if        |
|                     |                                               | need be (128)                                  |
| multi-scale         | a variant                                     | not built                                      |
| condition           | none                                          | none: num_classes must be 0                    |

Letters beside the house's: F hidden units, A = 4F gates side by side, U states that a step reads side by side, Y and X
of a kernel: its rows and columns.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers import pixels
from attention_zoo.layers.linear import glorot
from attention_zoo.layers.pixels import Conv, count_conv
from attention_zoo.ops import image_recurrent
from attention_zoo.ops import masked_convolution as ops

BATCH = ("pixels",)
COLOURS = 3
LAYERS = ("diagonal_bilstm", "row_lstm")


@dataclasses.dataclass(frozen=True)
class Config(pixels.Config):
  """The paper's model for CIFAR-10."""

  layer: str = "diagonal_bilstm"
  num_layers: int = 12
  d_hidden: int = 128  # h
  first_kernel_size: int = 7
  output_features: int = 1024

  def __post_init__(self):
    super().__post_init__()
    if self.layer not in LAYERS:
      raise ValueError(f"model.layer must be one of {LAYERS}, got {self.layer!r}")
    if self.num_classes:
      raise ValueError(f"a PixelRNN takes no labels: set config.data.num_classes to 0, not {self.num_classes}")
    if self.first_kernel_size % 2 == 0:
      raise ValueError(f"model.first_kernel_size must be odd, got {self.first_kernel_size}")
    for field in ("d_hidden", "output_features"):
      if getattr(self, field) < COLOURS:
        raise ValueError(f"model.{field} must be at least {COLOURS}, one for each colour, got {getattr(self, field)}")

  @property
  def head(self) -> str:
    return "categorical"


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters, those that a mask leaves out with them."""
  c, F = config, config.d_hidden
  if c.layer == "row_lstm":
    layer = count_conv((1, 3), 2 * F, 4 * F) + 3 * F * 4 * F
  else:
    layer = 2 * (count_conv((1, 1), 2 * F, 4 * F) + 2 * F * 4 * F)
  layer += count_conv((1, 1), F, 2 * F)
  output = count_conv((1, 1), 2 * F, c.output_features)
  output += count_conv((1, 1), c.output_features, COLOURS * pixels.VALUES)
  return count_conv((c.first_kernel_size,) * 2, COLOURS, 2 * F) + c.num_layers * layer + output


def small() -> Config:
  """For tests."""
  return Config(size=4, num_layers=2, d_hidden=3, first_kernel_size=3, output_features=5)


def masked(c, features, kernel, kind, name, blocks=1):
  """A convolution that is masked by place and colour. blocks: parts of the features, each with all colours."""
  mask = functools.partial(ops.raster_mask, kind, groups=COLOURS, blocks=blocks)
  margins = tuple((size // 2, size // 2) for size in kernel)
  convolve = functools.partial(ops.conv2d, margins=margins)
  return Conv(features, kernel, convolve, mask, c.matmul_dtype, name=name)


def row_lstm(c, x_BYXD, recurrent):
  projected = masked(c, 4 * c.d_hidden, (1, 3), "B", "gates", blocks=4)(x_BYXD)
  return image_recurrent.row_lstm(projected, recurrent("recurrent_UA", 3))


def diagonal_bilstm(c, x_BYXD, recurrent):
  """Both directions. The right one has seen what is right of a pixel in its row, and is moved down."""
  flip = lambda x_BYXD: x_BYXD[:, :, ::-1]
  gates = lambda name: masked(c, 4 * c.d_hidden, (1, 1), "B", name, blocks=4)(x_BYXD)
  left = image_recurrent.diagonal_lstm(gates("left_gates"), recurrent("left_UA", 2))
  right = flip(image_recurrent.diagonal_lstm(flip(gates("right_gates")), recurrent("right_UA", 2)))
  return left + ops.shift_down(right)


class Layer(nn.Module):
  """x + 1 x 1 of the LSTM of x (figure 5 of the paper)."""

  config: Config

  @nn.compact
  def __call__(self, x_BYXD):
    c, F = self.config, self.config.d_hidden

    def recurrent(name, taps):
      kernel_UA = self.param(name, glorot(1), (taps * F, 4 * F))
      return kernel_UA.astype(c.matmul_dtype)

    h_BYXF = {"row_lstm": row_lstm, "diagonal_bilstm": diagonal_bilstm}[c.layer](c, x_BYXD, recurrent)
    return x_BYXD + masked(c, 2 * F, (1, 1), "B", "out")(h_BYXF.astype(x_BYXD.dtype))


class PixelRNN(nn.Module):
  config: Config

  @nn.compact
  def __call__(self, batch, *, train=False):
    """Logits [B, Y, X, 3 * 256], float32, red's first. batch: "pixels" int [B, Y, X, 3]."""
    c = self.config
    x = pixels.places(batch["pixels"], c.dtype)
    x = masked(c, 2 * c.d_hidden, (c.first_kernel_size,) * 2, "A", "first")(x)
    for i in range(c.num_layers):
      x = Layer(c, name=f"layer_{i}")(x)
    for name, features in (("output_0", c.output_features), ("output_1", COLOURS * pixels.VALUES)):
      x = masked(c, features, (1, 1), "B", name)(jax.nn.relu(x))
    return x.astype(jnp.float32)


Model = PixelRNN
