"""Non-local neural networks: "Non-local Neural Networks", Wang et al. 2018 (arXiv:1711.07971), as a classifier.

A ResNet (He et al. 2016) with non-local blocks (`ops/image.py`) between its residual ones: every position of an image,
or of a video, reads all others at once. `form = "local"` is the control of the same size: the same number of parameters
in a residual block of 1 x 1 convolutions, which reads nothing else than its own position.

| what               | the paper                                   | here                                            |
|--------------------|---------------------------------------------|-------------------------------------------------|
| network            | ResNet-50, C2D: convolutions in space alone | the same for images and videos                  |
| non-local blocks   | 2 in res3, 3 in res4, after every other one | the same                                        |
| forms              | four                                        | the same, and "local", the control              |
| keys and values    | max-pooled by 2 in space                    | the same, `pool`; a window must fit             |
| the block's output | batch normalisation that begins with 0      | z begins with 0, no normalisation               |
| normalisation      | by batch                                    | of each position over its channels (LayerNorm): |
|                    |                                             | nothing but the blocks mixes far positions      |
| pooling of time    | 3, stride 2, after conv1 and res2           | 2, stride 2, there                              |
| pooling of space   | 3 x 3, stride 2, after conv1 (from memory)  | 2 x 2, stride 2                                 |
| end                | mean over positions, dropout 0.5, linear    | the same                                        |
| first parameters   | of ImageNet                                 | random: Glorot-uniform                          |

Letters beside the house's: F output channels, Y and X of a kernel: its rows and columns; V classes.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers import pixels
from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.linear import Linear, glorot
from attention_zoo.ops import image, masked_convolution

BATCH = ("pixels",)
FORMS = ("embedded_gaussian", "gaussian", "dot_product", "concatenation", "local")


@dataclasses.dataclass(frozen=True)
class Config(pixels.Config):
  """The paper's ResNet-50 with five non-local blocks. Tuples: a number for each stage, res2, res3, .."""

  form: str = "embedded_gaussian"
  widths: tuple = (64, 128, 256, 512)  # of the 3 x 3 convolutions
  blocks: tuple = (3, 4, 6, 3)
  strides: tuple = (1, 2, 2, 2)
  nonlocal_blocks: tuple = (0, 2, 3, 0)
  expansion: int = 4  # channels between blocks, in widths
  stem_kernel_size: int = 7
  stem_stride: int = 2  # where it is 2, pooling by 2 follows
  pool: int = 2  # of keys and values, in space
  dropout: float = 0.5

  def __post_init__(self):
    super().__post_init__()
    if self.form not in FORMS:
      raise ValueError(f"model.form must be one of {FORMS}, got {self.form!r}")
    lengths = {len(part) for part in (self.widths, self.blocks, self.strides, self.nonlocal_blocks)}
    if len(lengths) != 1 or not self.widths:
      raise ValueError("model.widths, blocks, strides and nonlocal_blocks must have a number for each stage")
    if min(*self.widths, *self.blocks, *self.strides) < 1:
      raise ValueError("the numbers of model.widths, blocks and strides must be at least 1")
    for number, blocks in zip(self.nonlocal_blocks, self.blocks, strict=True):
      if not 0 <= number <= blocks:
        raise ValueError(f"model.nonlocal_blocks: a stage of {blocks} blocks cannot have {number} non-local ones")
    if self.stem_stride not in (1, 2) or self.stem_kernel_size % 2 == 0:
      raise ValueError("model.stem_stride must be 1 or 2, and stem_kernel_size odd")
    if self.num_classes < 2:
      raise ValueError("a classifier needs config.data.num_classes of at least 2")
    if any(width * self.expansion % 2 for width in self.widths):
      raise ValueError("model.widths times expansion must be even: a non-local block has half as many channels inside")

  @property
  def head(self) -> str:
    return "classes"

  def nonlocal_after(self, stage: int) -> set[int]:
    """The residual blocks of a stage that a non-local one follows: every other one, where there are half as many."""
    number, blocks = self.nonlocal_blocks[stage], self.blocks[stage]
    return {(i + 1) * blocks // number - 1 for i in range(number)}


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c = config
  norm = lambda width: 2 * width
  D = c.widths[0]
  total = 3 * c.stem_kernel_size**2 * D + norm(D)
  for stage, (width, blocks) in enumerate(zip(c.widths, c.blocks, strict=True)):
    out = width * c.expansion
    for i in range(blocks):
      total += D * width + 9 * width**2 + width * out + 2 * norm(width) + norm(out)
      total += (D * out + norm(out)) if i == 0 else 0
      D = out
    inner = D // 2
    block = {"gaussian": 2 * D * inner, "concatenation": 4 * D * inner + 2 * inner}.get(c.form, 4 * D * inner)
    total += c.nonlocal_blocks[stage] * block
  return total + D * c.num_classes + c.num_classes


def small() -> Config:
  """For tests."""
  return Config(
    size=8, num_classes=3, widths=(4, 6), blocks=(1, 2), strides=(1, 2), nonlocal_blocks=(0, 1), expansion=2,
    stem_kernel_size=3, stem_stride=1, dropout=0.0,
  )  # fmt: skip


class NonLocal(nn.Module):
  """x + z(form of x), for x [B, space..., D]."""

  config: Config

  @nn.compact
  def __call__(self, x):
    c, D = self.config, x.shape[-1]
    K = H = D // 2
    param = lambda name, *shape: self.param(name, glorot(1), shape).astype(x.dtype)
    zeros = lambda *shape: self.param("z_HD", nn.initializers.zeros, shape).astype(x.dtype)
    if c.form == "local":
      inner = jax.nn.relu(jnp.matmul(x, param("g_DH", D, D)))
      return x + jnp.matmul(inner, zeros(D, D))
    form, bound = getattr(image, c.form), {}
    if c.form != "gaussian":
      bound = {"theta_DK": param("theta_DK", D, K), "phi_DK": param("phi_DK", D, K)}
    if c.form == "concatenation":
      weight = lambda name: self.param(name, nn.initializers.normal(K**-0.5), (K,)).astype(x.dtype)
      bound |= {"query_weight_K": weight("query_weight_K"), "key_weight_K": weight("key_weight_K")}
    pool = tuple(min(c.pool, size) for size in x.shape[-3:-1])
    pool = (1,) * (x.ndim - 4) + pool  # a video is not pooled in time
    return image.nonlocal_block(x, functools.partial(form, **bound), param("g_DH", D, H), zeros(H, D), pool=pool)


class Norm(nn.Module):
  """LayerNorm (Ba et al. 2016) over the channels of each position."""

  @nn.compact
  def __call__(self, x):
    scale_D = self.param("scale_D", nn.initializers.ones, x.shape[-1:])
    bias_D = self.param("bias_D", nn.initializers.zeros, x.shape[-1:])
    wide = x.astype(jnp.float32)
    wide -= wide.mean(-1, keepdims=True)
    wide *= jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + 1e-6)
    ahead = (1,) * (x.ndim - 1)
    return (wide * scale_D.reshape(*ahead, -1) + bias_D.reshape(*ahead, -1)).astype(x.dtype)


class ConvNorm(nn.Module):
  """A convolution in space and its normalisation; a video's images by themselves."""

  features: int
  kernel_size: int
  stride: int = 1
  matmul_dtype: str | None = None

  @nn.compact
  def __call__(self, x):
    size = self.kernel_size
    kernel_YXDF = self.param("kernel_YXDF", glorot(3), (size, size, x.shape[-1], self.features))
    images_BYXD = x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])
    margins = ((size // 2, size // 2),) * 2
    y_BYXF = masked_convolution.conv2d(
      images_BYXD, kernel_YXDF, margins, stride=self.stride, matmul_dtype=self.matmul_dtype
    )
    return Norm(name="norm")(y_BYXF.reshape(*x.shape[:-3], *y_BYXF.shape[1:]))


class Residual(nn.Module):
  """The bottleneck block: relu(x + 1 x 1 of 3 x 3 of 1 x 1)."""

  config: Config
  width: int
  stride: int
  widen: bool  # the first one of a stage, whose input is not of the output's shape

  @nn.compact
  def __call__(self, x):
    c, out = self.config, self.width * self.config.expansion
    conv = functools.partial(ConvNorm, matmul_dtype=c.matmul_dtype)
    y = jax.nn.relu(conv(self.width, 1, name="conv_0")(x))
    y = jax.nn.relu(conv(self.width, 3, self.stride, name="conv_1")(y))
    y = conv(out, 1, name="conv_2")(y)
    return jax.nn.relu(y + (conv(out, 1, self.stride, name="widen")(x) if self.widen else x))


def max_pool(x, time: int, space: int):
  """Of a video in time and space, of an image in space; what does not fill a window is left out."""
  pools = (space, space) if x.ndim == 4 else (min(time, x.shape[1]), space, space)
  window = (1, *pools, 1)
  return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


class NonLocalNet(nn.Module):
  config: Config

  @nn.compact
  def __call__(self, batch, *, train=False):
    """Logits BV, float32. batch: "pixels" int [B, Y, X, 3], or of videos [B, T, Y, X, 3]."""
    c = self.config
    x = pixels.places(batch["pixels"], c.dtype)
    x = ConvNorm(c.widths[0], c.stem_kernel_size, c.stem_stride, c.matmul_dtype, name="stem")(x)
    x = jax.nn.relu(x)
    if c.stem_stride > 1:
      x = max_pool(x, 2, 2)
    for stage, (width, blocks, stride) in enumerate(zip(c.widths, c.blocks, c.strides, strict=True)):
      for i in range(blocks):
        first = i == 0
        x = Residual(c, width, stride if first else 1, first, name=f"stage_{stage}_block_{i}")(x)
        if i in c.nonlocal_after(stage):
          x = NonLocal(c, name=f"stage_{stage}_nonlocal_{i}")(x)
      if stage == 0 and x.ndim == 5:
        x = max_pool(x, 2, 1)
    x_BD = x.mean(range(1, x.ndim - 1))
    x_BD = Dropout(c.dropout)(x_BD, train)
    output = Linear("BD,DV->BV", (x_BD.shape[-1], c.num_classes), use_bias=True, name="output")
    return output(x_BD).astype(jnp.float32)


Model = NonLocalNet
