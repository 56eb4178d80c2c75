"""Batches for masked language models, each a pure function of (seed, step): rows of whole sentences, some of whose
tokens are hidden (Devlin et al. 2018, section 3.1; Liu et al. 2019, section 4).

A batch has the arrays of `data/examples.py`, with some of its `inputs` replaced, and `masked` and `masked_targets`
[B, most_masked]: where, and what stood there; 0 where a row has fewer. Rows of two segments have `unrelated` [B] too: 1
where the second is of another document. Each time a row comes it is masked anew.

A document's sentences are its lines. They are kept as the items of a `Corpus`: sentences on its first side, and on the
second a mark beside each of them. An item that is empty on both sides is the end of a document.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from attention_zoo.data import examples
from attention_zoo.data.batches import Batch, Shapes, rng, share
from attention_zoo.data.tokenizer import BOS, EOS, PAD, UNK
from attention_zoo.errors import UserError

KINDS = ("full_sentences", "sentence_pairs")


class Vocabulary(NamedTuple):
  """What masking knows of one. goes_on: of each id, whether it goes on with a word; None: whole words are not asked
  for."""

  size: int
  mask: int
  goes_on: np.ndarray | None = None


class Masked(NamedTuple):
  inputs: np.ndarray
  places: np.ndarray
  targets: np.ndarray


def mask(ids, vocabulary: Vocabulary, rate: float, chance: np.random.Generator, starts=(), room=None) -> Masked:
  """Hides round(rate len(ids)) tokens, at least one, none of them special: 80 % become [MASK], 10 % another token at
  random, 10 % stay. With `goes_on`, the pieces of a word are hidden together, as many words as do not exceed that;
  where each has more pieces, the shortest, of which `room` at most. starts: the places where sentences begin, and so
  words."""
  free = np.flatnonzero(~np.isin(ids, (PAD, BOS, EOS)))
  most = max(1, round(rate * len(ids)))
  if vocabulary.goes_on is None:
    places = np.sort(chance.permutation(free)[:most])
  else:
    begins = ~vocabulary.goes_on[ids[free]] | (np.diff(free, prepend=-2) > 1) | np.isin(free, starts)
    words = np.split(free, np.flatnonzero(begins)[1:]) if len(free) else []
    chosen = []
    for i in chance.permutation(len(words)):
      if len(chosen) + len(words[i]) <= most:
        chosen += words[i].tolist()
    if words and not chosen:
      chosen = min(words, key=len)[:room].tolist()
    places = np.array(sorted(chosen), np.int64)
  inputs, dice = ids.copy(), chance.random(len(places))
  others = chance.integers(max(UNK, vocabulary.mask) + 1, vocabulary.size, len(places))
  inputs[places] = np.where(dice < 0.8, vocabulary.mask, np.where(dice < 0.9, others, ids[places]))
  return Masked(inputs, places, ids[places])


def most_masked(rate: float, length: int) -> int:
  return max(1, round(rate * length))


class _Sentences:
  """The sentences of a corpus and the ends of its documents, which have size 0. What is longer than `most` tokens
  counts as several sentences; what has none, as a line of signs that the vocabulary leaves out, is not there."""

  def __init__(self, corpus, length: int, most: int):
    if most < 1:
      raise UserError(f"config.data.row_length = {length} leaves no room for sentences: set it to 5 or more")
    sizes = corpus.source_lengths - 1  # without </s>
    parts = np.maximum(-(-sizes // most), corpus.target_lengths == 1)
    before = most * (np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts))
    self.sizes = np.minimum(np.repeat(sizes, parts) - before, most)
    self._starts = np.repeat(corpus.source_offsets[:-1], parts) + before
    self._tokens = corpus.source_tokens

  def __getitem__(self, i: int) -> np.ndarray:
    return self._tokens[self._starts[i] : self._starts[i] + self.sizes[i]]


def _beginnings(sizes, place: int, end: int) -> np.ndarray:
  """Where things of these sizes begin, one after the other from a place on, as far as that is before the end."""
  places = place + np.cumsum(sizes) - sizes
  return places[places < end]


class Row(NamedTuple):
  """Ranges of sentences, the last one not included. unrelated: of the second segment; None: there is none."""

  first: tuple[int, int]
  second: tuple[int, int] = (0, 0)
  unrelated: bool | None = None


class FullSentences:
  """Rows of as many whole sentences as fit, one after the other, over the ends of documents, where </s> stands."""

  def __init__(self, corpus, length: int, seed: int):
    self._sentences, self._length = _Sentences(corpus, length, length - 2), length
    sizes = self._sentences.sizes
    rows, start, used = [], 0, 0
    for i, size in enumerate(np.maximum(sizes, 1).tolist()):  # the end of a document takes one place
      if used and used + size > length - 2:
        rows.append(Row((start, i)))
        start, used = i, 0
      used += size
    rows.append(Row((start, len(sizes))))
    self._rows = [row for row in rows if sizes[slice(*row.first)].any()]

  def plan(self, epoch: int) -> list[Row]:
    return self._rows

  def ids(self, row: Row) -> tuple[np.ndarray, int]:
    """(ids of a row, how many are the first segment's)."""
    ids = np.concatenate([[BOS], *self._parts(row), [EOS]]).astype(np.int32)
    return ids, len(ids)

  def starts(self, row: Row) -> np.ndarray:
    """Where sentences begin in the ids of a row."""
    return _beginnings(np.array([len(part) for part in self._parts(row)]), 1, self._length)

  def _parts(self, row):
    start, stop = row.first
    parts = []
    for i in range(start, stop):
      sentence = self._sentences[i]
      inside = 0 < i - start and i + 1 < stop  # no </s> at the ends, which have one already
      parts.append(sentence if len(sentence) else np.full(int(inside), EOS, np.int32))
    return parts


class SentencePairs:
  """Rows of two segments of whole sentences, the second in half of the cases of another document: BERT's own way.

  A document is cut into chunks of at most a row, one in ten shorter at random. A chunk's first sentences, how many is
  drawn, are the first segment. The rest are the second; or that begins at a random sentence of another document, and
  the rest begin the next chunk. Each epoch cuts anew.
  """

  SHORT = 0.1  # of the chunks have a random length

  def __init__(self, corpus, length: int, seed: int):
    self._length, self._seed = length, seed
    self._sentences = _Sentences(corpus, length, (length - 3) // 2)  # two of the longest make a row
    self._sizes = self._sentences.sizes
    ends = np.flatnonzero(self._sizes == 0)
    starts = np.concatenate([[0], ends + 1])
    stops = np.concatenate([ends, [len(self._sizes)]])
    self._documents = [(int(a), int(b)) for a, b in zip(starts, stops, strict=True) if b > a]
    if len(self._documents) < 2:
      raise UserError('config.data.batching = "sentence_pairs" needs several documents: half of the pairs are of two')
    self.plan = functools.lru_cache(maxsize=2)(self.plan)

  def plan(self, epoch: int) -> list[Row]:
    chance = rng(self._seed, epoch)
    rows = []
    for number, (begin, stop) in enumerate(self._documents):
      while begin < stop:
        room = self._length - 3
        if chance.random() < self.SHORT:
          room = int(chance.integers(2, room + 1))
        end = self._fill(begin, stop, room)
        cut = begin + int(chance.integers(1, max(end - begin, 2)))
        if end - begin == 1 or chance.random() < 0.5:
          left = max(room - int(self._sizes[begin:cut].sum()), 1)
          other = int(chance.integers(len(self._documents) - 1))
          first, last = self._documents[other + (other >= number)]
          at = int(chance.integers(first, last))
          rows.append(Row((begin, cut), (at, self._fill(at, last, left)), True))
          begin = cut
        else:
          rows.append(Row((begin, cut), (cut, end), False))
          begin = end
    return rows

  def _fill(self, start, stop, room) -> int:
    """Where the sentences from `start` on end that fill the room: the one that exceeds it is left out, unless it is the
    first."""
    used, end = int(self._sizes[start]), start + 1
    while end < stop and used + self._sizes[end] <= room:
      used += int(self._sizes[end])
      end += 1
    return end

  def ids(self, row: Row) -> tuple[np.ndarray, int]:
    """(ids of a row, how many are the first segment's); too long ones lose their ends."""
    encoded, _ = examples.encode([self._tokens(*row.first), self._tokens(*row.second)], length=self._length)
    return encoded.ids, encoded.first

  def starts(self, row: Row) -> np.ndarray:
    """Where sentences begin in the ids of a row."""
    ids, first = self.ids(row)
    sizes = (self._sizes[slice(*segment)] for segment in (row.first, row.second))
    return np.concatenate([_beginnings(next(sizes), 1, first - 1), _beginnings(next(sizes), first, len(ids) - 1)])

  def _tokens(self, start, stop) -> list[int]:
    return np.concatenate([self._sentences[i] for i in range(start, stop)]).tolist()


class MaskedBatches:
  """The endless batches of rows of one of the classes above, of a split; each epoch permutes them."""

  def __init__(
    self, rows_of, vocabulary: Vocabulary, *, rows: int, length: int, rate: float, seed: int, split: str = "train"
  ):
    self._source, self._vocabulary, self._rate = rows_of, vocabulary, rate
    self._rows, self._length, self._seed = rows, length, seed
    self.rows_per_epoch = len(rows_of.plan(0))
    if not self.rows_per_epoch:
      raise UserError(f"The {split} split holds no sentence.")
    self._epoch = functools.lru_cache(maxsize=2)(self._epoch)

  @property
  def shapes(self) -> tuple[Shapes, ...]:
    few = self.build([self._source.plan(0)[0]], [0], 1)
    return ({name: (self._rows, *x.shape[1:]) for name, x in few.items()},)

  def __getitem__(self, step: int) -> Batch:
    return self.local(step, (0,), 1)

  def local(self, step: int, parts: Sequence[int], count: int) -> Batch:
    """The rows of batch `step` in these of its `count` equal parts."""
    numbers = step * self._rows + share(self._rows, parts, count)
    found = []
    for number in numbers.tolist():
      epoch, row = divmod(number, self.rows_per_epoch)
      plan = self._source.plan(epoch)
      found.append(plan[self._epoch(epoch)[row] * len(plan) // self.rows_per_epoch])  # its plan may have more or fewer
    return self.build(found, numbers.tolist(), len(found))

  def _epoch(self, epoch: int) -> np.ndarray:
    chance = np.random.Generator(np.random.Philox(key=[self._seed % 2**64, epoch], counter=[0, 0, 0, 3]))
    return chance.permutation(self.rows_per_epoch)

  def build(self, rows: Sequence[Row], numbers: Sequence[int], size: int) -> Batch:
    """The batch of these rows; each is masked as its number says."""
    most, found = most_masked(self._rate, self._length), []
    for row, number in zip(rows, numbers, strict=True):
      ids, first = self._source.ids(row)
      chance = np.random.Generator(np.random.Philox(key=[self._seed % 2**64, number], counter=[0, 0, 0, 1]))
      hidden = mask(ids, self._vocabulary, self._rate, chance, self._source.starts(row), most)
      labels = {} if row.unrelated is None else {"unrelated": int(row.unrelated)}
      found.append((examples.Encoded(hidden.inputs, first, labels), hidden))
    batch = examples.build([encoded for encoded, _ in found], size, self._length)
    for name in ("masked", "masked_targets"):
      batch[name] = np.zeros((size, most), np.int32)
    for b, (_, hidden) in enumerate(found):
      batch["masked"][b, : len(hidden.places)] = hidden.places
      batch["masked_targets"][b, : len(hidden.places)] = hidden.targets
    return batch

  def in_order(self, rows: int):
    """Batches of all rows of the first epoch, each once, the last one filled up with empty rows."""
    plan = self._source.plan(0)
    for start in range(0, len(plan), rows):
      here = plan[start : start + rows]
      yield self.build(here, range(start, start + len(here)), rows)
