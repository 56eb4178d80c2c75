"""Batches of fixed shape, each a pure function of (seed, step): packed rows, or sentences bucketed by length.

A batch is a dict of int32 arrays: `source, source_segments, source_positions` [B, S] and `inputs, targets,
target_segments, target_positions` [B, T]. A row holds one or more sentence pairs; segment 1, 2, ... tells
them apart, on both sides alike, and 0 is padding (where everything else is 0 too). Positions count from 0 in
each sentence. `inputs` are the targets shifted right in their sentence, beginning with BOS.

`batches[step]` is the global batch and `batches.local(step, parts, count)` those rows of it that one process
feeds: of `count` equal parts, the ones listed. Epochs roll over without end, each in another random order.
"""

import functools
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from attention_zoo.data.corpus import Corpus
from attention_zoo.data.packing import Packing, check_fit, pack, row_shape
from attention_zoo.data.sampling import Sampler
from attention_zoo.data.tokenizer import BOS
from attention_zoo.errors import UserError

Batch = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, int]]


class PackedBatches:
  """Rows into which as many sentences as fit have been packed, so that (nearly) no token is padding.

  batch_tokens: tokens a global batch has room for on the longer side. row_length: tokens a row has room for on
  the side of which the corpus has more; the other side is shorter in proportion, but long enough for its longest
  sentence, up to `row_length`. The packing is made once;
  each epoch permutes the rows. Rows a batch: what the budget allows, rounded down to a multiple of
  `row_multiple` where there are as many.

  sampler: gives each sentence another segmentation in each epoch (data/sampling.py).

  Raises UserError when a sentence is longer than a row, or the budget smaller than one row.
  """

  def __init__(
    self,
    corpus: Corpus,
    *,
    batch_tokens: int,
    row_length: int,
    seed: int,
    row_multiple: int = 8,
    sampler: Sampler | None = None,
  ):
    self._corpus, self._seed, self._sampler = corpus, seed, sampler
    self._rows = batch_rows(batch_tokens, row_length, row_multiple)
    self._shape, self._packing = _packed(_lengths(corpus, row_length, sampler), row_length, seed)
    # A cache of its own for each object; NumPy's arrays are shared by the reading threads.
    self._epoch = functools.lru_cache(maxsize=4)(self._epoch)

  @property
  def shapes(self) -> tuple[Shapes, ...]:
    """The shapes of the global batches; packed ones have one."""
    return (_shapes(self._rows, *self._shape),)

  @property
  def rows_per_epoch(self) -> int:
    return len(self._packing)

  def fill(self) -> tuple[float, float]:
    """The fraction of tokens, over an epoch without sampling, that is not padding: (source, target)."""
    return _fill(self._corpus, *(len(self._packing) * length for length in self._shape))

  def __getitem__(self, step: int) -> Batch:
    return self.local(step, (0,), 1)

  def local(self, step: int, parts: Sequence[int], count: int) -> Batch:
    """The rows of batch `step` in these of its `count` equal parts."""
    epochs, rows = np.divmod(step * self._rows + share(self._rows, parts, count), len(self._packing))
    for epoch in np.unique(epochs):
      here = epochs == epoch
      rows[here] = self._epoch(int(epoch))[rows[here]]
    corpus, (sentences, where, segments) = self._corpus, _sentences(self._packing, rows)
    if self._sampler:
      corpus = self._sampler.sample(corpus, sentences, where, epochs, self._shape)
      sentences = np.arange(len(sentences))
    return _build(corpus, sentences, where, segments, len(rows), *self._shape)

  def _epoch(self, epoch: int) -> np.ndarray:
    return rng(self._seed, epoch).permutation(len(self._packing))


class BucketedBatches:
  """One sentence pair a row, with others of about its length: buckets grow geometrically up to `row_length`.

  The same interface as PackedBatches, with several shapes. A batch has as many rows of its length as the
  budget allows. What is left in a bucket at the end of an epoch goes to the next longer one, so that only the
  last batch of the longest has empty rows.
  """

  GROWTH = 1.15

  def __init__(
    self,
    corpus: Corpus,
    *,
    batch_tokens: int,
    row_length: int,
    seed: int,
    row_multiple: int = 8,
    sampler: Sampler | None = None,
  ):
    self._corpus, self._seed, self._sampler = corpus, seed, sampler
    lengths = np.maximum(*_lengths(corpus, row_length, sampler))
    check_fit(corpus.source_lengths, corpus.target_lengths, row_length)
    bounds = [min(8, row_length)]
    while bounds[-1] < row_length:
      bounds.append(min(max(bounds[-1] + 4, int(bounds[-1] * self.GROWTH) // 4 * 4), row_length))
    longest = np.searchsorted(bounds, lengths.max())
    self._lengths = bounds[: longest + 1]
    self._rows = [batch_rows(batch_tokens, length, row_multiple) for length in self._lengths]
    bucket_of = np.searchsorted(self._lengths, lengths)
    self._members = [np.flatnonzero(bucket_of == bucket) for bucket in range(len(self._lengths))]
    # A cache of its own for each object; the plans are shared by the reading threads.
    self._plan = functools.lru_cache(maxsize=2)(self._plan)

  @property
  def shapes(self) -> tuple[Shapes, ...]:
    """The shapes of the global batches, one for each bucket that makes any."""
    return tuple(
      _shapes(self._rows[b], *[self._lengths[b]] * 2) for b in sorted({b for b, _ in self._plan(0)})
    )

  @property
  def batches_per_epoch(self) -> int:
    return len(self._plan(0))

  def fill(self) -> tuple[float, float]:
    """The fraction of tokens, over an epoch without sampling, that is not padding: (source, target)."""
    room = sum(self._rows[bucket] * self._lengths[bucket] for bucket, _ in self._plan(0))
    return _fill(self._corpus, room, room)

  def __getitem__(self, step: int) -> Batch:
    return self.local(step, (0,), 1)

  def local(self, step: int, parts: Sequence[int], count: int) -> Batch:
    """The rows of batch `step` in these of its `count` equal parts."""
    epoch, i = divmod(step, self.batches_per_epoch)
    bucket, sentences = self._plan(epoch)[i]
    length, mine = self._lengths[bucket], share(self._rows[bucket], parts, count)
    sentences = sentences[mine[mine < len(sentences)]]
    corpus, rows = self._corpus, np.arange(len(sentences))
    if self._sampler:
      corpus = self._sampler.sample(corpus, sentences, rows, np.full(len(rows), epoch), (length, length))
      sentences = rows
    return _build(corpus, sentences, rows, np.ones_like(rows), len(mine), length, length)

  def _plan(self, epoch: int) -> list[tuple[int, np.ndarray]]:
    """The batches of an epoch, in order, as (bucket, sentences): as many in every epoch."""
    chance = rng(self._seed, epoch)
    batches, rest = [], np.zeros(0, np.int64)
    for bucket, (rows, members) in enumerate(zip(self._rows, self._members, strict=True)):
      sentences = np.concatenate([rest, chance.permutation(members)])
      last = bucket == len(self._rows) - 1
      whole = len(sentences) if last else len(sentences) // rows * rows
      batches += [(bucket, sentences[i : i + rows]) for i in range(0, whole, rows)]
      rest = sentences[whole:]
    return [batches[i] for i in chance.permutation(len(batches))]


def eval_batches(corpus: Corpus, *, rows: int, row_length: int, packed: bool = True) -> Iterator[Batch]:
  """Every sentence pair exactly once, in batches of one shape; the last one is filled up with empty rows.

  packed: several sentences a row rather than one.
  """
  shape, packing = _packed(_lengths(corpus, row_length), row_length, seed=0)
  if not packed:
    packing = Packing(np.arange(len(corpus)), np.arange(len(corpus) + 1))
  for start in range(0, len(packing), rows):
    which = np.arange(start, min(start + rows, len(packing)))
    yield _build(corpus, *_sentences(packing, which), rows, *shape)


def prefetch(batches, start_step: int = 0, parts: Sequence[int] = (0,), count: int = 1) -> Iterator[Batch]:
  """The local batches from `start_step` on, without end, built ahead by Grain's threads.

  Nothing before `start_step` is computed. The iterator's `close()` stops the threads; what goes wrong in one
  of them is raised by `next()`.
  """
  import grain

  source = grain.MapDataset.source(_LocalBatches(batches, parts, count))
  options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=16)
  iterator = iter(source.slice(slice(start_step, None)).to_iter_dataset(options))
  iterator.start_prefetch()
  return iterator


class _LocalBatches:
  """Grain's view of the batches of one process: a sequence that is endless in practice."""

  def __init__(self, batches, parts: Sequence[int], count: int):
    self._batches, self._share = batches, (parts, count)

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, step: int) -> Batch:
    return self._batches.local(int(step), *self._share)


def rng(seed: int, epoch: int) -> np.random.Generator:
  return np.random.Generator(np.random.Philox(key=[seed % 2**64, epoch]))


def batch_rows(batch_tokens: int, length: int, multiple: int = 8) -> int:
  rows = batch_tokens // length
  if not rows:
    raise UserError(f"config.data.batch_tokens={batch_tokens} is less than one row of {length} tokens.")
  return rows // multiple * multiple or rows


def share(rows: int, parts: Sequence[int], count: int, field: str = "batch_tokens") -> np.ndarray:
  """The numbers of the rows in these of `count` equal parts. field: of config.data, which says how many rows."""
  if rows % count:
    raise UserError(f"A batch of {rows} rows cannot be divided into {count} parts: change config.data.{field}.")
  return np.arange(rows).reshape(count, -1)[list(parts)].ravel()


def _shapes(rows: int, source_length: int, target_length: int) -> Shapes:
  source = ("source", "source_segments", "source_positions")
  target = ("inputs", "targets", "target_segments", "target_positions")
  return {name: (rows, source_length) for name in source} | {name: (rows, target_length) for name in target}


def _fill(corpus: Corpus, source_room: int, target_room: int) -> tuple[float, float]:
  return int(corpus.source_offsets[-1]) / source_room, int(corpus.target_offsets[-1]) / target_room


def _lengths(corpus: Corpus, row_length: int, sampler: Sampler | None = None) -> tuple[np.ndarray, np.ndarray]:
  """The room that each sentence gets, (source, target)."""
  if sampler and len(corpus):
    return sampler.lengths(corpus, row_length)
  return corpus.source_lengths, corpus.target_lengths


def _packed(lengths: tuple[np.ndarray, np.ndarray], row_length: int, seed: int) -> tuple[tuple[int, int], Packing]:
  shape = row_shape(*lengths, row_length)
  check_fit(*lengths, row_length)
  return shape, pack(*lengths, shape, seed)


def _sentences(packing: Packing, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The sentences in these rows of the packing, the index into `rows` of each, and its segment (1, 2, ...)."""
  counts = packing.offsets[rows + 1] - packing.offsets[rows]
  segments = _counted(counts)
  where = np.repeat(packing.offsets[rows], counts) + segments
  return packing.sentences[where], np.repeat(np.arange(len(rows)), counts), segments + 1


def _counted(counts: np.ndarray) -> np.ndarray:
  """0, 1, ..., counts[0] - 1, 0, 1, ..., counts[1] - 1, ..."""
  ends = np.cumsum(counts)
  return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def _build(
  corpus: Corpus, sentences, rows, segments, n_rows: int, source_length: int, target_length: int
) -> Batch:
  """The batch with sentence sentences[i] in row rows[i] (ascending) as segment segments[i] (ascending in a row)."""
  where, positions, source, source_segments = _place(
    corpus.source_tokens, corpus.source_offsets, sentences, rows, segments, source_length
  )
  to, target_positions, targets, target_segments = _place(
    corpus.target_tokens, corpus.target_offsets, sentences, rows, segments, target_length
  )
  inputs = np.concatenate([[BOS], targets[:-1]])
  inputs[target_positions == 0] = BOS
  batch = {
    name: np.zeros(shape, np.int32) for name, shape in _shapes(n_rows, source_length, target_length).items()
  }
  for name, values in dict(
    source=source, source_segments=source_segments, source_positions=positions
  ).items():
    batch[name].ravel()[where] = values
  for name, values in dict(
    inputs=inputs, targets=targets, target_segments=target_segments, target_positions=target_positions
  ).items():
    batch[name].ravel()[to] = values
  return batch


def _place(tokens, offsets, sentences, rows, segments, row_length: int):
  """For each token of the sentences: its place in the flat batch, position in its sentence, id and segment."""
  lengths = offsets[sentences + 1] - offsets[sentences]
  positions = _counted(lengths)
  before = np.cumsum(lengths) - lengths
  # Tokens before a sentence in its own row: all before it, less all before the row's first sentence.
  starts = before - before[np.searchsorted(rows, rows)] + rows * row_length
  where = np.repeat(starts, lengths) + positions
  ids = tokens[np.repeat(offsets[sentences], lengths) + positions]
  return where, positions, ids, np.repeat(segments, lengths)
