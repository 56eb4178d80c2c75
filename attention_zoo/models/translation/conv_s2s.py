"""ConvS2S: "Convolutional Sequence to Sequence Learning", Gehring et al. 2017 (arXiv:1705.03122).

Gated convolutions in encoder and decoder, and an attention of its own in every decoder layer. "The code" is the
authors' (fairseq's fconv), where it says more than the paper.

| what                    | the paper                           | here                                               |
|-------------------------|-------------------------------------|----------------------------------------------------|
| d = W h + b + g (eq. 1) | a plain sum                         | times sqrt(0.5), as the code                       |
| values z + e (eq. 2)    | a plain sum                         | times sqrt(0.5), as the code                       |
| conditional input c     | added to h                          | mapped to h's width, and times sqrt(0.5): the code |
| g                       | embedding of the previous word      | with its position and dropout, as the code         |
| encoder's gradient      | divided by the number of attentions | the same; the code halves it once more             |
| output layer            | with a bias                         | without: logits need not exist as a whole          |
| vocabulary              | 40,000 pieces                       | the task's; one for both sides                     |
| positions               | learned, up to some length          | the same; longer text is an error                  |
| weight normalisation    | all but look-up tables              | the same; or weight_norm=False                     |
| packed rows             | one sentence pair a row             | kernels and attention keep to their own segments   |

Letters beside the house's: D embeddings (f in the paper), F channels of a layer (d there), A a convolution's outputs
and their gates side by side, W width of a kernel, U inputs that a step of a convolution keeps, M = B J rows of beams.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.linear import logits
from attention_zoo.layers.positions import Positions
from attention_zoo.layers.rounding import rounded
from attention_zoo.ops import masks
from attention_zoo.ops.convolution import conv1d_step, packed_conv1d
from attention_zoo.ops.dot_product import attend, dot
from attention_zoo.ops.einsum import einsum
from attention_zoo.protocols import Decoding

BATCH = ("source", "source_segments", "source_positions", "inputs", "target_segments", "target_positions")
HALF = 0.5**0.5  # keeps the variance of a sum of two


@dataclasses.dataclass(frozen=True)
class Config:
  """The paper's model for WMT14 English-German (section 5.1), but for the dropout, which it does not state."""

  vocab_size: int
  d_model: int = 512  # of embeddings, and of what the output layer gets
  widths: tuple = (512,) * 10 + (768,) * 3 + (2048,) * 2  # channels of each layer, in encoder and decoder alike
  kernel_sizes: tuple = (3,) * 13 + (1,) * 2
  dropout: float = 0.1  # of embeddings, of the inputs of convolutions, and of the decoder's output
  weight_norm: bool = True
  max_length: int = 1024  # of the learned positions
  dtype: str = "float32"  # of activations; parameters are float32
  matmul_dtype: str = "float32"  # what the operands of linear maps are rounded to; sums are float32

  bounded = True  # nothing longer than max_length can be computed

  def __post_init__(self):
    for field in ("dtype", "matmul_dtype"):
      if getattr(self, field) not in ("float32", "bfloat16"):
        raise ValueError(f"model.{field} must be float32 or bfloat16, got {getattr(self, field)!r}")
    if not self.widths or len(self.widths) != len(self.kernel_sizes):
      raise ValueError(
        "model.widths and model.kernel_sizes must have one number a layer, "
        f"got {len(self.widths)} and {len(self.kernel_sizes)}"
      )
    for field in ("widths", "kernel_sizes"):
      if not all(isinstance(size, int) and size >= 1 for size in getattr(self, field)):
        raise ValueError(f"model.{field} must be whole numbers of at least 1, got {getattr(self, field)}")
    for field in ("d_model", "max_length"):
      if getattr(self, field) < 1:
        raise ValueError(f"model.{field} must be at least 1, got {getattr(self, field)!r}")
    if not 0 <= self.dropout < 1:
      raise ValueError(f"model.dropout must be at least 0 and below 1, got {self.dropout!r}")

  @property
  def layers(self) -> list[tuple[int, int, int]]:
    """(channels in, channels out, width of the kernel) of each layer."""
    return list(zip((self.widths[0], *self.widths), self.widths, self.kernel_sizes, strict=False))


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c = config

  def kernel(inputs, outputs):  # with its bias and lengths
    return (inputs + 1 + c.weight_norm) * outputs

  one_stack = kernel(c.d_model, c.widths[0]) + kernel(c.widths[-1], c.d_model)
  for before, width, size in c.layers:
    one_stack += kernel(size * before, 2 * width) + (kernel(before, width) if before != width else 0)
  attention = sum(kernel(width, c.d_model) + kernel(c.d_model, width) for width in c.widths)
  tables = 2 * (c.vocab_size + c.max_length) * c.d_model
  return 2 * one_stack + attention + tables + (c.d_model + c.weight_norm) * c.vocab_size


def small() -> Config:
  """For tests."""
  return Config(vocab_size=11, d_model=8, widths=(6, 6, 4), kernel_sizes=(3, 2, 1), dropout=0.0, max_length=16)


# Weight normalisation (Salimans and Kingma 2016, arXiv:1602.07868)


def normalised(v, g, axis):
  """g v / |v|: along `axis` stand the outputs, each with a vector v and its length g."""
  others = [i for i in range(v.ndim) if i != axis]
  return v * jnp.expand_dims(g, others) / jnp.sqrt(jnp.square(v).sum(others, keepdims=True))


def plain(params):
  """The parameters of the same model with weight_norm=False: each v and g become one kernel."""
  if not isinstance(params, dict):
    return params
  made = {name: plain(value) for name, value in params.items() if not name.startswith(("v_", "g_"))}
  for name in params:
    if name.startswith("v_"):
      letters = name.removeprefix("v_")
      (lengths,) = (other for other in params if other.startswith("g_"))
      made[f"kernel_{letters}"] = normalised(params[name], params[lengths], letters.rindex(lengths[-1]))
  return made


class Kernel(nn.Module):
  """A kernel with the normal first values of deviation `deviation`; its parameters end in its letters.

  axis: where the outputs stand.
  """

  config: Config
  letters: str
  shape: tuple[int, ...]
  deviation: float
  axis: int = -1

  @nn.compact
  def __call__(self):
    init = nn.initializers.normal(self.deviation)
    if not self.config.weight_norm:
      return self.param(f"kernel_{self.letters}", init, self.shape)
    axis = self.axis % len(self.shape)
    v = self.param(f"v_{self.letters}", init, self.shape)
    lengths = lambda key: jnp.sqrt(jnp.square(v).sum([i for i in range(v.ndim) if i != axis]))
    return normalised(v, self.param(f"g_{self.letters[axis]}", lengths), axis)


class Affine(nn.Module):
  """x W + b with x of the letter letters[0]. dropout: of x, which the first values make up for."""

  config: Config
  letters: str
  shape: tuple[int, int]
  dropout: float = 0.0

  def setup(self):
    deviation = ((1 - self.dropout) / self.shape[0]) ** 0.5
    self.kernel = Kernel(self.config, self.letters, self.shape, deviation)
    self.bias = self.param(f"bias_{self.letters[-1]}", nn.initializers.zeros, self.shape[1:])

  def __call__(self, x):
    y = einsum("BTD,DF->BTF", x, self.kernel(), None, self.config.matmul_dtype)
    return y + self.bias.astype(y.dtype)[None, None]


class Convolution(nn.Module):
  """A convolution and its gated linear unit (Dauphin et al. 2016): A sigmoid(B), with [A B] = x * W + b."""

  config: Config
  inputs: int
  outputs: int
  width: int
  causal: bool

  def setup(self):
    deviation = (4 * (1 - self.config.dropout) / (self.width * self.inputs)) ** 0.5
    shape = (self.width, self.inputs, 2 * self.outputs)
    self.kernel = Kernel(self.config, "WFA", shape, deviation)
    self.bias_A = self.param("bias_A", nn.initializers.zeros, (2 * self.outputs,))

  def _gate(self, y_BTA):
    a_BTF, b_BTF = jnp.split(y_BTA + self.bias_A.astype(y_BTA.dtype)[None, None], 2, axis=-1)
    return a_BTF * jax.nn.sigmoid(b_BTF)

  def __call__(self, x_BTF, segments_BT):
    padding = "causal" if self.causal else "same"
    dtype = self.config.matmul_dtype
    return self._gate(packed_conv1d(x_BTF, self.kernel(), segments_BT, padding=padding, matmul_dtype=dtype))

  def step(self, x_BJF, past_BJUF):
    """One position of J beams. Returns (what it makes of it, the inputs to keep)."""
    in_one = lambda x: x.reshape(math.prod(x.shape[:2]), *x.shape[2:])
    y_MA, past_MUF = conv1d_step(in_one(x_BJF), in_one(past_BJUF), self.kernel(), matmul_dtype=self.config.matmul_dtype)
    return self._gate(y_MA.reshape(*x_BJF.shape[:2], -1)), past_MUF.reshape(past_BJUF.shape)


class Attention(nn.Module):
  """A decoder layer's attention to the source (section 3.3); its weights are sown as `weights` [B, 1, T, S]."""

  config: Config
  width: int

  def setup(self):
    D, F = self.config.d_model, self.width
    self.query, self.output = Affine(self.config, "FD", (F, D)), Affine(self.config, "DF", (D, F))

  def __call__(self, h_BTF, target_BTD, memory, mask):
    """target_BTD: the embeddings g. memory: (keys_BSD, values_BSD). mask broadcasts to BNTS with N = 1. Returns BTF."""
    keys_BSD, values_BSD = memory
    d_BTD = (self.query(h_BTF) + target_BTD) * HALF
    logits_BNTS = dot(d_BTD[:, :, None], keys_BSD[:, :, None])
    out_BTNH, weights_BNTS = attend(logits_BNTS, values_BSD[:, :, None], mask=mask, return_weights=True)
    self.sow("intermediates", "weights", weights_BNTS)
    # A mean of m vectors has 1/m of their variance: times m sqrt(1/m) = sqrt(m).
    seen_BT1 = mask.sum(-1).swapaxes(1, 2)
    c_BTD = out_BTNH[:, :, 0] * jnp.sqrt(seen_BT1.astype(out_BTNH.dtype))
    return (self.output(c_BTD) + h_BTF) * HALF


class Layer(nn.Module):
  """A residual block around a gated convolution and, where it is causal, an attention."""

  config: Config
  inputs: int
  outputs: int
  width: int
  causal: bool

  def setup(self):
    c = self.config
    self.convolution = Convolution(c, self.inputs, self.outputs, self.width, self.causal)
    if self.inputs != self.outputs:
      self.residual = Affine(c, "FF", (self.inputs, self.outputs))
    if self.causal:
      self.cross_attention = Attention(c, self.outputs)
    self.dropout = Dropout(c.dropout)

  def _add(self, x_BTF, h_BTF):
    return (h_BTF + (x_BTF if self.inputs == self.outputs else self.residual(x_BTF))) * HALF

  def __call__(self, x_BTF, segments_BT, *attended, train=False):
    """attended: what `Attention` takes behind h."""
    h_BTF = self.convolution(self.dropout(x_BTF, train), segments_BT)
    if self.causal:
      h_BTF = self.cross_attention(h_BTF, *attended)
    return self._add(x_BTF, h_BTF)

  def step(self, x_BJF, past_BJUF, *attended):
    """One position of J beams. Returns (x_BJF, the inputs to keep)."""
    h_BJF, past_BJUF = self.convolution.step(x_BJF, past_BJUF)
    return self._add(x_BJF, self.cross_attention(h_BJF, *attended)), past_BJUF


class Stack(nn.Module):
  """Layers between a map from the embeddings and a map back."""

  config: Config
  causal: bool

  def setup(self):
    c = self.config
    self.enter = Affine(c, "DF", (c.d_model, c.widths[0]), c.dropout)
    self.blocks = [Layer(c, *sizes, self.causal, name=f"layer_{i}") for i, sizes in enumerate(c.layers)]
    self.leave = Affine(c, "FD", (c.widths[-1], c.d_model))

  def __call__(self, x_BTD, segments_BT, *attended, train=False):
    x_BTF = self.enter(x_BTD)
    for layer in self.blocks:
      x_BTF = layer(x_BTF, segments_BT, *attended, train=train)
    return self.leave(x_BTF)

  def step(self, x_BJD, past, *attended):
    x_BJF, kept = self.enter(x_BJD), []
    for layer, past_BJUF in zip(self.blocks, past, strict=True):
      x_BJF, past_BJUF = layer.step(x_BJF, past_BJUF, *attended)
      kept.append(past_BJUF)
    return self.leave(x_BJF), kept


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def scale_gradient(x, factor):
  """x, whose gradient is multiplied by factor."""
  return x


scale_gradient.defvjp(lambda x, factor: (x, None), lambda factor, _, gradient: (gradient * factor,))


class Embedding(nn.Module):
  """Vectors of all tokens."""

  config: Config

  def setup(self):
    shape = (self.config.vocab_size, self.config.d_model)
    self.table_VD = self.param("table_VD", nn.initializers.normal(0.1), shape)

  def __call__(self, tokens):
    return jnp.take(self.table_VD, tokens, axis=0, mode="clip").astype(self.config.dtype)


class ConvS2S(nn.Module):
  """Tokens and segment ids are int32; segment 0 is padding; positions count within a segment."""

  config: Config

  def setup(self):
    c = self.config
    places = lambda: Positions("learned", "add", c.max_length, c.d_model, deviation=0.1)
    self.source_embedding, self.target_embedding = Embedding(c), Embedding(c)
    self.source_positions, self.target_positions = places(), places()
    self.encoder, self.decoder = Stack(c, causal=False), Stack(c, causal=True)
    self.output = Kernel(c, "VD", (c.vocab_size, c.d_model), ((1 - c.dropout) / c.d_model) ** 0.5, axis=0)
    self.dropout = Dropout(c.dropout)

  def encode(self, source_BS, segments_BS, positions_BS, *, train=False):
    """(keys_BSD, values_BSD) of every attention: z, and z with the embeddings."""
    e_BSD = self.source_positions(self.source_embedding(source_BS), positions_BS, source_BS.shape[1])
    e_BSD = self.dropout(e_BSD, train)
    z_BSD = scale_gradient(self.encoder(e_BSD, segments_BS, train=train), 1 / len(self.config.widths))
    return z_BSD, (z_BSD + e_BSD) * HALF

  def hidden(self, batch, *, train=False):
    """What the output layer gets, BTD, for a batch of `data/batches.py`."""
    source_segments_BS, segments_BT = batch["source_segments"], batch["target_segments"]
    memory = self.encode(batch["source"], source_segments_BS, batch["source_positions"], train=train)
    g_BTD = self.target_embedding(batch["inputs"])
    g_BTD = self.target_positions(g_BTD, batch["target_positions"], g_BTD.shape[1])
    g_BTD = self.dropout(g_BTD, train)
    mask = masks.segments(segments_BT, source_segments_BS)
    return self.dropout(self.decoder(g_BTD, segments_BT, g_BTD, memory, mask, train=train), train)

  def logits(self, x_BTD):
    """Scores of all tokens, float32 BTV."""
    return logits(self.config, x_BTD, self.output())

  def __call__(self, batch, *, train=False):
    """Logits BTV (float32)."""
    return self.logits(self.hidden(batch, train=train))

  def step(self, tokens_BJ1, t, memory, mask, past):
    """Feeds position t to J beams. Returns (logits_BJ1V, past)."""
    tokens_BJ = tokens_BJ1[:, :, 0]
    g_BJD = self.target_positions(self.target_embedding(tokens_BJ), jnp.full(tokens_BJ.shape, t), 1)
    x_BJD, past = self.decoder.step(g_BJD, past, g_BJD, memory, mask)
    return self.logits(x_BJD)[:, :, None], past


Model = ConvS2S


def output_table(params):
  """The table_VD of the output, for losses that do not keep the logits (`training/loss.py`)."""
  return plain(params["output"])["kernel_VD"]


def decoding(config: Config, params, inputs, *, num_beams) -> Decoding:
  """The Decoding of a batch of sentences, one a row. inputs: the three of the source of `data/batches.py`, BS.

  The cache holds the last inputs of each convolution of the decoder, so that a step goes on where the one before ended.
  """
  if config.weight_norm:  # normalised once
    config, params = dataclasses.replace(config, weight_norm=False), plain(params)
  model = ConvS2S(config)
  source_BS, segments_BS, positions_BS = (inputs[key] for key in BATCH[:3])
  memory = model.apply({"params": params}, source_BS, segments_BS, positions_BS, method="encode")
  mask = masks.padding(segments_BS > 0)

  def run(params, tokens_BJ1, t, past):
    return model.apply({"params": params}, tokens_BJ1, t, memory, mask, past, method="step")

  rows = (source_BS.shape[0], num_beams)
  past = [jnp.zeros((*rows, size - 1, before), config.dtype) for before, _, size in config.layers]
  params = rounded(run, params, jnp.zeros((*rows, 1), jnp.int32), jnp.int32(0), past)
  return Decoding(past, functools.partial(run, params), max_length=config.max_length)
