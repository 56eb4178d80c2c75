"""Subword sampling: another segmentation of each sentence in each epoch,
which makes a model see more of its vocabulary.

BPE-dropout (Provilkov et al. 2020, arXiv:1910.13267) for a "bpe" vocabulary: a merge is left out with some probability,
0.1 in the paper. Sampled segmentations (Kudo 2018, arXiv:1804.10959) for a "unigram" one: drawn in proportion to their
probability to some power, 0.1 to 0.5 in the paper; the smaller, the more various. Both are SentencePiece's.
"""

import hashlib
import itertools

import numpy as np

from attention_zoo.data.corpus import Corpus
from attention_zoo.data.tokenizer import EOS, UNK, Tokenizer

_MEASURED = 1000  # sentences of which it is measured how much longer sampling makes them


class Sampler:
  """Samples the sentences of a row together; what comes out is a function of seed, epoch and the row's sentences alone.

  amount: BPE-dropout's probability, or the power (see above). Sampling makes sentences longer, for which rows are
  planned with `lengths`; where a row is too short nonetheless, some of its sentences keep their plain segmentation.
  """

  def __init__(self, tokenizer: Tokenizer, amount: float, seed: int):
    self._tokenizer, self._amount, self._seed = tokenizer, amount, seed

  def lengths(self, corpus: Corpus, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """The room to plan for each sentence, (source, target): its plain length times the mean growth,
    at most `longest`."""
    some = np.unique(np.linspace(0, len(corpus) - 1, min(_MEASURED, len(corpus))).astype(int))
    planned = []
    for side, (tokens, offsets) in enumerate(_sides(corpus)):
      plain = _cut(tokens, offsets, some)
      drawn = self._draw(plain, (side,))
      growth = max(sum(map(len, drawn)) / sum(map(len, plain)), 1.0)
      lengths = np.diff(offsets)
      planned.append(np.maximum(np.minimum(np.ceil(lengths * growth).astype(np.int64), longest), lengths))
    return tuple(planned)

  def sample(self, corpus: Corpus, sentences, rows, epochs, room: tuple[int, int]) -> Corpus:
    """These sentences, segmented anew. rows: the row of each, ascending; epochs: of each row;
    room: of a row's two sides."""
    sides = [[], []]
    for row, members in itertools.groupby(range(len(sentences)), key=lambda i: rows[i]):
      here = sentences[list(members)]
      for side, (tokens, offsets) in enumerate(_sides(corpus)):
        plain = _cut(tokens, offsets, here)
        drawn = self._draw(plain, (side, int(epochs[row]), *map(int, here)))
        sides[side] += _fit(drawn, plain, room[side], first=int(epochs[row]))
    return Corpus(*_joined(sides[0]), *_joined(sides[1]))

  def _draw(self, plain: list[list[int]], key: tuple[int, ...]) -> list[list[int]]:
    """Another segmentation of each of these sentences, EOS at its end. key: the side, and what else the seed is of."""
    tokenizer = self._tokenizer.target if key[0] else self._tokenizer
    texts = tokenizer.decode([ids[:-1] for ids in plain])
    digest = hashlib.blake2b(repr((self._seed, *key)).encode(), digest_size=4).digest()
    drawn = tokenizer.sample(texts, self._amount, int.from_bytes(digest, "big"))
    # What the vocabulary does not know, and a character cut in its bytes, cannot be read from the ids.
    return [
      ids if UNK in ids or "\ufffd" in text else [*new, EOS]
      for ids, text, new in zip(plain, texts, drawn, strict=True)
    ]


def _fit(drawn, plain, room: int, first: int) -> list[list[int]]:
  """The drawn segmentations, as many as necessary replaced by the plain ones, which fit;
  beginning with another each epoch."""
  drawn, n = list(drawn), len(drawn)
  for i in range(n):
    if sum(map(len, drawn)) <= room:
      break
    drawn[(first + i) % n] = plain[(first + i) % n]
  return drawn


def _sides(corpus: Corpus):
  return (corpus.source_tokens, corpus.source_offsets), (corpus.target_tokens, corpus.target_offsets)


def _cut(tokens, offsets, sentences) -> list[list[int]]:
  return [tokens[offsets[i] : offsets[i + 1]].tolist() for i in sentences]


def _joined(sentences: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
  offsets = np.cumsum([0, *map(len, sentences)])
  return np.fromiter(itertools.chain.from_iterable(sentences), np.int32, int(offsets[-1])), offsets
