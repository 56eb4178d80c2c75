"""ELMo: Peters et al. 2018, "Deep contextualized word representations" (arXiv:1802.05365), as a tagger or classifier
uses it: beside the vectors of words stands a weighted sum of all layers of a trained biLM, with weights of the task.

  ELMo_k = gamma sum_j s_j h_{k,j},  s a softmax; h_{k,0} is the vector of the word alone, twice

The biLM is `bilm`, trained by the task bidirectional_language_modeling; config.train.init_from takes its parameters,
with config.train.init_map = (("^bilm/", "core/"),). With lm_tuned=False they stay as they were.

| what            | the paper's tagger                           | here                                               |
|-----------------|----------------------------------------------|----------------------------------------------------|
| words           | Senna's 50 numbers, 128 filters over three   | config.data.word_vectors, the same (from memory)   |
|                 | characters                                   |                                                    |
| layers          | two biLSTMs of 200 units, then a CRF         | the same (from memory); the head is the task's     |
| ELMo            | before the first layer; in some tasks also   | before the first layer                             |
|                 | behind the last                              |                                                    |
| lambda ||s||^2  | 0.001 or 1, by task                          | none: the s begin uniform                          |
| normalisation   | of each layer, in some tasks                 | none                                               |
| dropout of ELMo | 0.5                                          | `lm_dropout`, the same; rounded to 1/65,536        |

The paper has 92.22 F1 (five runs: +- 0.10) on CoNLL-2003, and 90.15 without ELMo.

Letters beside the house's: W characters of a word, U several vectors side by side. L counts the biLM's layers and the
words below them.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.layers import words
from attention_zoo.layers.dropout import Dropout
from attention_zoo.models.pretraining import bilm
from attention_zoo.models.tagging.bilstm_crf import WORD_TABLE as WORD_TABLE

BATCH = ("inputs", "characters", "segments")


@dataclasses.dataclass(frozen=True)
class Config(words.Config):
  """The paper's tagger, but for the vocabulary. lm_: those of the biLM."""

  d_word: int = 50
  spelling: str = "cnn"
  d_character: int = 16
  d_spelling: int = 128
  d_hidden: int = 200
  num_layers: int = 2
  lm_d_character: int = 16
  lm_filters: tuple = bilm.FILTERS
  lm_num_highway: int = 2
  lm_d_model: int = 512
  lm_d_hidden: int = 4096
  lm_num_layers: int = 2
  lm_dropout: float = 0.5
  lm_tuned: bool = False

  def __post_init__(self):
    super().__post_init__()
    bilm.check_filters("model.lm_filters", self.lm_filters, self.word_length)

  @property
  def lm(self) -> bilm.Config:
    """The biLM's, whose output is not used. Its own dropout is for its pretraining."""
    return bilm.Config(
      vocab_size=1, word_length=self.word_length, d_character=self.lm_d_character, filters=self.lm_filters,
      num_highway=self.lm_num_highway, d_model=self.lm_d_model, d_hidden=self.lm_d_hidden,
      num_layers=self.lm_num_layers, dropout=0.0, dtype=self.dtype, matmul_dtype=self.matmul_dtype,
    )  # fmt: skip


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c = config
  mix = c.lm_num_layers + 1 + 1
  width = c.d_word + c.width_of_spelling + 2 * c.lm_d_model
  return words.count_words(c) + bilm.count_core(c.lm) + mix + words.count_layers(c, width)


SMALL = dict(
  vocab_size=11, d_word=6, word_length=5, d_character=3, d_spelling=2, d_hidden=4, dropout=0.0, lm_d_character=3,
  lm_filters=((1, 2), (2, 3)), lm_num_highway=1, lm_d_model=4, lm_d_hidden=6, lm_dropout=0.0, lm_tuned=True,
)  # fmt: skip


def small() -> Config:
  """For tests."""
  return Config(**SMALL)


def learning_rate_factor(config: Config, path: str, step):
  """0 for the biLM's parameters where they are not tuned."""
  return 0.0 if path.startswith("bilm/") and not config.lm_tuned else 1.0


class ScalarMix(nn.Module):
  """gamma sum_j s_j h_j. At first all s are equal, and gamma is 1."""

  count: int

  @nn.compact
  def __call__(self, layers):
    """layers: L arrays BTU."""
    s_L = jax.nn.softmax(self.param("mix_L", nn.initializers.zeros, (self.count,)))
    gamma_1 = self.param("gamma_1", nn.initializers.ones, (1,))
    mixed_BTU = sum(s_L[j] * x_BTU.astype(jnp.float32) for j, x_BTU in enumerate(layers))
    return (gamma_1[0] * mixed_BTU).astype(layers[0].dtype)


class LM(nn.Module):
  """What a model that is made of a biLM has. config: with an `lm`."""

  def lm_layers(self, batch):
    """The biLM's layers, a list of BTU. Where it is not tuned no gradient goes into it."""
    layers = self.bilm(batch["characters"], batch["segments"])
    return layers if self.config.lm_tuned else jax.lax.stop_gradient(layers)


class Elmo(LM):
  """Words and segments (0 is padding) BT, characters BTW, all int32. A row is a text from <s> to </s>."""

  config: Config

  def setup(self):
    c = self.config
    self.words, self.bilm = words.Words(c), bilm.Core(c.lm)
    self.mix = ScalarMix(c.lm_num_layers + 1)
    self.lm_dropout = Dropout(c.lm_dropout)
    self.layers = words.Layers(c, c.d_word + c.width_of_spelling + 2 * c.lm_d_model)

  def hidden(self, batch, *, train=False):
    """The output at each word, BTU with U = 2 d_hidden."""
    x_BTU = self.words(batch["inputs"], batch["characters"])
    elmo_BTU = self.lm_dropout(self.mix(self.lm_layers(batch)), train)
    return self.layers(jnp.concatenate([x_BTU, elmo_BTU], -1), batch["segments"], train=train)

  def __call__(self, batch, *, train=False):
    return self.hidden(batch, train=train)


Model = Elmo
