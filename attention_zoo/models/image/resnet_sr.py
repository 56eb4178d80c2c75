"""Super-resolution by a ResNet: the conditioning network of Dahl et al. 2017 (arXiv:1702.00783), alone.

Each value of the large image is predicted from the small image alone, and from no other value: a baseline for models
that draw value after value. Those can make both eyes of a face agree; this one cannot.

| what           | the paper                                   | here                                             |
|----------------|---------------------------------------------|--------------------------------------------------|
| as a baseline  | of a regression, by squared error           | 256 logits a value: an image has a likelihood    |
| network        | ResNet blocks at each resolution, strided   | the same, with their number and width from       |
|                | transposed convolutions between             | memory: 6, 4 and 2 of 32 features                |
| normalisation  | by batch                                    | none; blocks begin small (gain 0.1)              |
| blocks         | convolution, ReLU, convolution              | the same, with weight normalisation              |

Letters beside the house's: F output channels, Y and X of a kernel: its rows and columns.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers import pixels
from attention_zoo.layers.pixels import NormedConv, count_normed
from attention_zoo.ops.masked_convolution import conv2d

BATCH = ("pixels", "low", "labels")
COLOURS = 3


@dataclasses.dataclass(frozen=True)
class Config(pixels.Config):
  """The paper's for 8 x 8 to 32 x 32, from memory."""

  low_size: int = 8
  features: int = 32
  blocks: tuple = (6, 4, 2)  # at each resolution, from the small image's on

  def __post_init__(self):
    super().__post_init__()
    check(self)

  @property
  def head(self) -> str:
    return "categorical"


def check(config, field: str = "blocks") -> None:
  """Of a config with a number for each resolution in this field: ValueError where they do not lead to the size, and
  where there are classes."""
  numbers = getattr(config, field)
  if not numbers or min(numbers) < 1 or config.low_size * 2 ** (len(numbers) - 1) != config.size:
    raise ValueError(
      f"model.{field} = {numbers}: each number but the last stands for a doubling, which does not lead from "
      f"{config.low_size} x {config.low_size} pixels to {config.size} x {config.size}"
    )
  if config.num_classes:
    raise ValueError(f"this model takes no labels: set config.data.num_classes to 0, not {config.num_classes}")


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  F = config.features
  up = (len(config.blocks) - 1) * count_normed((4, 4), F, F)
  blocks = sum(config.blocks) * 2 * count_normed((3, 3), F, F)
  return count_normed((3, 3), COLOURS, F) + blocks + up + count_normed((1, 1), F, COLOURS * pixels.VALUES)


def small() -> Config:
  """For tests."""
  return Config(size=4, low_size=2, features=4, blocks=(1, 1))


def around(x_BYXD, kernel_YXDF, **options):
  """A convolution that sees as much on all sides."""
  margin = (kernel_YXDF.shape[0] // 2,) * 2
  return conv2d(x_BYXD, kernel_YXDF, (margin, margin), **options)


def doubled(x_BYXD, kernel_YXDF, **options):
  """A transposed convolution of stride 2, with a kernel of 4 x 4."""
  return conv2d(x_BYXD, kernel_YXDF, ((2, 2), (2, 2)), scale=2, **options)


class Conditioning(nn.Module):
  """Logits [B, Y, X, 3 * 256] of a small image."""

  config: Config

  @nn.compact
  def __call__(self, low_BYX3):
    c = self.config
    conv = functools.partial(NormedConv, c.features, matmul_dtype=c.matmul_dtype)
    x = conv((3, 3), around, name="first")(pixels.places(low_BYX3, c.dtype))
    for level, number in enumerate(c.blocks):
      if level:
        x = jax.nn.relu(conv((4, 4), doubled, name=f"up_{level}")(x))
      for i in range(number):
        y = conv((3, 3), around, name=f"level_{level}_block_{i}_0")(jax.nn.relu(x))
        x += conv((3, 3), around, gain=0.1, name=f"level_{level}_block_{i}_1")(jax.nn.relu(y))
    output = NormedConv(COLOURS * pixels.VALUES, matmul_dtype=c.matmul_dtype, name="output")
    return output(jax.nn.relu(x)).astype(jnp.float32)


class ResNetSR(nn.Module):
  config: Config

  def setup(self):
    self.conditioning = Conditioning(self.config)

  def __call__(self, batch, *, train=False):
    """Logits [B, Y, X, 3 * 256], float32, red's first. batch: "low" int [B, y, x, 3]; the pixels are not looked at."""
    return self.conditioning(batch["low"])


Model = ResNetSR
