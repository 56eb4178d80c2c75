"""PixelSNAIL: "PixelSNAIL: An Improved Autoregressive Generative Model", Chen et al. 2018 (arXiv:1712.09763).

Blocks of causal convolutions, each followed by attention of every pixel to all pixels before it. Convolutions work up
what is near, attention reaches the whole past in one step. The head is PixelCNN++'s mixture of logistics.

| what                 | the paper                                       | here                                     |
|----------------------|-------------------------------------------------|------------------------------------------|
| blocks               | 12 for CIFAR-10, of 256 filters                 | the same                                 |
| residual blocks      | 4 gated ones in each (from memory)              | the same, `num_layers`                   |
| attention            | one head, keys of 16 numbers, values of 128     | the same                                 |
| logits               | q k^T (from memory)                             | q k^T / sqrt(d_k)                        |
| a pixel attends to   | all before it, not itself                       | the same; the first one gets zeros       |
| keys and values from | image, features and positions                   | the same                                 |
| queries from         | features and positions                          | the same                                 |
| positions            | row and column, from -1/2 to 1/2                | the same                                 |
| after a block        | features and attention through a gated 1 x 1    | the same                                 |
| weight normalisation | first values by the first batch (from memory)   | gain 1 (0.1 before a gate), bias 0       |
| condition            | none                                            | PixelCNN++'s                             |

Letters beside the house's: P parameters of a pixel's mixture, Y and X of a kernel: its rows and columns, F output
channels, V classes of images.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from attention_zoo.layers import pixels
from attention_zoo.layers.pixels import GatedResnet, NormedConv, count_gated_resnet, count_normed
from attention_zoo.ops import dmol, masks
from attention_zoo.ops import masked_convolution as ops
from attention_zoo.ops.dot_product import dot_product_attention

BATCH = ("pixels", "labels")
CORNER = (2, 2)  # the kernel of the convolutions
POSITION = 2  # numbers: row and column


@dataclasses.dataclass(frozen=True)
class Config(pixels.Config):
  """The paper's model for CIFAR-10."""

  features: int = 256
  num_blocks: int = 12
  num_layers: int = 4  # residual ones of a block
  d_k: int = 16
  d_v: int = 128
  num_components: int = 10
  dropout: float = 0.5

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
  block = c.num_layers * count_gated_resnet(CORNER, F, num_classes=c.num_classes)
  key_width, query_width = 3 + F + POSITION, F + POSITION
  block += count_gated_resnet((1, 1), key_width) + count_normed((1, 1), key_width, c.d_k + c.d_v)
  block += count_gated_resnet((1, 1), query_width) + count_normed((1, 1), query_width, c.d_k)
  block += count_gated_resnet((1, 1), F, c.d_v)
  first = count_normed((1, 3), 4, F) + count_normed((2, 1), 4, F)
  return first + c.num_blocks * block + count_normed((1, 1), F, c.outputs)


def small() -> Config:
  """For tests."""
  return Config(
    size=4, num_classes=3, features=6, num_blocks=2, num_layers=1, d_k=4, d_v=4, num_components=2, dropout=0.0
  )


def positions(size, dtype):
  """Row and column of each pixel, from -1/2 to 1/2: 1YX2."""
  at = (jnp.arange(size) - size / 2) / size
  return jnp.stack(jnp.meshgrid(at, at, indexing="ij"), -1)[None].astype(dtype)


class Attention(nn.Module):
  """Of each pixel to those before it, [B, Y, X, d_v]."""

  config: Config

  @nn.compact
  def __call__(self, image_BYXD, x_BYXD, *, train=False):
    c = self.config
    at = jnp.broadcast_to(positions(c.size, x_BYXD.dtype), (*x_BYXD.shape[:3], POSITION))

    def projected(name, features, parts):
      parts = GatedResnet(dropout=c.dropout, matmul_dtype=c.matmul_dtype, name=f"{name}_block")(
        jnp.concatenate(parts, -1), train=train
      )
      y_BYXD = NormedConv(features, matmul_dtype=c.matmul_dtype, name=name)(parts)
      return y_BYXD.reshape(len(y_BYXD), c.size**2, 1, features)

    # The image itself is in keys and values, so that a pixel must not see its own.
    keys_and_values = projected("keys_and_values", c.d_k + c.d_v, [image_BYXD, x_BYXD, at])
    k_BSNK, v_BSNH = keys_and_values[..., : c.d_k], keys_and_values[..., c.d_k :]
    q_BTNK = projected("queries", c.d_k, [x_BYXD, at])
    out_BTNH = dot_product_attention(q_BTNK, k_BSNK, v_BSNH, mask=masks.causal(c.size**2, offset=-1))
    return out_BTNH.reshape(*x_BYXD.shape[:3], c.d_v)


class PixelSNAIL(nn.Module):
  config: Config

  @nn.compact
  def __call__(self, batch, *, train=False):
    """Parameters of the pixels' mixtures BYXP, float32. batch: "pixels" int [B, Y, X, 3], "labels" int [B]."""
    c = self.config
    image = pixels.places(batch["pixels"], c.dtype)
    x = jnp.concatenate([image, jnp.ones_like(image[..., :1])], -1)
    first = lambda kernel, convolve, name: NormedConv(c.features, kernel, convolve, 1.0, c.matmul_dtype, name=name)(x)
    above = ops.shift_down(first((1, 3), ops.down_shifted_conv2d, "first_above"))
    x = above + ops.shift_right(first((2, 1), ops.down_right_shifted_conv2d, "first_left"))
    for i in range(c.num_blocks):
      for j in range(c.num_layers):
        layer = GatedResnet(
          kernel=CORNER, num_classes=c.num_classes, dropout=c.dropout, matmul_dtype=c.matmul_dtype,
          name=f"block_{i}_layer_{j}",
        )  # fmt: skip
        x = layer(x, None, batch["labels"], train=train)
      attended = Attention(c, name=f"block_{i}_attention")(image, x, train=train)
      mix = GatedResnet(dropout=c.dropout, matmul_dtype=c.matmul_dtype, name=f"block_{i}_mix")
      x = mix(x, attended, train=train)
    outputs = NormedConv(c.outputs, matmul_dtype=c.matmul_dtype, name="output")(nn.elu(x))
    return outputs.astype(jnp.float32)


Model = PixelSNAIL
