"""SAGAN: "Self-Attention Generative Adversarial Networks", Zhang et al. 2019 (arXiv:1805.08318).

A generator and a discriminator of residual blocks, each with one self-attention module (`ops/image.py`) at one
resolution, which lets far parts of an image agree. Both are spectrally normalised; the largest singular values are
followed by a power iteration, whose vectors are variables without gradients. attention_size = 0 is the model without.

| what             | the paper                                    | here                                       |
|------------------|----------------------------------------------|--------------------------------------------|
| images           | 128 x 128, attention at 32 x 32 (feat32)     | the same; any size 4 * 2^n, any resolution |
| attention        | keys, queries, values of D / 8; gamma from 0 | the same                                   |
| spectral norm    | in both players, one step of power iteration | the same                                   |
| generator's norm | conditional batch normalisation              | conditional, of each position over its     |
|                  |                                              | channels: images do not see each other     |
| discriminator    | projection of the class (Miyato and Koyama)  | the same                                   |
| blocks           | those of the published code (from memory)    | the same; widths halve with each doubling  |
| up and down      | nearest neighbours, mean of 2 x 2            | the same                                   |
| loss             | hinge                                        | `tasks/gan.py`                             |
| first values     | orthogonal or Glorot (from memory)           | Glorot-uniform                             |

Letters beside the house's: F output channels, Y and X of a kernel: its rows and columns; V classes, U inputs of a
kernel in one dimension.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers import pixels
from attention_zoo.layers.linear import glorot
from attention_zoo.ops import image
from attention_zoo.ops.masked_convolution import conv2d
from attention_zoo.ops.spectral_norm import spectral_norm

BATCH = ("pixels", "labels")
START = 4  # rows and columns that the generator begins with


@dataclasses.dataclass(frozen=True)
class Config(pixels.Config):
  """The paper's model for ImageNet at 128 x 128, but for its 1,000 classes."""

  features: int = 64  # of the largest resolution
  d_noise: int = 128
  # Rows and columns of what the attention sees; 0: there is none.
  attention_size: int = dataclasses.field(default=32, metadata={"low": 0})

  def __post_init__(self):
    super().__post_init__()
    if self.size < 2 * START or START * 2**self.stages != self.size:
      raise ValueError(f"the size of the images must be {START} times a power of two, at least {2 * START}, "
                       f"got {self.size}")  # fmt: skip
    if self.attention_size not in (0, *self.attention_sizes):
      raise ValueError(f"model.attention_size must be 0 or one of {self.attention_sizes}, got {self.attention_size}")

  @property
  def head(self) -> str:
    return "players"

  @property
  def stages(self) -> int:
    """How often the generator doubles the resolution."""
    return (self.size // START).bit_length() - 1

  @property
  def attention_sizes(self) -> tuple[int, ...]:
    """The resolutions that both players have between two blocks."""
    return tuple(START * 2**i for i in range(1, self.stages))

  def generator_width(self, stage: int) -> int:
    return self.features * 2 ** (self.stages - 1 - stage)

  def discriminator_width(self, stage: int) -> int:
    return self.features * 2**stage


def inner(D: int) -> int:
  """Channels of keys, queries and values in an attention over D."""
  return max(D // 8, 1)


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c, n, classes = config, config.stages, max(config.num_classes, 1)
  conv = lambda D, F, size=3: size * size * D * F + F
  norm = lambda D: 2 * classes * D
  attention = lambda D: D * inner(D) * 4 + 1
  widest = c.generator_width(0)
  generator = c.d_noise * START**2 * widest + START**2 * widest + norm(c.features) + conv(c.features, 3)
  discriminator, D_up, D_down = 0, widest, 3
  for i in range(n):
    up, down = c.generator_width(i), c.discriminator_width(i)
    generator += norm(D_up) + conv(D_up, up) + norm(up) + conv(up, up) + conv(D_up, up, 1)
    generator += attention(up) if START * 2 ** (i + 1) == c.attention_size else 0
    discriminator += conv(D_down, down) + conv(down, down) + conv(D_down, down, 1)
    discriminator += attention(down) if c.size // 2 ** (i + 1) == c.attention_size else 0
    D_up, D_down = up, down
  discriminator += 2 * conv(D_down, D_down) + D_down + 1 + c.num_classes * D_down
  return generator + discriminator


def small() -> Config:
  """For tests."""
  return Config(size=16, num_classes=3, features=4, d_noise=4, attention_size=8)


class Spectral(nn.Module):
  """A kernel that is divided by its largest singular value. Each call in which the collection "spectral" may change is
  a step of the power iteration; without the collection, the iteration is at its beginning."""

  name_of: str
  shape: tuple[int, ...]

  @nn.compact
  def __call__(self, dtype):
    kernel = self.param(self.name_of, glorot(len(self.shape) - 1), self.shape)
    start = lambda: jax.random.normal(jax.random.key(0), self.shape[-1:])
    u_F = start()
    if self.has_variable("spectral", "u_F") or self.is_mutable_collection("spectral"):
      u_F = self.variable("spectral", "u_F", start).value
    kernel_UF, u_F = spectral_norm(kernel.reshape(-1, self.shape[-1]), u_F)
    if self.is_mutable_collection("spectral"):
      self.put_variable("spectral", "u_F", u_F)
    return kernel_UF.reshape(self.shape).astype(dtype)


class Dense(nn.Module):
  features: int

  @nn.compact
  def __call__(self, x_BD):
    kernel_DF = Spectral("kernel_DF", (x_BD.shape[-1], self.features), name="spectral")(x_BD.dtype)
    bias_F = self.param("bias_F", nn.initializers.zeros, (self.features,))
    return x_BD @ kernel_DF + bias_F.astype(x_BD.dtype)[None]


class Conv(nn.Module):
  features: int
  size: int = 3
  matmul_dtype: str | None = None

  @nn.compact
  def __call__(self, x_BYXD):
    shape = (self.size, self.size, x_BYXD.shape[-1], self.features)
    kernel_YXDF = Spectral("kernel_YXDF", shape, name="spectral")(x_BYXD.dtype)
    bias_F = self.param("bias_F", nn.initializers.zeros, (self.features,))
    margins = ((self.size // 2, self.size // 2),) * 2
    y_BYXF = conv2d(x_BYXD, kernel_YXDF, margins, matmul_dtype=self.matmul_dtype)
    return y_BYXF + bias_F.astype(y_BYXF.dtype)[None, None, None]


class Attention(nn.Module):
  """x + gamma attention(x), gamma from 0 on (eq. 3)."""

  @nn.compact
  def __call__(self, x_BYXD):
    D = x_BYXD.shape[-1]
    kernel = lambda name, *shape: Spectral(f"kernel_{name[-2:]}", shape, name=name)(x_BYXD.dtype)
    f_DK, g_DK, h_DH = (kernel(name, D, inner(D)) for name in ("keys_DK", "queries_DK", "values_DH"))
    gamma = self.param("gamma", nn.initializers.zeros, ())
    return image.sagan_attention(x_BYXD, f_DK, g_DK, h_DH, kernel("out_HD", inner(D), D), gamma)


class ClassNorm(nn.Module):
  """Each position over its channels, to mean 0 and deviation 1; scale and bias are the class's."""

  num_classes: int

  @nn.compact
  def __call__(self, x_BYXD, labels_B):
    shape = (max(self.num_classes, 1), x_BYXD.shape[-1])
    tables = (
      self.param("scale_VD", nn.initializers.ones, shape), self.param("bias_VD", nn.initializers.zeros, shape),
    )  # fmt: skip
    at_B = labels_B if self.num_classes else jnp.zeros_like(labels_B)
    scale, bias = (jnp.take(table_VD, at_B, axis=0, mode="clip")[:, None, None] for table_VD in tables)
    x = x_BYXD.astype(jnp.float32)
    x -= x.mean(-1, keepdims=True)
    x *= jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)
    return (x * scale + bias).astype(x_BYXD.dtype)


def double(x_BYXD):
  """Each pixel four times."""
  return jnp.repeat(jnp.repeat(x_BYXD, 2, 1), 2, 2)


def halve(x_BYXD):
  """The mean of each 2 x 2 pixels."""
  B, Y, X, D = x_BYXD.shape
  return x_BYXD.reshape(B, Y // 2, 2, X // 2, 2, D).mean((2, 4))


class Generator(nn.Module):
  config: Config

  @nn.compact
  def __call__(self, noise_BD, labels_B):
    c = self.config
    conv = functools.partial(Conv, matmul_dtype=c.matmul_dtype)
    norm = lambda name, x: jax.nn.relu(ClassNorm(c.num_classes, name=name)(x, labels_B))
    widest = c.generator_width(0)
    x = Dense(START**2 * widest, name="first")(noise_BD.astype(c.dtype)).reshape(-1, START, START, widest)
    for i in range(c.stages):
      width = c.generator_width(i)
      y = conv(width, name=f"block_{i}_conv_0")(double(norm(f"block_{i}_norm_0", x)))
      y = conv(width, name=f"block_{i}_conv_1")(norm(f"block_{i}_norm_1", y))
      x = y + double(conv(width, 1, name=f"block_{i}_shortcut")(x))
      if x.shape[1] == c.attention_size:
        x = Attention(name="attention")(x)
    return jnp.tanh(conv(3, name="last")(norm("last_norm", x)).astype(jnp.float32))


class Discriminator(nn.Module):
  config: Config

  @nn.compact
  def __call__(self, x_BYXD, labels_B):
    c, relu = self.config, jax.nn.relu
    conv = functools.partial(Conv, matmul_dtype=c.matmul_dtype)
    x = x_BYXD.astype(c.dtype)
    for i in range(c.stages):
      width = c.discriminator_width(i)
      y = conv(width, name=f"block_{i}_conv_0")(relu(x) if i else x)
      y = conv(width, name=f"block_{i}_conv_1")(relu(y))
      x = halve(y + conv(width, 1, name=f"block_{i}_shortcut")(x))
      if x.shape[1] == c.attention_size:
        x = Attention(name="attention")(x)
    y = conv(x.shape[-1], name="last_conv_0")(relu(x))
    x_BD = relu(x + conv(x.shape[-1], name="last_conv_1")(relu(y))).sum((1, 2))
    scores_B = Dense(1, name="output")(x_BD)[:, 0]
    if c.num_classes:
      table_VD = Spectral("table_VD", (c.num_classes, x_BD.shape[-1]), name="classes")(x_BD.dtype)
      scores_B += (jnp.take(table_VD, labels_B, axis=0, mode="clip") * x_BD).sum(-1)
    return scores_B.astype(jnp.float32)


class SAGAN(nn.Module):
  config: Config

  def setup(self):
    self.generator, self.discriminator = Generator(self.config), Discriminator(self.config)

  def generate(self, noise_BD, labels_B):
    """Images BYXD with values from -1 to 1, float32."""
    return self.generator(noise_BD, labels_B)

  def discriminate(self, x_BYXD, labels_B):
    """How real images are, any number, float32 B."""
    return self.discriminator(x_BYXD, labels_B)

  def __call__(self, batch, *, train=False):
    """The scores B of generated images plus those of the batch's: all parameters have a part in it."""
    labels_B = batch["labels"]
    noise_BD = jax.random.normal(jax.random.key(0), (len(labels_B), self.config.d_noise))
    generated = self.discriminate(self.generate(noise_BD, labels_B), labels_B)
    return generated + self.discriminate(pixels.places(batch["pixels"], jnp.float32), labels_B)


Model = SAGAN
