"""A baseline that looks at no other pixel: a histogram of the 256 values for each place and channel.

p(x) = prod_yxc p_yxc(x_yxc). The best such model of the training images counts how often each value stands in each
place. The logits are the product of d_model numbers of the place and a table, so that a small d_model is a histogram
of low rank; 256 is any histogram. Number of classes > 0: the class's numbers are added to the place's.

| what       | counting                             | here                                    |
|------------|--------------------------------------|-----------------------------------------|
| histograms | relative frequencies                 | learnt by gradients, of rank d_model    |
| classes    | histograms of their own              | a vector that is added to each place's  |
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from attention_zoo.layers.linear import glorot
from attention_zoo.ops.einsum import einsum

BATCH = ("pixels", "labels")
VALUES = 256


@dataclasses.dataclass(frozen=True)
class Config:
  size: int  # rows and columns of the images
  num_classes: int = 0  # 0: labels are not looked at
  d_model: int = 256
  matmul_dtype: str = "float32"

  @property
  def head(self) -> str:
    return "categorical"

  def __post_init__(self):
    if min(self.size, self.d_model) < 1 or self.num_classes < 0:
      raise ValueError("model.d_model must be at least 1")


def parameter_count(config: Config) -> int:
  places = config.size**2 + config.num_classes
  return 3 * VALUES * config.d_model + places * config.d_model


def small() -> Config:
  """For tests."""
  return Config(size=4, num_classes=3, d_model=8)


class Factorised(nn.Module):
  config: Config

  def setup(self):
    c = self.config
    normal = nn.initializers.normal
    self.places_YXD = self.param("places_YXD", normal(1.0), (c.size, c.size, c.d_model))
    if c.num_classes:
      self.classes_ED = self.param("classes_ED", normal(1.0), (c.num_classes, c.d_model))
    self.kernel_D3V = self.param("kernel_D3V", glorot(1), (c.d_model, 3, VALUES))

  def __call__(self, batch, *, train=False):
    """Logits [B, Y, X, 3 * 256], float32."""
    B, Y, X = batch["pixels"].shape[:3]
    x_BYXD = jnp.broadcast_to(self.places_YXD[None], (B, *self.places_YXD.shape))
    if self.config.num_classes:
      x_BYXD = x_BYXD + jnp.take(self.classes_ED, batch["labels"], axis=0, mode="clip")[:, None, None]
    kernel_DV = self.kernel_D3V.reshape(self.config.d_model, 3 * VALUES)
    return einsum("BYXD,DV->BYXV", x_BYXD, kernel_DV, jnp.float32, self.config.matmul_dtype)


Model = Factorised
