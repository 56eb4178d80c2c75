"""TagLM: Peters, Ammar, Bhagavatula, Power 2017, "Semi-supervised sequence tagging with bidirectional language models"
(arXiv:1705.00108).

Three steps: a bidirectional language model is trained on text without tags; its last layer gives a vector for each word
of a sentence; the tagger reads it beside the output of its own first layer,

  h_{k,1} = [forward_{k,1}; backward_{k,1}; h^LM_k]

The language model is `bilm`, trained by the task bidirectional_language_modeling; config.train.init_from takes its
parameters, with config.train.init_map = (("^bilm/", "core/"),). With lm_tuned=False they stay as they were.

| what             | the paper                                        | here                                          |
|------------------|--------------------------------------------------|-----------------------------------------------|
| language model   | two: CNN-BIG-LSTM forward, LSTM-2048-512         | one of both directions, that of ELMo          |
|                  | backward                                         |                                               |
| tagger           | GRUs of 80 units over characters, two biGRUs of  | the same (from memory); the head is the       |
|                  | 300 units, a CRF                                 | task's                                        |
| words            | Senna's 50 numbers, tuned                        | config.data.word_vectors                      |
| dropout          | 0.25 on what each GRU reads                      | the same, rounded to 1/65,536                 |

The paper has 91.93 F1 (ten runs: +- 0.19) on CoNLL-2003, and 90.87 without the language model.

Letters beside the house's: W characters of a word, U several vectors side by side.
"""

import dataclasses

from attention_zoo.layers import words
from attention_zoo.layers.dropout import Dropout
from attention_zoo.models.pretraining import bilm, elmo
from attention_zoo.models.tagging.bilstm_crf import WORD_TABLE as WORD_TABLE

BATCH = ("inputs", "characters", "segments")


@dataclasses.dataclass(frozen=True)
class Config(elmo.Config):
  """The paper's tagger, but for the vocabulary, with ELMo's biLM (lm_)."""

  spelling: str = "gru"
  d_character: int = 25
  d_spelling: int = 80
  cell: str = "gru"
  d_hidden: int = 300
  dropout: float = 0.25
  lm_dropout: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    if self.num_layers < 2:
      raise ValueError(f"model.num_layers must be at least 2, got {self.num_layers}: the second reads the biLM")


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  c = config
  layers = words.count_layers(c, c.d_word + c.width_of_spelling, 2 * c.lm_d_model)
  return words.count_words(c) + bilm.count_core(c.lm) + layers


def small() -> Config:
  """For tests."""
  return Config(**elmo.SMALL)


learning_rate_factor = elmo.learning_rate_factor


class TagLM(elmo.LM):
  """Words and segments (0 is padding) BT, characters BTW, all int32. A row is a text from <s> to </s>."""

  config: Config

  def setup(self):
    c = self.config
    self.words, self.bilm = words.Words(c), bilm.Core(c.lm)
    self.lm_dropout = Dropout(c.lm_dropout)
    self.layers = words.Layers(c, c.d_word + c.width_of_spelling, 2 * c.lm_d_model)

  def hidden(self, batch, *, train=False):
    """The output at each word, BTU with U = 2 d_hidden."""
    x_BTU = self.words(batch["inputs"], batch["characters"])
    lm_BTU = self.lm_dropout(self.lm_layers(batch)[-1], train)
    return self.layers(x_BTU, batch["segments"], beside_BTU=lm_BTU, train=train)

  def __call__(self, batch, *, train=False):
    return self.hidden(batch, train=train)


Model = TagLM
