"""Batches for language models, each a pure function of (seed, step): windows of a text,
or whole documents packed into rows.

A batch is a dict of int32 arrays [B, T]: `inputs, targets, segments, positions`. `inputs` are the targets shifted
right; the first token of a document is predicted from BOS. Segment 0 is padding, where everything else is 0 too;
segments 1, 2, ... do not see each other. Positions count from 0 in each segment. `fresh` [B], in contiguous batches
alone, is 1 where a row does not continue the same row of the batch before.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from attention_zoo.data.batches import Batch, Shapes, batch_rows, rng, share
from attention_zoo.data.packing import pack
from attention_zoo.data.tokenizer import BOS
from attention_zoo.errors import UserError

KINDS = ("windows", "contiguous", "packed")


@dataclasses.dataclass(frozen=True)
class Stream:
  """Documents as one array of tokens: document i is tokens[offsets[i]:offsets[i + 1]], EOS at its end.

  words, characters, size: of the text that the tokens spell; size in bytes of UTF-8.
  """

  tokens: np.ndarray  # int32
  offsets: np.ndarray  # int64, one more than there are documents
  words: int = 0
  characters: int = 0
  size: int = 0

  def __len__(self) -> int:
    return int(self.offsets[-1])

  def inputs(self, start: int, stop: int) -> np.ndarray:
    """What tokens[start:stop] are predicted from, one by one."""
    before = np.empty(stop - start, np.int32)
    before[1:] = self.tokens[start : stop - 1]
    before[:1] = self.tokens[start - 1 : start] if start else BOS
    first, last = np.searchsorted(self.offsets[:-1], (start, stop))
    before[self.offsets[first:last] - start] = BOS
    return before


def make_batches(kind: str, stream: Stream, *, batch_tokens: int, row_length: int, seed: int, row_multiple=8):
  """The endless training batches of one of KINDS: `batches.local(step, parts, count)`, `batches.shapes`."""
  makers = {"windows": WindowBatches, "contiguous": ContiguousBatches, "packed": PackedDocuments}
  rows = batch_rows(batch_tokens, row_length, row_multiple)
  return makers[kind](stream, rows=rows, length=row_length, seed=seed)


class _Batches:
  def __init__(self, stream: Stream, *, rows: int, length: int, seed: int):
    self._stream, self._rows, self._length, self._seed = stream, rows, length, seed

  @property
  def shapes(self) -> tuple[Shapes, ...]:
    return (shapes(self._rows, self._length),)

  def __getitem__(self, step: int) -> Batch:
    return self.local(step, (0,), 1)

  def _numbers(self, step, parts, count):
    """(epoch, row of the epoch) of each row that these parts of the batch hold."""
    numbers = step * self._rows + share(self._rows, parts, count)
    return zip(*np.divmod(numbers, self.rows_per_epoch), strict=True)


class WindowBatches(_Batches):
  """Windows of `length` tokens, whatever documents they cut;
  each epoch cuts at other places and takes each window once."""

  def __init__(self, stream, **options):
    super().__init__(stream, **options)
    if len(stream) < self._length:
      raise UserError(
        f"The training text has {len(stream)} tokens, fewer than config.data.row_length={self._length}: lower that."
      )
    self.rows_per_epoch = max(len(stream) // self._length - 1, 1)
    self._epoch = functools.lru_cache(maxsize=2)(self._epoch)  # a cache of its own for each object

  def local(self, step: int, parts: Sequence[int], count: int) -> Batch:
    """The rows of batch `step` in these of its `count` equal parts."""
    starts = [self._epoch(int(epoch))[row] for epoch, row in self._numbers(step, parts, count)]
    return build(self._stream, [[(start, start + self._length)] for start in starts], self._length)

  def _epoch(self, epoch: int) -> np.ndarray:
    """Where each window begins."""
    chance = rng(self._seed, epoch)
    first = chance.integers(len(self._stream) - self.rows_per_epoch * self._length + 1)
    return first + self._length * chance.permutation(self.rows_per_epoch)


class ContiguousBatches(_Batches):
  """The text in as many equal parts as a batch has rows; each row reads its part from beginning to end, then again."""

  def __init__(self, stream, **options):
    super().__init__(stream, **options)
    self.steps_per_epoch = len(stream) // self._rows // self._length
    if not self.steps_per_epoch:
      raise UserError(
        f"The training text has {len(stream)} tokens, fewer than one batch of {self._rows} rows of "
        f"{self._length}: lower config.data.batch_tokens or config.data.row_length."
      )

  @property
  def shapes(self) -> tuple[Shapes, ...]:
    return (shapes(self._rows, self._length) | {"fresh": (self._rows,)},)

  def local(self, step: int, parts: Sequence[int], count: int) -> Batch:
    """The rows of batch `step` in these of its `count` equal parts."""
    at = step % self.steps_per_epoch
    starts = share(self._rows, parts, count) * (len(self._stream) // self._rows) + at * self._length
    batch = build(self._stream, [[(start, start + self._length)] for start in starts], self._length)
    return batch | {"fresh": np.full(len(starts), at == 0, np.int32)}

  def row_parts(self):
    """The tokens that each row of a batch goes through in an epoch, and the one before them."""
    size = len(self._stream) // self._rows
    return (self._stream.tokens[max(row * size - 1, 0) : (row + 1) * size] for row in range(self._rows))


class PackedDocuments(_Batches):
  """Rows into which as many documents as fit have been packed; one longer than a row is cut into pieces of a row."""

  def __init__(self, stream, **options):
    super().__init__(stream, **options)
    self._pieces = pieces(stream, self._length)
    lengths = self._pieces[:, 1] - self._pieces[:, 0]
    self._packing = pack(lengths, lengths, (self._length, self._length), self._seed)
    self.rows_per_epoch = len(self._packing)
    self._epoch = functools.lru_cache(maxsize=2)(self._epoch)

  def local(self, step: int, parts: Sequence[int], count: int) -> Batch:
    """The rows of batch `step` in these of its `count` equal parts."""
    rows = [self._epoch(int(epoch))[row] for epoch, row in self._numbers(step, parts, count)]
    offsets, documents = self._packing.offsets, self._packing.sentences
    ranges = [self._pieces[documents[offsets[row] : offsets[row + 1]]] for row in rows]
    return build(self._stream, ranges, self._length)

  def _epoch(self, epoch: int) -> np.ndarray:
    return rng(self._seed, epoch).permutation(self.rows_per_epoch)


def pieces(stream: Stream, length: int) -> np.ndarray:
  """[pieces, (start, stop)] of the documents, each cut after every `length` tokens."""
  counts = -(-np.diff(stream.offsets) // length)
  number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
  starts = np.repeat(stream.offsets[:-1], counts) + number * length
  return np.stack([starts, np.minimum(starts + length, np.repeat(stream.offsets[1:], counts))], 1)


def eval_batches(kind: str, stream: Stream, *, rows: int, row_length: int) -> Iterator[Batch]:
  """Every token exactly once, in batches of one shape, the last one filled up with empty rows.

  packed: documents by themselves, one piece a row. contiguous: as in training, so that carry finds what came before.
  """
  if kind == "packed":
    ranges = [[piece] for piece in pieces(stream, row_length)]
  elif kind == "contiguous":
    part = -(-len(stream) // rows)
    begins = np.minimum(np.arange(rows) * part, len(stream))
    ends = np.minimum(begins + part, len(stream))
    ranges = [
      [(min(begin + at, end), min(begin + at + row_length, end))]
      for at in range(0, part, row_length)
      for begin, end in zip(begins, ends, strict=True)
    ]
  else:
    starts = range(0, len(stream), row_length)
    ranges = [[(start, min(start + row_length, len(stream)))] for start in starts]
  for index in range(0, len(ranges), rows):
    here = ranges[index : index + rows]
    batch = build(stream, here + [[]] * (rows - len(here)), row_length)
    yield batch | ({"fresh": np.full(rows, index == 0, np.int32)} if kind == "contiguous" else {})


def build(stream: Stream, rows: list[list[tuple[int, int]]], length: int) -> Batch:
  """The batch whose row r holds the tokens of these ranges of the stream, each a segment."""
  batch = {name: np.zeros(shape, np.int32) for name, shape in shapes(len(rows), length).items()}
  for row, ranges in enumerate(rows):
    at = 0
    for segment, (start, stop) in enumerate(ranges, 1):
      here = slice(at, at + stop - start)
      batch["targets"][row, here] = stream.tokens[start:stop]
      batch["inputs"][row, here] = stream.inputs(start, stop)
      batch["segments"][row, here] = segment
      batch["positions"][row, here] = np.arange(stop - start)
      at = here.stop
  return batch


def shapes(rows: int, length: int) -> Shapes:
  return dict.fromkeys(("inputs", "targets", "segments", "positions"), (rows, length))
