"""Pixel Recursive Super Resolution: Dahl et al. 2017 (arXiv:1702.00783).

The logits of a value are a sum: those of a conditioning network, a ResNet that sees the small image
(`resnet_sr.py`), and those of a prior network, a PixelCNN that sees the values before it (`gated_pixelcnn.py`), eq. 7.

| what        | the paper                                           | here                                            |
|-------------|-----------------------------------------------------|-------------------------------------------------|
| prior       | gated PixelCNN, 20 layers of 32 features (from      | the same                                        |
|             | memory)                                             |                                                 |
| loss        | of the sum, and of the conditioning network alone,  | of the sum alone: an exact likelihood           |
|             | so that it is not left out (eq. 8)                  |                                                 |
| the rest    |                                                     | as in `resnet_sr.py` and `gated_pixelcnn.py`    |
"""

import dataclasses

import flax.linen as nn

from attention_zoo.models.image import gated_pixelcnn, resnet_sr

BATCH = ("pixels", "low", "labels")


@dataclasses.dataclass(frozen=True)
class Config(gated_pixelcnn.Config):
  """The paper's for 8 x 8 to 32 x 32, from memory."""

  num_layers: int = 20
  features: int = 32
  output_features: int = 64
  low_size: int = 8
  blocks: tuple = (6, 4, 2)  # of the conditioning network, at each resolution

  def __post_init__(self):
    super().__post_init__()
    resnet_sr.check(self)


def conditioning(config: Config) -> resnet_sr.Config:
  return resnet_sr.Config(
    size=config.size, low_size=config.low_size, features=config.features, blocks=config.blocks, dtype=config.dtype,
    matmul_dtype=config.matmul_dtype,
  )  # fmt: skip


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  return gated_pixelcnn.parameter_count(config) + resnet_sr.parameter_count(conditioning(config))


def small() -> Config:
  """For tests."""
  return Config(
    size=4, low_size=2, num_layers=1, features=4, kernel_size=3, first_kernel_size=3, output_features=3, blocks=(1, 1)
  )


class PixelRecursiveSR(nn.Module):
  config: Config

  def setup(self):
    self.prior = gated_pixelcnn.GatedPixelCNN(self.config)
    self.conditioning = resnet_sr.Conditioning(conditioning(self.config))

  def __call__(self, batch, *, train=False):
    """Logits [B, Y, X, 3 * 256], float32, red's first. batch: "pixels" int [B, Y, X, 3], "low" int [B, y, x, 3]."""
    return self.prior(batch, train=train) + self.conditioning(batch["low"])


Model = PixelRecursiveSR
