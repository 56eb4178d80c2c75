"""The Image Transformer with an encoder: Parmar et al. 2018 (arXiv:1802.05751), section 5.2: from 8 x 8 to 32 x 32.

The encoder reads the values of the small image, each attending to all; the decoder is that of `image_transformer.py`,
whose layers attend to the encoder's output too.

| what          | the paper                           | here                                                      |
|---------------|-------------------------------------|-----------------------------------------------------------|
| layers        | 4 in the encoder, 12 in the decoder | the same                                                  |
| small image   | by area                             | the mean of each square of pixels, rounded                |
| embedding     | of the encoder: not said            | tables of its own, as the decoder's; also under "dmol"    |
| the rest      |                                     | as in `image_transformer.py`                              |

The numbers of layers are from memory.
"""

import dataclasses

import jax.numpy as jnp

from attention_zoo.layers import transformer as layers
from attention_zoo.models.image import image_transformer as base

BATCH = ("pixels", "low", "labels")


@dataclasses.dataclass(frozen=True)
class Config(base.Config):
  low_size: int = 8  # rows and columns of the images that are given
  num_encoder_layers: int = 4

  def stacks(self):
    return {
      "encoder": layers.Layers(self.num_encoder_layers, "dot_product", causal=False),
      "attention": layers.Layers(self.num_layers, self.attention, causal=True, cross=True),
    }


def parameter_count(config: Config) -> int:
  c = config
  encoder = layers.count_layers(c, c.stacks()["encoder"]) + 3 * base.VALUES * c.d_model
  positions = 4 * c.low_size * c.d_model if c.positions == "learned" else 0
  return base.parameter_count(c) + encoder + positions


def small() -> Config:
  """For tests."""
  return Config(
    size=4, low_size=2, num_classes=0, d_model=4, d_ff=10, num_heads=2, d_k=4, d_v=4, num_layers=1,
    num_encoder_layers=1, dropout=0.0, attention="local(block_width=6, memory_width=6)",
  )  # fmt: skip


class ImageTransformerSR(base.ImageTransformer):
  config: Config

  def setup(self):
    super().setup()
    c = self.config
    self.low_values = base.Values(c.d_model)
    self.low_coordinates = base.Coordinates(c.positions, c.d_model, c.low_size, 3 * c.low_size)
    self.encoder = layers.Stack(c, c.stacks()["encoder"])

  def memory(self, batch, *, train=False):
    c, values_BS = self.config, batch["low"].reshape(batch["low"].shape[0], -1)
    at_S = jnp.arange(values_BS.shape[1])
    x_BSD = self.low_values(values_BS, at_S[None] % 3) * (c.d_model**0.5 if c.scale_embedding else 1)
    x_BSD = self.dropout((x_BSD + self.low_coordinates(at_S)[None]).astype(c.dtype), train)
    segments_BS = jnp.ones(values_BS.shape, jnp.int32)
    return self.encoder(x_BSD, segments_BS, train=train), segments_BS


Model = ImageTransformerSR
output_table = base.output_table


def decoding(config: Config, params, batch):
  """batch: "low" [B, y, x, 3] and "labels" [B]."""
  return base.decoding_of(ImageTransformerSR(config), params, batch)
