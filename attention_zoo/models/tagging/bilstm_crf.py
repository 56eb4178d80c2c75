"""The tagger that pretraining is measured against: Lample et al. 2016, "Neural Architectures for Named Entity
Recognition" (arXiv:1603.01360); with spelling="cnn", Ma and Hovy 2016 (arXiv:1603.01354).

Words are rows of a table, and what an LSTM makes of their characters, or a convolution; an LSTM reads them in both
directions. The CRF is the head of the task: config.head.name = "crf" (`ops/crf.py`).

| what           | Lample et al.                              | here                                                   |
|----------------|--------------------------------------------|--------------------------------------------------------|
| LSTM           | input and forget gate coupled, peepholes   | `ops/recurrent.py`: neither                            |
| before the CRF | a hidden layer of tanh                     | none                                                   |
| words          | 100 wide, from skip-n-gram vectors         | config.data.word_vectors, or at random                 |
| unknown words  | each of those seen once is one half of the | <unk>, buckets of a hash (`data/words.py`), or of its  |
|                | times <unk>                                | characters: spell_unknown                              |
| digits         | 0                                          | as they are                                            |
| dropout        | 0.5 on the input of the LSTM               | the same, rounded to 1/65,536                          |

The paper's F1 on CoNLL-2003's English test split is 90.94, Ma and Hovy's 91.21.

Letters beside the house's: W characters of a word, U both directions side by side.
"""

import dataclasses

import flax.linen as nn

from attention_zoo.layers import words

BATCH = ("inputs", "characters", "segments")
WORD_TABLE = "words/table/table_VD"  # what config.data.word_vectors is for


@dataclasses.dataclass(frozen=True)
class Config(words.Config):
  """The paper's English tagger, but for the vocabulary."""


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  return words.count_words(config) + words.count_layers(config, config.d_word + config.width_of_spelling)


def small() -> Config:
  """For tests."""
  return Config(
    vocab_size=11, d_word=6, word_length=5, d_character=3, d_spelling=2, d_hidden=4, spell_unknown=True, dropout=0.0
  )


class BiLSTM(nn.Module):
  """Words and segments (0 is padding) BT, characters BTW, all int32."""

  config: Config

  def setup(self):
    c = self.config
    self.words = words.Words(c)
    self.layers = words.Layers(c, c.d_word + c.width_of_spelling)

  def hidden(self, batch, *, train=False):
    """The output at each word, BTU with U = 2 d_hidden."""
    x_BTU = self.words(batch["inputs"], batch["characters"])
    return self.layers(x_BTU, batch["segments"], train=train)

  def __call__(self, batch, *, train=False):
    return self.hidden(batch, train=train)


Model = BiLSTM
