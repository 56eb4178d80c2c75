"""ByteNet: "Neural Machine Translation in Linear Time", Kalchbrenner et al. 2016 (arXiv:1610.10099).

Two stacks of dilated convolutions that keep the resolution, the decoder on top of the encoder: target position t reads
column t of the source's representation. No attention, and time linear in the lengths, but for comparing
positions when rows are packed.

| what               | the paper                               | here                                                 |
|--------------------|-----------------------------------------|------------------------------------------------------|
| tokens             | characters, source with their n-grams   | the task's pieces                                    |
| unfolding          | source of s tokens padded to a s + b    | the same, rounded down; s is no multiple of 50       |
| beyond a s + b     | the target's own past alone             | the same: columns of zeros                           |
| where both meet    | the decoder stands on the encoder       | column + target embedding                            |
| multiplicative     | LN, ReLU, 1x1, LN, ReLU, units 1xk and  | the same                                             |
| block              | 1x1, then 1x1 (figure 3, from memory)   |                                                      |
| after the blocks   | convolution, ReLU, convolution          | both of width 1, with a LayerNorm before them        |
| LayerNorm          | over which axes is not stated           | the channels of one position, in both stacks         |
| first values       | not stated                              | Glorot-uniform; embeddings N(0, 1/2d) times sqrt(2d) |
| dropout            | not stated                              | `dropout` of what a block adds, 0 by default         |
| packed rows        | one sentence pair a row                 | kernels do not cross segments; needs b = 0           |

Letters beside the house's: D = 2d channels between blocks, F = d inside them, W width of a kernel, A four gates of F
side by side, U inputs that a step of a convolution keeps, M = B J rows of beams.
"""

import dataclasses
import fractions
import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.linear import Linear, glorot, logits
from attention_zoo.layers.rounding import rounded
from attention_zoo.ops.convolution import conv1d_step, packed_conv1d
from attention_zoo.protocols import Decoding

BATCH = ("source", "source_segments", "inputs", "target_segments", "target_positions")
PAD = 0  # the token that a source is extended with


@dataclasses.dataclass(frozen=True)
class Config:
  """The paper's model for translation: 30 blocks of ReLUs in encoder and decoder, 800 channels inside them."""

  vocab_size: int
  d: int = 800
  num_sets: int = 6  # of blocks whose rates are 1, 2, 4, .. max_rate, in encoder and decoder each
  max_rate: int = 16
  kernel_size: int = 3
  residual: str = "relu"  # or "multiplicative", the paper's for language models
  a: float = 1.2  # the target is taken to be at most a times as long as the source,
  b: float = 0.0  # and b longer
  dropout: float = 0.0
  norm_epsilon: float = 1e-6
  dtype: str = "float32"  # of activations; parameters are float32
  matmul_dtype: str = "float32"  # what the operands of convolutions are rounded to; sums are float32

  def __post_init__(self):
    for field, choices in (
      ("residual", ("relu", "multiplicative")),
      ("dtype", ("float32", "bfloat16")),
      ("matmul_dtype", ("float32", "bfloat16")),
    ):
      if getattr(self, field) not in choices:
        raise ValueError(f"model.{field} must be one of {choices}, got {getattr(self, field)!r}")
    for field in ("d", "num_sets", "max_rate", "kernel_size"):
      if getattr(self, field) < 1:
        raise ValueError(f"model.{field} must be at least 1, got {getattr(self, field)!r}")
    if self.max_rate & (self.max_rate - 1):
      raise ValueError(f"model.max_rate must be a power of two, got {self.max_rate}")
    if not 0 <= self.dropout <= 1:
      raise ValueError(f"model.dropout must be from 0 to 1, got {self.dropout!r}")
    if not 1 <= self.a < math.inf or not 0 <= self.b < math.inf:
      raise ValueError(f"model.a must be at least 1 and model.b at least 0, got {self.a!r} and {self.b!r}")

  @property
  def rates(self) -> tuple[int, ...]:
    """The dilation of each block of a stack."""
    return tuple(2**i for i in range(self.max_rate.bit_length())) * self.num_sets

  @property
  def packs(self) -> bool:
    """Whether a row may hold several sentences: without b, their extended lengths fit into an extended row."""
    return self.b == 0

  def unfolded(self, longest: int) -> np.ndarray:
    """The lengths a s + b, for s = 0, 1, .. `longest`."""
    a, b = (fractions.Fraction(str(x)) for x in (self.a, self.b))  # exactly: parts of a row are not longer than the row
    return np.array([math.floor(a * length + b) if length else 0 for length in range(longest + 1)], np.int32)


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  d, k = config.d, config.kernel_size
  block = (4 + k) * d**2 + 12 * d if config.residual == "relu" else (8 + 4 * k) * d**2 + 17 * d
  return 2 * len(config.rates) * block + 3 * config.vocab_size * 2 * d + 4 * d**2 + 6 * d


def small() -> Config:
  """For tests. Every source token is within the reach of every other one."""
  return Config(vocab_size=11, d=6, num_sets=1, max_rate=4)


class Unfolded(NamedTuple):
  """Sources that are extended to the estimated lengths of their targets, one behind the other.

  source_BS, segments_BS: as in a batch, in longer rows. starts, lengths: of each segment, [B, most segments of a row].
  """

  source_BS: jax.Array
  segments_BS: jax.Array
  starts: jax.Array
  lengths: jax.Array


def unfold(config: Config, source_BS, segments_BS) -> Unfolded:
  """Each sentence of s tokens is followed by PAD up to the length a s + b."""
  S = source_BS.shape[1]
  table = config.unfolded(S)
  mine = segments_BS[:, :, None] == jnp.arange(1, S + 1, dtype=jnp.int32)[None, None]
  first, counts = jnp.argmax(mine, 1), mine.sum(1, dtype=jnp.int32)
  lengths = jnp.asarray(table)[counts]
  ends = jnp.cumsum(lengths, 1)
  starts = ends - lengths

  place = jnp.arange(table[S], dtype=jnp.int32)[None]
  number = (place[:, :, None] >= ends[:, None]).sum(-1)  # of segments that end before the place
  real = place < ends[:, -1:]
  of_segment = lambda values: jnp.take_along_axis(values, jnp.minimum(number, S - 1), 1)
  position = place - of_segment(starts)
  tokens = jnp.take_along_axis(source_BS, jnp.clip(of_segment(first) + position, 0, S - 1), 1)
  tokens = jnp.where(real & (position < of_segment(counts)), tokens, PAD)
  return Unfolded(tokens, jnp.where(real, number + 1, 0), starts, lengths)


def columns(memory_BSD, unfolded: Unfolded, segments_BT, positions_BT):
  """BTD: at each target position the column of its own sentence at that position, zeros behind its a s + b."""
  of_segment = lambda values: jnp.take_along_axis(values, jnp.clip(segments_BT - 1, 0, values.shape[1] - 1), 1)
  exists_BT = (segments_BT > 0) & (positions_BT < of_segment(unfolded.lengths))
  place_BT = jnp.clip(of_segment(unfolded.starts) + positions_BT, 0, memory_BSD.shape[1] - 1)
  # vmap: each row is indexed on the device that holds it.
  columns_BTD = jax.vmap(lambda memory_SD, place_T: memory_SD[place_T])(memory_BSD, place_BT)
  return jnp.where(exists_BT[..., None], columns_BTD, 0)


class Table(nn.Module):
  """Vectors of all tokens."""

  config: Config

  def setup(self):
    D = 2 * self.config.d
    self.table_VD = self.param("table_VD", nn.initializers.normal(D**-0.5), (self.config.vocab_size, D))

  def __call__(self, tokens):
    rows = jnp.take(self.table_VD, tokens, axis=0, mode="clip")
    return (rows * (2 * self.config.d) ** 0.5).astype(self.config.dtype)


class Convolution(nn.Module):
  """A dilated convolution of d channels into `gates` times as many, masked where it is causal."""

  config: Config
  width: int
  rate: int = 1
  causal: bool = False
  gates: int = 1

  def setup(self):
    F, letter = self.config.d, "F" if self.gates == 1 else "A"
    self.kernel = self.param(f"kernel_WF{letter}", glorot(2), (self.width, F, self.gates * F))
    self.bias = self.param(f"bias_{letter}", nn.initializers.zeros, (self.gates * F,))

  def __call__(self, x_BTF, segments_BT):
    padding = "causal" if self.causal else "same"
    y = packed_conv1d(
      x_BTF, self.kernel, segments_BT, dilation=self.rate, padding=padding, matmul_dtype=self.config.matmul_dtype
    )
    return y + self.bias.astype(y.dtype)[None, None]

  def step(self, x_BJF, past_BJUF):
    """One position of J beams. Returns (what it makes of it, the inputs to keep)."""
    in_one = lambda x: x.reshape(math.prod(x.shape[:2]), *x.shape[2:])
    y_MF, past_MUF = conv1d_step(
      in_one(x_BJF), in_one(past_BJUF), self.kernel, dilation=self.rate, matmul_dtype=self.config.matmul_dtype
    )
    y = y_MF.reshape(*x_BJF.shape[:2], -1)
    return y + self.bias.astype(y.dtype)[None, None], past_MUF.reshape(past_BJUF.shape)


def multiplicative_unit(h_BTF, y_BTA):
  """g1 tanh(g2 h + g3 u) with the sigmoids g1, g2, g3 and the tanh u of the four parts of y (Video Pixel Networks,
  Kalchbrenner et al. 2016, arXiv:1610.00527). y_BTA: a convolution of h_BTF."""
  *gates, update_BTF = jnp.split(y_BTA, 4, axis=-1)
  g1_BTF, g2_BTF, g3_BTF = map(jax.nn.sigmoid, gates)
  return g1_BTF * jnp.tanh(g2_BTF * h_BTF + g3_BTF * jnp.tanh(update_BTF))


class Block(nn.Module):
  """A residual block (figure 3) around one dilated convolution."""

  config: Config
  rate: int
  causal: bool

  def setup(self):
    c = self.config
    D, F = 2 * c.d, c.d
    linear = functools.partial(Linear, use_bias=True, matmul_dtype=c.matmul_dtype)
    norm = functools.partial(nn.LayerNorm, epsilon=c.norm_epsilon, dtype=c.dtype)
    self.enter, self.leave = linear("BTD,DF->BTF", (D, F)), linear("BTF,FD->BTD", (F, D))
    self.enter_norm, self.convolution_norm = norm(), norm()
    convolution = functools.partial(Convolution, c, c.kernel_size, self.rate, self.causal)
    if c.residual == "relu":
      self.convolution, self.leave_norm = convolution(), norm()
    else:
      self.convolution, self.pointwise = convolution(gates=4), Convolution(c, 1, gates=4)
    self.dropout = Dropout(c.dropout)

  def _before(self, x_BTD):
    """What is convolved."""
    h_BTF = self.enter(nn.relu(self.enter_norm(x_BTD)))
    return nn.relu(self.convolution_norm(h_BTF))

  def _behind(self, h_BTF, y, one_segment):
    """What is added to the block's input; y: what the convolution has made of h."""
    if self.config.residual == "relu":
      return self.leave(nn.relu(self.leave_norm(y)))
    h_BTF = multiplicative_unit(h_BTF, y)
    return self.leave(multiplicative_unit(h_BTF, self.pointwise(h_BTF, one_segment)))

  def __call__(self, x_BTD, segments_BT, *, train=False):
    h_BTF = self._before(x_BTD)
    h_BTD = self._behind(h_BTF, self.convolution(h_BTF, segments_BT), segments_BT)
    return x_BTD + self.dropout(h_BTD, train)

  def step(self, x_BJD, past_BJUF):
    """One position of J beams. Returns (x_BJD, the inputs to keep)."""
    h_BJF = self._before(x_BJD)
    y, past_BJUF = self.convolution.step(h_BJF, past_BJUF)
    return x_BJD + self._behind(h_BJF, y, jnp.ones(x_BJD.shape[:2], jnp.int32)), past_BJUF


class Stack(nn.Module):
  """Blocks one on the other."""

  config: Config
  causal: bool

  def setup(self):
    c = self.config
    self.blocks = [Block(c, rate, self.causal, name=f"block_{i}") for i, rate in enumerate(c.rates)]

  def __call__(self, x_BTD, segments_BT, *, train=False):
    for block in self.blocks:
      x_BTD = block(x_BTD, segments_BT, train=train)
    return x_BTD

  def step(self, x_BJD, past):
    kept = []
    for block, past_BJUF in zip(self.blocks, past, strict=True):
      x_BJD, past_BJUF = block.step(x_BJD, past_BJUF)
      kept.append(past_BJUF)
    return x_BJD, kept


class ByteNet(nn.Module):
  """Tokens and segment ids are int32; segment 0 is padding; positions count within a segment."""

  config: Config

  def setup(self):
    c = self.config
    D = 2 * c.d
    self.source_embedding, self.target_embedding, self.output = Table(c), Table(c), Table(c)
    self.encoder, self.decoder = Stack(c, causal=False), Stack(c, causal=True)
    self.closing_norm = nn.LayerNorm(epsilon=c.norm_epsilon, dtype=c.dtype)
    self.closing = Linear("BTD,DF->BTF", (D, 2 * c.d), use_bias=True, matmul_dtype=c.matmul_dtype)

  def encode(self, source_BS, segments_BS, *, train=False):
    """(the representation of the extended source, where what stands in it)."""
    unfolded = unfold(self.config, source_BS, segments_BS)
    x_BSD = self.source_embedding(unfolded.source_BS)
    return self.encoder(x_BSD, unfolded.segments_BS, train=train), unfolded

  def close(self, x_BTD):
    return nn.relu(self.closing(self.closing_norm(x_BTD)))

  def hidden(self, batch, *, train=False):
    """The closing layer's output BTD for a batch of `data/batches.py`."""
    segments_BT = batch["target_segments"]
    memory_BSD, unfolded = self.encode(batch["source"], batch["source_segments"], train=train)
    x_BTD = columns(memory_BSD, unfolded, segments_BT, batch["target_positions"])
    x_BTD += self.target_embedding(batch["inputs"])
    return self.close(self.decoder(x_BTD, segments_BT, train=train))

  def logits(self, x_BTD):
    """Scores of all tokens, float32 BTV."""
    return logits(self.config, x_BTD, self.output.table_VD)

  def __call__(self, batch, *, train=False):
    """Logits BTV (float32)."""
    return self.logits(self.hidden(batch, train=train))

  def step(self, tokens_BJ1, t, memory_BSD, unfolded, past):
    """Feeds position t to J beams. Returns (logits_BJ1V, past)."""
    B = memory_BSD.shape[0]
    first_B1, t_B1 = jnp.ones((B, 1), jnp.int32), jnp.full((B, 1), t, jnp.int32)
    x_BJD = columns(memory_BSD, unfolded, first_B1, t_B1) + self.target_embedding(tokens_BJ1[:, :, 0])
    x_BJD, past = self.decoder.step(x_BJD, past)
    return self.logits(self.close(x_BJD))[:, :, None], past


Model = ByteNet


def output_table(params):
  """The table_VD of the output, for losses that do not keep the logits (`training/loss.py`)."""
  return params["output"]["table_VD"]


def decoding(config: Config, params, inputs, *, num_beams) -> Decoding:
  """The Decoding of a batch of sentences, one a row. inputs: "source", "source_segments" of `data/batches.py`, BS.

  The cache holds the last inputs of each convolution of the decoder, so that a step goes on where the one before ended.
  """
  model = ByteNet(config)
  memory_BSD, unfolded = model.apply({"params": params}, inputs["source"], inputs["source_segments"], method="encode")

  def run(params, tokens_BJ1, t, past):
    return model.apply({"params": params}, tokens_BJ1, t, memory_BSD, unfolded, past, method="step")

  B, U = memory_BSD.shape[0], config.kernel_size - 1
  past = [jnp.zeros((B, num_beams, U * rate, config.d), config.dtype) for rate in config.rates]
  params = rounded(run, params, jnp.zeros((B, num_beams, 1), jnp.int32), jnp.int32(0), past)
  return Decoding(past, functools.partial(run, params))
