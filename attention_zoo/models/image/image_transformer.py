"""The Image Transformer without an encoder: Parmar et al. 2018 (arXiv:1802.05751), unconditional or told the class.

A causal Transformer over the values of an image (head "categorical", three positions a pixel) or over its pixels (head
"dmol"). `attention` says what a position sees: "dot_product" all before it; "local(block_width=256, memory_width=256)"
its block and the positions before that, in raster order (the paper's local 1D, counted in positions);
"local_2d(tile=(8, 32), flange=(8, 16))" its tile and the pixels above and beside that, in block-raster order (local 2D,
counted in pixels).

| what              | the paper                                | here                                               |
|-------------------|------------------------------------------|----------------------------------------------------|
| embedding         | a table of each channel; of "dmol" a 1x3 | the same; the convolution is a linear map of the   |
|                   | convolution                              | pixel's three values                               |
| positions         | sinusoids, half of d_model for the row,  | the same; "learned": a table of rows and one of    |
|                   | half for column and channel; or learned  | columns with channels, which are added             |
| class             | its embedding is added at each position  | the same                                           |
| output            | a linear map to 256 logits or the        | the same; without a bias of the logits             |
|                   | parameters of ten logistics              |                                                    |
| normalisation     | after each residual connection           | the same; "pre"                                    |
| dropout           | of sub-layers, 0.3 for CIFAR-10          | the same, its rate rounded to 1/65,536             |
| likelihood (DMOL) | as PixelCNN++                            | exact at all scales: `ops/dmol.py`                 |

The sizes of sub-layers, the dropout and the normalisation are from memory.

Letters beside the house's: P parameters of a pixel's mixture, M positions of a step, U values of a position.
"""

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from attention_zoo import grammar
from attention_zoo.layers import transformer as layers
from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.linear import Linear, glorot, logits
from attention_zoo.layers.positions import sinusoidal
from attention_zoo.ops import cache as cache_lib
from attention_zoo.ops import dmol, local_2d
from attention_zoo.ops.einsum import einsum
from attention_zoo.protocols import PixelDecoding

BATCH = ("pixels", "labels")
VALUES = 256
CHOICES = {
  "head": ("categorical", "dmol"), "positions": ("sinusoidal", "learned"), "position_mode": ("add",),
  "feed_forward": ("dense",), "vocab_size": (VALUES,), "output_bias": (False,),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config(layers.Config):
  """The paper's model of CIFAR-10 with local 1D attention."""

  vocab_size: int = VALUES  # values of a channel
  size: int = 32  # rows and columns of the images
  num_classes: int = dataclasses.field(default=0, metadata={"low": 0})  # 0: labels are not looked at
  d_ff: int = 2048
  num_heads: int = 4
  d_k: int = 128
  d_v: int = 128
  num_layers: int = 12
  attention: str = "local(block_width=256, memory_width=256)"
  head: str = "categorical"  # or "dmol"
  num_mixtures: int = 10  # of "dmol"

  def __post_init__(self):
    for field, choices in CHOICES.items():
      if getattr(self, field) not in choices:
        raise ValueError(f"model.{field} must be {' or '.join(map(repr, choices))}, got {getattr(self, field)!r}")
    if self.d_model % 4:
      raise ValueError(f"model.d_model must be a multiple of 4, half of it for each coordinate, got {self.d_model}")
    super().__post_init__()
    if len({text for text in grammar.split(self.attention) if "2d" in text}) > 1 or (
      self._tile and self.turns(self.stacks()["attention"]) > 1
    ):
      raise ValueError("model.attention: local_2d has an order of its own, so that all layers must have the same")
    if self._tile and self.size % self._tile[0]:
      raise ValueError(f"model.attention: local_2d's tiles have {self._tile[0]} rows, which do not divide the images' "
                       f"{self.size}")  # fmt: skip

  @property
  def channels(self) -> int:
    """Positions of a pixel."""
    return 3 if self.head == "categorical" else 1

  @property
  def columns(self) -> int:
    """Positions of a row of the image."""
    return self.size * self.channels

  @property
  def _tile(self):
    name, options = grammar.parse(grammar.split(self.attention)[0])
    return options["tile"] if name == "local_2d" else None

  def stacks(self):
    return {"attention": layers.Layers(self.num_layers, self.attention, causal=True)}

  def more_attentions(self):
    def in_pixels(sizes, *, tile: tuple, flange: tuple):
      wide = [(pair[0], *(x * self.channels for x in pair[1:])) if pair else pair for pair in (tile, flange)]
      return local_2d.local_2d(sizes, columns=self.columns, tile=wide[0], flange=wide[1])

    in_pixels.__name__ = "local_2d"
    return (in_pixels,)

  def order(self) -> np.ndarray:
    """The positions, counted row by row, in the order in which they are generated; int32."""
    if self._tile is None:
      return np.arange(self.size * self.columns, dtype=np.int32)
    tile = self._tile[0], self._tile[1] * self.channels
    return local_2d.block_raster_order(self.size, self.columns, tile)[0]


def parameter_count(config: Config) -> int:
  c, D = config, config.d_model
  embedding = 3 * VALUES * D if c.head == "categorical" else 3 * D + D
  outputs = c.num_mixtures * dmol.outputs_per_component(3)
  output = VALUES * D if c.head == "categorical" else D * outputs + outputs
  positions = (c.size + c.columns) * D if c.positions == "learned" else 0
  return embedding + output + positions + c.num_classes * D + layers.count_layers(c, c.stacks()["attention"])


def small() -> Config:
  """For tests."""
  return Config(
    size=4, num_classes=3, d_model=8, d_ff=10, num_heads=2, d_k=4, d_v=4, num_layers=2, dropout=0.0,
    attention="local_2d(tile=(2, 2), flange=(1, 1))",
  )  # fmt: skip


class Values(nn.Module):
  """The embeddings of values, a table of each channel. values, channels: ints that broadcast; returns [.., d_model]."""

  d_model: int

  def setup(self):
    self.table_3VD = self.param(
      "table_3VD", nn.initializers.normal(self.d_model**-0.5), (3, VALUES, self.d_model)
    )

  def __call__(self, values, channels):
    return jnp.take(self.table_3VD.reshape(3 * VALUES, -1), values + VALUES * channels, axis=0, mode="clip")


class Coordinates(nn.Module):
  """Where each position stands: rows and columns of the image, a column for each position of a row."""

  kind: str
  d_model: int
  rows: int
  columns: int

  def setup(self):
    if self.kind == "learned":
      normal = nn.initializers.normal(self.d_model**-0.5)
      self.rows_YD = self.param("rows_YD", normal, (self.rows, self.d_model))
      self.columns_XD = self.param("columns_XD", normal, (self.columns, self.d_model))

  def __call__(self, positions):
    """float32 [.., d_model] of positions that are counted row by row."""
    y, x = positions // self.columns, positions % self.columns
    if self.kind == "learned":
      return jnp.take(self.rows_YD, y, axis=0) + jnp.take(self.columns_XD, x, axis=0)
    return jnp.concatenate([sinusoidal(at, self.d_model // 2) for at in (y, x)], -1)


class ImageTransformer(nn.Module):
  config: Config

  def setup(self):
    c = self.config
    if c.head == "categorical":
      self.values = Values(c.d_model)
      self.table_VD = self.param("table_VD", nn.initializers.normal(c.d_model**-0.5), (VALUES, c.d_model))
    else:
      self.pixel = Linear("BTU,UD->BTD", (3, c.d_model), use_bias=True, matmul_dtype=c.matmul_dtype)
      outputs = c.num_mixtures * dmol.outputs_per_component(3)
      self.kernel_DP = self.param("kernel_DP", glorot(1), (c.d_model, outputs))
      self.bias_P = self.param("bias_P", nn.initializers.zeros, (outputs,))
    self.coordinates = Coordinates(c.positions, c.d_model, c.size, c.columns)
    if c.num_classes:
      self.classes_ED = self.param("classes_ED", nn.initializers.normal(c.d_model**-0.5), (c.num_classes, c.d_model))
    self.decoder = layers.Stack(c, c.stacks()["attention"])
    self.dropout = Dropout(c.dropout)

  # What positions are given

  def embed(self, values_BTU, positions_T):
    """The embedding BTD of what stands at these positions: one value, or the three of a pixel."""
    c = self.config
    if c.head == "categorical":
      x_BTD = self.values(values_BTU[..., 0], positions_T[None] % 3)
      return x_BTD * c.d_model**0.5 if c.scale_embedding else x_BTD
    return self.pixel(values_BTU.astype(jnp.float32) / 127.5 - 1)

  def place(self, x_BTD, positions_T, batch):
    """With where the positions stand, and the class of the image."""
    x_BTD = x_BTD + self.coordinates(positions_T)[None]
    if self.config.num_classes:
      classes_BD = jnp.take(self.classes_ED, batch["labels"], axis=0, mode="clip")
      x_BTD = x_BTD + classes_BD[:, None] * self.config.d_model**0.5
    return x_BTD.astype(self.config.dtype)

  def memory(self, batch, *, train=False):
    """(memory_BSD, its segments) that all positions attend to, of a model that has an encoder."""
    return None, None

  # Training

  def trunk(self, batch, *, train=False):
    """The last layer's output BTD at each position, in raster order: from all that was generated before."""
    pixels_BYX3, order = batch["pixels"], self.config.order()
    values_BTU = pixels_BYX3.reshape(pixels_BYX3.shape[0], len(order), -1)
    raster = (order == np.arange(len(order))).all()
    x_BTD = self.embed(values_BTU if raster else values_BTU[:, order], jnp.asarray(order))
    x_BTD = jnp.pad(x_BTD[:, :-1], ((0, 0), (1, 0), (0, 0)))
    x_BTD = self.dropout(self.place(x_BTD, jnp.asarray(order), batch), train)
    segments_BT = jnp.ones(x_BTD.shape[:2], jnp.int32)
    x_BTD = self.decoder(x_BTD, segments_BT, *self.memory(batch, train=train), train=train)
    return x_BTD if raster else x_BTD[:, np.argsort(order)]

  def hidden(self, batch, *, train=False):
    """[B, Y, X, 3, D], of the head "categorical": times `output_table` the logits of each value."""
    x_BTD = self.trunk(batch, train=train)
    return x_BTD.reshape(*batch["pixels"].shape, x_BTD.shape[-1])

  def __call__(self, batch, *, train=False):
    """Logits [B, Y, X, 3 * 256], or the parameters of mixtures; float32."""
    outputs = self.output(self.trunk(batch, train=train))
    return outputs.reshape(*batch["pixels"].shape[:3], -1)

  def output(self, x_BTD):
    if self.config.head == "categorical":
      return logits(self.config, x_BTD, self.table_VD)
    outputs_BTP = einsum("BTD,DP->BTP", x_BTD, self.kernel_DP, jnp.float32, self.config.matmul_dtype)
    return outputs_BTP + self.bias_P[None, None]

  # Cached decoding

  def read(self, batch):
    """What the steps read: for each layer keys and values of the memory; None without an encoder."""
    memory_BSD, _ = self.memory(batch)
    if memory_BSD is None:
      return None
    return [layer.cross_attention.keys_values(memory_BSD) for layer in self.decoder.blocks]

  def step(self, pixels_BYX3, i, cache, batch, memory):
    """Generates position order[i]. Returns (outputs_BP, cache)."""
    order = jnp.asarray(self.config.order())
    values_BTU = pixels_BYX3.reshape(pixels_BYX3.shape[0], len(order), -1)
    before = order[jnp.maximum(i - 1, 0)][None]
    x_BMD = self.embed(jnp.take(values_BTU, before, axis=1), before)
    x_BMD = self.place(jnp.where(i > 0, x_BMD, 0), order[i][None], batch)
    ancestry_BJZ = cache_lib.extend(cache["ancestry_BJZ"], i, 1)
    x_BMD, kv = self.decoder.step(x_BMD, i, cache["layers"], ancestry_BJZ, memory)
    return self.output(x_BMD)[:, 0], {"layers": kv, "ancestry_BJZ": ancestry_BJZ}


Model = ImageTransformer


def output_table(params):
  """The table_VD of the logits, of the head "categorical"; else None."""
  return params.get("table_VD")


def decoding(config: Config, params, batch) -> PixelDecoding:
  """batch: "labels" [B]."""
  return decoding_of(ImageTransformer(config), params, batch)


def decoding_of(model: ImageTransformer, params, batch) -> PixelDecoding:
  """`decoding` of a model that may be made of this one."""
  config, rows = model.config, next(iter(batch.values())).shape[0]
  apply = functools.partial(model.apply, {"params": params})
  memory, order = apply(batch, method="read"), config.order()

  def step(pixels_BYX3, i, cache):
    return apply(pixels_BYX3, i, cache, batch, memory, method="step")

  variants = config.variants(config.stacks()["attention"])
  return PixelDecoding(order, step, cache_lib.start(variants, rows, 1, len(order), config.dtype))
