"""Small made-up corpora for the tests of the data room."""

import dataclasses
import random

import numpy as np

from attention_zoo.data.corpus import Corpus
from attention_zoo.data.tokenizer import EOS


@dataclasses.dataclass
class Pairs:
  """A source of these pairs, whatever the split."""

  content: list
  languages: tuple = ("en", "de")
  splits: tuple = ("train",)

  def pairs(self, split):
    return iter(self.content)

  def fingerprint(self, split):
    return repr(self.content)


def sentences(n, seed=0, words=(1, 9)):
  """Sentences over a few hundred words."""
  rng = random.Random(seed)
  vocabulary = ["".join(rng.choices("abcdefghiklmnoprstuvwz", k=rng.randint(2, 8))) for _ in range(400)]
  return [" ".join(rng.choices(vocabulary, k=rng.randint(*words))) for _ in range(n)]


def corpus(source_lengths, target_lengths):
  """Sentences of these lengths, EOS included, with tokens that are all different."""

  def side(lengths, start):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.arange(start, start + offsets[-1], dtype=np.int32)
    tokens[offsets[1:] - 1] = EOS
    return tokens, offsets

  return Corpus(*side(source_lengths, 100), *side(target_lengths, 1_000_000))
