"""srez: super-resolution by an adversarial network, Garcia 2016 (github.com/david-gpu/srez; no paper).

The generator is a ResNet that enlarges the small image: at each resolution residual blocks, then a transposed
convolution that doubles rows and columns. The discriminator is a stack of strided convolutions that is shown real and
generated images of the large size. The losses are those of `tasks/super_resolution_gan.py`.

srez is its first commit here, 153587ba; the last row has what later ones changed.

| what              | srez, commit 153587ba                      | here                                             |
|-------------------|--------------------------------------------|--------------------------------------------------|
| images            | 16 x 16 to 64 x 64                         | any doublings; the config has 8 x 8 to 32 x 32   |
| generator         | 2 blocks of 256 features, 2 of 128, then   | the same                                         |
|                   | 3 x 3 and 1 x 1 of 96, sigmoid             |                                                  |
| discriminator     | 64, 128, 256, 512 features with stride 2,  | the same                                         |
|                   | 3 x 3, 1 x 1, then one number              |                                                  |
| normalisation     | by batch, also where images are enlarged   | of the weights, as in `resnet_sr.py`: images do  |
|                   |                                            | not see each other                               |
| first values      | of a block near 0                          | the same, by a gain of 0.1                       |
| randomness        | noise on the small image in training alone | the same: what it makes of an image is one image |
| changes of images | mirrored, cropped, other colours           | mirrored                                         |
| later commits     | double by nearest neighbours, then a 3 x 3 | as in the first commit                           |
|                   | transposed convolution of stride 1; score  |                                                  |
|                   | the mean of a 1 x 1 convolution to one     |                                                  |
|                   | channel; rate 2e-4, halved every 5,000     |                                                  |

Values of images go from 0 to 1. Letters beside the house's: F output channels, Y and X of a kernel: its rows and
columns.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers import pixels
from attention_zoo.layers.pixels import NormedConv, count_normed
from attention_zoo.models.image.resnet_sr import COLOURS, around, check
from attention_zoo.ops.masked_convolution import conv2d

BATCH = ("pixels", "low")


@dataclasses.dataclass(frozen=True)
class Config(pixels.Config):
  """srez's sizes, for 8 x 8 to 32 x 32."""

  low_size: int = 8
  num_blocks: int = 2  # of the generator, at each resolution
  generator_widths: tuple = (256, 128, 96)  # of each resolution, and of what follows the last doubling
  discriminator_widths: tuple = (64, 128, 256, 512)  # of each halving

  def __post_init__(self):
    super().__post_init__()
    for field in ("generator_widths", "discriminator_widths"):
      if not getattr(self, field) or min(getattr(self, field)) < 1:
        raise ValueError(f"model.{field} must hold whole numbers of at least 1, got {getattr(self, field)}")
    check(self, "generator_widths")
    if self.size % 2 ** len(self.discriminator_widths):
      raise ValueError(
        f"model.discriminator_widths = {self.discriminator_widths}: each number stands for a halving, and "
        f"{self.size} rows cannot be halved so often"
      )

  @property
  def head(self) -> str:
    return "players"

  @property
  def last_size(self) -> int:
    """Rows and columns after the last halving."""
    return self.size // 2 ** len(self.discriminator_widths)


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  conv = lambda size, D, F: count_normed((size, size), D, F)
  number, D = 0, COLOURS
  for F in config.generator_widths[:-1]:
    number += (conv(1, D, F) if D != F else 0) + (2 * config.num_blocks + 1) * conv(3, F, F)
    D = F
  F = config.generator_widths[-1]
  number += conv(3, D, F) + conv(1, F, F) + conv(1, F, COLOURS)
  D = COLOURS
  for F in config.discriminator_widths:
    number += conv(3, D, F)
    D = F
  return number + conv(3, D, D) + conv(1, D, D) + conv(config.last_size, D, 1)


def small() -> Config:
  """For tests."""
  return Config(size=4, low_size=2, num_blocks=1, generator_widths=(4, 5), discriminator_widths=(4,))


def halved(x_BYXD, kernel_YXDF, **options):
  """A convolution of stride 2, with a kernel of 3 x 3."""
  return conv2d(x_BYXD, kernel_YXDF, ((0, 1), (0, 1)), stride=2, **options)


def doubled(x_BYXD, kernel_YXDF, **options):
  """A transposed convolution of stride 2, with a kernel of 3 x 3."""
  return conv2d(x_BYXD, kernel_YXDF, ((2, 1), (2, 1)), scale=2, **options)


def whole(x_BYXD, kernel_YXDF, **options):
  """One place that sees the whole image."""
  return conv2d(x_BYXD, kernel_YXDF, ((0, 0), (0, 0)), **options)


def _convs(config):
  return functools.partial(NormedConv, matmul_dtype=config.matmul_dtype)


class Generator(nn.Module):
  config: Config

  @nn.compact
  def __call__(self, low_BYX3):
    c, relu, conv = self.config, jax.nn.relu, _convs(self.config)
    x = low_BYX3.astype(c.dtype)
    for level, width in enumerate(c.generator_widths[:-1]):
      if x.shape[-1] != width:
        x = conv(width, name=f"level_{level}_first")(x)
      for i in range(c.num_blocks):
        y = conv(width, (3, 3), around, name=f"level_{level}_block_{i}_0")(relu(x))
        x += conv(width, (3, 3), around, gain=0.1, name=f"level_{level}_block_{i}_1")(relu(y))
      x = conv(width, (3, 3), doubled, name=f"level_{level}_up")(relu(x))
    width = c.generator_widths[-1]
    x = relu(conv(width, (3, 3), around, name="last_0")(x))
    x = relu(conv(width, name="last_1")(x))
    return jax.nn.sigmoid(conv(COLOURS, name="output")(x).astype(jnp.float32))


class Discriminator(nn.Module):
  config: Config

  @nn.compact
  def __call__(self, x_BYX3):
    c, relu, conv = self.config, jax.nn.relu, _convs(self.config)
    x = (2 * x_BYX3 - 1).astype(c.dtype)
    for level, width in enumerate(c.discriminator_widths):
      x = relu(conv(width, (3, 3), halved, name=f"level_{level}")(x))
    x = relu(conv(width, (3, 3), around, name="last_0")(x))
    x = relu(conv(width, name="last_1")(x))
    return conv(1, x.shape[1:3], whole, name="output")(x)[:, 0, 0, 0].astype(jnp.float32)


class SrezGAN(nn.Module):
  config: Config

  def setup(self):
    self.generator, self.discriminator = Generator(self.config), Discriminator(self.config)

  def enlarge(self, low_BYX3):
    """Images BYX3 with values from 0 to 1, float32."""
    return self.generator(low_BYX3)

  def discriminate(self, x_BYX3):
    """How real images are: the logit of the probability, float32 B."""
    return self.discriminator(x_BYX3)

  def __call__(self, batch, *, train=False):
    """The scores B of enlarged images plus those of the batch's: all parameters have a part in it."""
    low, real = (batch[name].astype(jnp.float32) / 255 for name in ("low", "pixels"))
    return self.discriminate(self.enlarge(low)) + self.discriminate(real)


Model = SrezGAN
