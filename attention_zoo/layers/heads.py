"""What stands on an encoder for one task: small maps from its output to labels, tags or numbers.

Letters beside the house's: O classes, U width of several things side by side.
"""

import flax.linen as nn
import jax.numpy as jnp

from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.feed_forward import ACTIVATIONS
from attention_zoo.layers.linear import Linear, with_one

POOLINGS = ("first", "last", "mean", "max", "concat")


def pool(kind: str, x_BTD, segments_BT):
  """What stands for the whole row, BU.

  "first", "last": the output at the first or last token (BERT's [CLS], GPT's extract token). "mean", "max": over all
  tokens. "concat": last, max and mean side by side (Howard & Ruder 2018, section 3.3). Padding, segment 0, is not
  looked at; of an empty row "mean" and "max" are zeros.
  """
  if kind not in POOLINGS:
    raise ValueError(f"there is no pooling {kind!r}; there are {', '.join(POOLINGS)}")
  real_BT1 = (segments_BT > 0)[:, :, None]
  count_B = real_BT1.sum((1, 2))
  if kind == "first":
    return x_BTD[:, 0]
  last_B1D = jnp.take_along_axis(x_BTD, jnp.maximum(count_B - 1, 0)[:, None, None], 1)
  if kind == "last":
    return last_B1D[:, 0]
  mean_BD = jnp.where(real_BT1, x_BTD, 0).sum(1) / jnp.maximum(count_B, 1)[:, None].astype(x_BTD.dtype)
  if kind == "mean":
    return mean_BD
  lowest = jnp.finfo(x_BTD.dtype).min
  max_BD = jnp.where((count_B > 0)[:, None], jnp.where(real_BT1, x_BTD, lowest).max(1), 0)
  return max_BD if kind == "max" else jnp.concatenate([last_B1D[:, 0], max_BD, mean_BD], -1)


class Classifier(nn.Module):
  """Scores of classes, float32: one linear map after dropout; with a width, a hidden layer of ReLU before it."""

  num_classes: int
  dropout: float = 0.1
  width: int = 0
  deviation: float = 0.02

  @nn.compact
  def __call__(self, x_BU, *, train=False):
    dropout = Dropout(self.dropout)
    if self.width:
      hidden = Linear("BU,UF->BF", (x_BU.shape[-1], self.width), use_bias=True, name="hidden")
      x_BU = nn.relu(hidden(dropout(x_BU, train)))
      dropout = Dropout(self.dropout)
    return _Output(self.num_classes, self.deviation, name="output")(dropout(x_BU, train))


class TagScores(nn.Module):
  """Scores of tags at each place, float32: one linear map after dropout."""

  num_classes: int
  dropout: float = 0.1
  deviation: float = 0.02

  @nn.compact
  def __call__(self, x_BTU, *, train=False):
    return _Output(self.num_classes, self.deviation, name="output")(Dropout(self.dropout)(x_BTU, train))


class MaskedTokens(nn.Module):
  """BERT's two outputs. Of (x_BTD at hidden tokens, pooled_BU or None): (features BTF that the embedding's table makes
  logits of, with a 1 for the column of the bias, the bias V, scores of the next sentence BO or None)."""

  vocab_size: int
  activation: str = "gelu"
  norm_epsilon: float = 1e-12
  matmul_dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, given, *, train=False):
    x_BTD, pooled_BU = given
    D = F = x_BTD.shape[-1]
    transform = Linear("BTD,DF->BTF", (D, F), use_bias=True, matmul_dtype=self.matmul_dtype, name="transform")
    norm = nn.LayerNorm(epsilon=self.norm_epsilon, dtype=x_BTD.dtype, name="norm")
    x_BTF = norm(ACTIVATIONS[self.activation](transform(x_BTD)))
    bias_V = self.param("bias_V", nn.initializers.zeros, (self.vocab_size,))
    scores_BO = None if pooled_BU is None else _Output(2, 0.02, name="next_sentence")(pooled_BU)
    return with_one(x_BTF, bias_V), bias_V, scores_BO


class _Output(nn.Module):
  num_classes: int
  deviation: float

  @nn.compact
  def __call__(self, x):
    shape = (x.shape[-1], self.num_classes)
    kernel_UO = self.param("kernel_UO", nn.initializers.normal(self.deviation), shape)
    bias_O = self.param("bias_O", nn.initializers.zeros, (self.num_classes,))
    y = jnp.einsum("...U,UO->...O", x.astype(jnp.float32), kernel_UO)
    return y + jnp.expand_dims(bias_O, range(y.ndim - 1))
