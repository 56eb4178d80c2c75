"""Batches of examples, one a row: a sentence or two as `<s> first </s> second </s>`, with what is known of it.

A batch is a dict of int32 arrays [B, T]: `inputs`, `segments` (1; 0 is padding, where everything else is 0 too),
`positions` and `types` (1 in the second sentence), and whatever else an example has: numbers [B] or arrays [B, T].
T is the first of 16, 32, 64, .. and the length of a row into which all examples of the batch fit: examples of about the
same length come together.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from attention_zoo.data import words
from attention_zoo.data.batches import Batch, Shapes, rng, share
from attention_zoo.data.tokenizer import BOS, EOS
from attention_zoo.errors import UserError

INPUTS = ("inputs", "segments", "positions", "types")
_SHORTEST = 16
_ALIKE = 50  # batches whose examples are sorted by length together


class Encoded(NamedTuple):
  """ids: with special ones. first: how many of them are the first sentence's. labels: name -> a number, or an array
  with as many entries as there are ids at most."""

  ids: np.ndarray
  first: int
  labels: dict = {}


def encode(
  sentences: Sequence[Sequence[int]], *, length: int, separators: int = 1, labels=None, spelt=None
) -> tuple[Encoded, bool]:
  """(the example of one sentence or two, whether it had to be shortened). separators: between two sentences.
  spelt: the characters of the tokens of each sentence [tokens, W], which the example then has too.

  What is longer than `length` loses the ends of its sentences, of the longer one first. Raises UserError where none has
  room for a token.
  """
  room = length - 2 - separators * (len(sentences) - 1)
  if room < len(sentences):
    least = length - room + len(sentences)
    raise UserError(f"config.data.row_length = {length} leaves no room for text: set it to {least} or more")
  sizes = [len(ids) for ids in sentences]
  while sum(sizes) > room:
    sizes[int(np.argmax(sizes))] -= 1
  ids = [BOS, *sentences[0][: sizes[0]], EOS]
  first = len(ids)
  for sentence, size in zip(sentences[1:], sizes[1:], strict=True):
    ids += [EOS] * (separators - 1) + [*sentence[:size], EOS]
  labels = dict(labels or {})
  if spelt is not None:
    begin, end = (words.special(mark, spelt[0].shape[1])[None] for mark in (words.BEGIN_TEXT, words.END_TEXT))
    rows = [begin, spelt[0][: sizes[0]], end]
    for sentence, size in zip(spelt[1:], sizes[1:], strict=True):
      rows += [end] * (separators - 1) + [sentence[:size], end]
    labels["characters"] = np.concatenate(rows)
  return Encoded(np.array(ids, np.int32), first, labels), sizes != [len(ids) for ids in sentences]


def lengths_up_to(length: int) -> list[int]:
  """16, 32, 64, .., length."""
  found = []
  at = _SHORTEST
  while at < length:
    found.append(at)
    at *= 2
  return [*found, length]


class ExampleBatches:
  """The endless training batches, each a pure function of (seed, step); what does not fill a batch at the end of an
  epoch is left out of it. Raises UserError where there is no example."""

  def __init__(self, examples: Sequence[Encoded], *, rows: int, length: int, seed: int):
    if not len(examples):
      raise UserError("The training split holds no example.")
    self._examples, self._rows, self._seed = examples, rows, seed
    self._lengths = lengths_up_to(length)
    self._sizes = np.array([len(example.ids) for example in examples])
    self._last = None  # (epoch, its batches)

  @property
  def steps_per_epoch(self) -> int:
    return max(len(self._examples) // self._rows, 1)

  @property
  def shapes(self) -> tuple[Shapes, ...]:
    """The shapes that batches may have."""
    longest = int(np.searchsorted(self._lengths, self._sizes.max()))
    shortest = int(np.searchsorted(self._lengths, self._sizes.min()))
    few = build(self._examples[:1], 1, self._lengths[-1])
    return tuple(
      {name: (self._rows, length, *x.shape[2:])[: x.ndim] for name, x in few.items()}
      for length in self._lengths[shortest : longest + 1]
    )

  def __getitem__(self, step: int) -> Batch:
    return self.local(step, (0,), 1)

  def local(self, step: int, parts: Sequence[int], count: int) -> Batch:
    """The rows of batch `step` in these of its `count` equal parts."""
    epoch, number = divmod(step, self.steps_per_epoch)
    last = self._last
    if last is None or last[0] != epoch:
      last = self._last = epoch, self._plan(epoch)
    chosen = last[1][number]
    length = self._lengths[np.searchsorted(self._lengths, self._sizes[chosen].max())]
    mine = [i for i in share(self._rows, parts, count) if i < len(chosen)]
    return build([self._examples[chosen[i]] for i in mine], self._rows * len(parts) // count, length)

  def _plan(self, epoch: int) -> list[np.ndarray]:
    """Which examples each batch of the epoch has."""
    chance = rng(self._seed, epoch)
    order = chance.permutation(len(self._examples))
    batches = []
    for start in range(0, len(order), _ALIKE * self._rows):
      alike = order[start : start + _ALIKE * self._rows]
      alike = alike[np.argsort(self._sizes[alike], kind="stable")]
      cut = len(alike) % self._rows
      if cut and len(order) > self._rows:  # not always the longest
        alike = np.delete(alike, chance.permutation(len(alike))[:cut])
      batches += [alike[i : i + self._rows] for i in range(0, len(alike), self._rows)]
    chance.shuffle(batches)
    return [batches[i % len(batches)] for i in range(self.steps_per_epoch)]


def in_batches(examples: Sequence[Encoded], *, rows: int, length: int) -> Iterator[tuple[list[int], Batch]]:
  """(numbers of examples, their batch): each example once, those of like length together, the last batch filled up
  with empty rows."""
  order = sorted(range(len(examples)), key=lambda i: -len(examples[i].ids))
  lengths = lengths_up_to(length)
  for start in range(0, len(order), rows):
    chosen = order[start : start + rows]
    fit = lengths[np.searchsorted(lengths, len(examples[chosen[0]].ids))]
    yield chosen, build([examples[i] for i in chosen], rows, fit)


def build(examples: Iterable[Encoded], rows: int, length: int) -> Batch:
  """The batch with these examples in its first rows."""
  batch = {name: np.zeros((rows, length), np.int32) for name in INPUTS}
  for b, example in enumerate(examples):
    size = len(example.ids)
    batch["inputs"][b, :size] = example.ids
    batch["segments"][b, :size] = 1
    batch["positions"][b, :size] = np.arange(size)
    batch["types"][b, example.first : size] = 1
    for name, label in example.labels.items():
      label = np.asarray(label)
      if name not in batch:
        shape = (rows, length, *label.shape[1:])[: 1 + label.ndim]
        batch[name] = np.zeros(shape, np.int32 if label.dtype.kind in "iu" else np.float32)
      batch[name][(b, slice(len(label))) if label.ndim else b] = label
  return batch
