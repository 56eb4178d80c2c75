"""PixelCNN++: "PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other
Modifications", Salimans et al. 2017 (arXiv:1701.05517).

Two streams, of the rows above a pixel and of what is above and left of it, go down to a quarter of the resolution and
up again. Each block on the way up reads the features of its mirror image on the way down. The head is a discretised
mixture of logistics for whole pixels (`ops/dmol.py`).

| what                 | the paper                                   | here                                      |
|----------------------|---------------------------------------------|-------------------------------------------|
| likelihood           | mixture of 10 logistics, channels linear in | the same; exact where the published code  |
|                      | those before                                | takes a density (`ops/dmol.py`)           |
| blocks               | gated ResNet, concatenated ELU, dropout 0.5 | the same                                  |
| levels               | 32, 16, 8 with 5 blocks each                | the same; on the way up 5, 6 and 6 blocks |
| down and up          | strided convolutions, transposed ones       | the same                                  |
| border               | a channel of ones is added to the image     | the same                                  |
| weight normalisation | of all, first values by the first batch     | of all; gain 1 (0.1 before a gate), bias 0 |
| condition            | a table of the class before each gate       | the same (from the published code)        |
| averaging            | of parameters, 0.9995                       | config.train.ema                          |

Letters beside the house's: Y and X of a kernel: its rows and columns, F output channels, V classes of images,
P parameters of a pixel's mixture.
"""

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp

from attention_zoo.layers import pixels
from attention_zoo.layers.pixels import GatedResnet, NormedConv, count_gated_resnet, count_normed
from attention_zoo.ops import dmol
from attention_zoo.ops import masked_convolution as ops

BATCH = ("pixels", "labels")
VERTICAL, CORNER = (2, 3), (2, 2)  # kernels of the two streams


@dataclasses.dataclass(frozen=True)
class Config(pixels.Config):
  """The paper's model for CIFAR-10."""

  features: int = 160
  num_blocks: int = 5  # of a level
  num_levels: int = 3  # each with half the rows and columns of the one before
  num_components: int = 10
  dropout: float = 0.5

  def __post_init__(self):
    super().__post_init__()
    if self.size % (parts := 2 ** (self.num_levels - 1)):
      raise ValueError(
        f"model.num_levels = {self.num_levels} halves an image {self.num_levels - 1} times, and its size {self.size} "
        f"is not divisible by {parts}"
      )

  @property
  def head(self) -> str:
    return "dmol"

  @property
  def outputs(self) -> int:
    """Parameters of a pixel."""
    return self.num_components * dmol.outputs_per_component(3)


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c, F = config, config.features
  taps = VERTICAL[0] * VERTICAL[1] + CORNER[0] * CORNER[1]
  first = count_normed((2, 3), 4, F) + count_normed((1, 3), 4, F) + count_normed((2, 1), 4, F)
  count = functools.partial(count_gated_resnet, num_classes=c.num_classes)
  down = c.num_levels * c.num_blocks * (count(VERTICAL, F) + count(CORNER, F, F))
  blocks_up = c.num_levels * c.num_blocks + c.num_levels - 1
  up = blocks_up * (count(VERTICAL, F, F) + count(CORNER, F, 2 * F))
  between = 2 * (c.num_levels - 1) * (taps * F * F + 2 * 2 * F)
  return first + down + up + between + count_normed((1, 1), F, c.outputs)


def small() -> Config:
  """For tests."""
  return Config(size=4, num_classes=3, features=4, num_blocks=1, num_levels=2, num_components=2, dropout=0.0)


class PixelCNNpp(nn.Module):
  config: Config

  @nn.compact
  def __call__(self, batch, *, train=False):
    """Parameters of the pixels' mixtures BYXP, float32. batch: "pixels" int [B, Y, X, 3], "labels" int [B]."""
    c, F = self.config, self.config.features
    conv = functools.partial(NormedConv, F, matmul_dtype=c.matmul_dtype)

    def block(name, convolve, kernel, x, also=None):
      layer = GatedResnet(convolve, kernel, c.num_classes, c.dropout, c.matmul_dtype, name=name)
      return layer(x, also, batch["labels"], train=train)

    vertical = lambda name, x, also=None: block(f"{name}_vertical", ops.down_shifted_conv2d, VERTICAL, x, also)
    corner = lambda name, x, also: block(f"{name}_corner", ops.down_right_shifted_conv2d, CORNER, x, also)

    def between(name, u, ul, **change):
      """Both streams at another resolution. change: stride or scale."""
      down, right = (functools.partial(f, **change) for f in (ops.down_shifted_conv2d, ops.down_right_shifted_conv2d))
      return conv(VERTICAL, down, name=f"{name}_vertical")(u), conv(CORNER, right, name=f"{name}_corner")(ul)

    x = pixels.places(batch["pixels"], c.dtype)
    x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], -1)  # what lies outside is told from an image of zeros
    # u: the rows above; ul: those, and what is left of the pixel.
    u = ops.shift_down(conv(VERTICAL, ops.down_shifted_conv2d, name="first_vertical")(x))
    ul = ops.shift_down(conv((1, 3), ops.down_shifted_conv2d, name="first_above")(x))
    ul += ops.shift_right(conv((2, 1), ops.down_right_shifted_conv2d, name="first_left")(x))

    seen = [(u, ul)]
    for level in range(c.num_levels):
      if level:
        u, ul = between(f"down_{level}", u, ul, stride=2)
        seen.append((u, ul))
      for i in range(c.num_blocks):
        name = f"down_{level}_block_{i}"
        u = vertical(name, u)
        ul = corner(name, ul, u)
        seen.append((u, ul))

    u, ul = seen.pop()
    for level in reversed(range(c.num_levels)):
      # A level has an entry for each block and one for its beginning; the last of all is where the way up begins.
      for i in range(c.num_blocks + (level < c.num_levels - 1)):
        name, (u_down, ul_down) = f"up_{level}_block_{i}", seen.pop()
        u = vertical(name, u, u_down)
        ul = corner(name, ul, jnp.concatenate([u, ul_down], -1))
      if level:
        u, ul = between(f"up_{level}", u, ul, scale=2)
    outputs = NormedConv(c.outputs, matmul_dtype=c.matmul_dtype, name="output")(nn.elu(ul))
    return outputs.astype(jnp.float32)


Model = PixelCNNpp
