"""A vector for a word from its characters: by convolutions, or by a recurrent network from both ends.

Characters are int32 BTW, the ids of `data/words.py`: bytes of UTF-8 plus 1, marks of beginnings and ends, FILL behind
the end of a word, and 0 where there is no word.

Letters beside the house's: W characters of a word (in a kernel its width), M words of all rows, F filters or hidden
units, A the two halves of a highway side by side, U both directions side by side.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers.linear import glorot
from attention_zoo.layers.recurrent import Embedding, Layer
from attention_zoo.ops.convolution import conv1d
from attention_zoo.ops.recurrent import product

NUM_CHARACTERS = 262
BEGIN_TEXT, END_TEXT, BEGIN_WORD, END_WORD, FILL = range(257, 262)
LEAST_WIDTH = 3


def begin_of_text(width: int):
  """The characters, int32 [W = width], of <s>."""
  return jnp.full((width,), FILL, jnp.int32).at[:3].set(jnp.array([BEGIN_WORD, BEGIN_TEXT, END_WORD]))


class CharacterCNN(nn.Module):
  """Kim et al. 2016, "Character-Aware Neural Language Models": filters of several widths over the characters of a word,
  of each the largest value over all places.

  filters: pairs (width, number of such filters). The largest value goes through the activation: the same as the largest
  value of what has gone through it. No filter stands over an edge.
  """

  d_character: int
  filters: tuple[tuple[int, int], ...]
  activation: str = "tanh"  # or "relu"
  matmul_dtype: str = "float32"

  def setup(self):
    self.characters = Embedding(NUM_CHARACTERS, self.d_character)
    self.kernels = [
      self.param(f"filters_{i}_kernel_WDF", glorot(2), (width, self.d_character, number))
      for i, (width, number) in enumerate(self.filters)
    ]
    self.biases = [
      self.param(f"filters_{i}_bias_F", nn.initializers.zeros, (number,)) for i, (_, number) in enumerate(self.filters)
    ]

  def __call__(self, characters_BTW):
    """BTF, F the number of all filters, float32."""
    B, T, W = characters_BTW.shape
    if W < (widest := max(width for width, _ in self.filters)):
      raise ValueError(f"words of {W} characters are shorter than the widest filter, {widest}")
    x_MWD = self.characters(characters_BTW.reshape(B * T, W)).astype(self.matmul_dtype)
    found = []
    for kernel_WDF, bias_F in zip(self.kernels, self.biases, strict=True):
      y_MWF = conv1d(x_MWD, kernel_WDF.astype(self.matmul_dtype), padding="valid")
      found.append(jnp.max(y_MWF, axis=1).astype(jnp.float32) + bias_F[None])
    return getattr(jax.nn, self.activation)(jnp.concatenate(found, -1)).reshape(B, T, -1)


def count_cnn(d_character, filters) -> int:
  """The number of a CharacterCNN's parameters."""
  return NUM_CHARACTERS * d_character + sum((width * d_character + 1) * number for width, number in filters)


class Highway(nn.Module):
  """Srivastava et al. 2015: y = g relu(x W + b) + (1 - g) x,  g = sigmoid(x V + c); c is -2 at first, so that most goes
  through as it is (Kim et al. 2016)."""

  width: int
  matmul_dtype: str = "float32"

  @nn.compact
  def __call__(self, x_BTF):
    F = self.width
    kernel_FA = self.param("kernel_FA", glorot(1), (F, 2 * F))
    bias_A = self.param("bias_A", lambda key, shape: jnp.zeros(shape).at[F:].set(-2.0), (2 * F,))
    y_BTA = product(x_BTF, kernel_FA.astype(self.matmul_dtype)) + bias_A[None, None]
    new_BTF, gate_BTF = jnp.split(y_BTA, 2, axis=-1)
    gate_BTF = jax.nn.sigmoid(gate_BTF)
    return gate_BTF * jax.nn.relu(new_BTF) + (1 - gate_BTF) * x_BTF


def count_highway(width) -> int:
  return 2 * (width + 1) * width


class CharacterRNN(nn.Module):
  """Lample et al. 2016: the last state of a recurrent layer over the characters from left to right, and of one from
  right to left, side by side.  cell: "lstm" or "gru"."""

  d_character: int
  d_hidden: int
  cell: str = "lstm"
  matmul_dtype: str = "float32"

  def setup(self):
    self.characters = Embedding(NUM_CHARACTERS, self.d_character)
    layer = lambda: Layer(self.cell, self.d_character, self.d_hidden, matmul_dtype=self.matmul_dtype)
    self.forward, self.backward = layer(), layer()

  def __call__(self, characters_BTW):
    """BTU, U = 2 d_hidden, float32; zeros where there is no word."""
    B, T, W = characters_BTW.shape
    characters_MW = characters_BTW.reshape(B * T, W)
    x_MWD, mask_MW = self.characters(characters_MW), (characters_MW > 0) & (characters_MW != FILL)
    _, (forward_MF, *_) = self.forward(x_MWD, mask_BT=mask_MW)
    _, (backward_MF, *_) = self.backward(x_MWD, mask_BT=mask_MW, reverse=True)
    return jnp.concatenate([forward_MF, backward_MF], -1).reshape(B, T, -1)


def count_rnn(d_character, d_hidden, cell) -> int:
  gates = {"lstm": 4, "gru": 3}[cell]
  return NUM_CHARACTERS * d_character + 2 * gates * d_hidden * (d_character + d_hidden + 1)
