"""Two-dimensional bin packing: sentence pairs into rows with room for so many source and target tokens."""

import dataclasses

import numpy as np

from attention_zoo.errors import UserError


@dataclasses.dataclass(frozen=True)
class Packing:
  """Row r holds the sentences `sentences[offsets[r]:offsets[r + 1]]`."""

  sentences: np.ndarray
  offsets: np.ndarray

  def __len__(self) -> int:
    return len(self.offsets) - 1


def row_shape(source_lengths: np.ndarray, target_lengths: np.ndarray, row_length: int) -> tuple[int, int]:
  """(source, target) tokens of a row: `row_length` on the side with more tokens, in proportion on the other.

  Accelerators like multiples of 8; where rounding to one would leave more than 1 % of a row empty (the rows
  are short), a multiple of 4, 2 or 1 is taken. A sentence for which the shorter side has no room makes it longer, up to
  `row_length`.
  """
  source, target = int(source_lengths.sum()), int(target_lengths.sum())
  exact = row_length * min(source, target) / max(source, target)
  for multiple in (8, 4, 2, 1):
    shorter = max(multiple, round(exact / multiple) * multiple)
    if abs(shorter - exact) <= 0.01 * exact:
      break
  longest = int((source_lengths if source < target else target_lengths).max())
  if longest > shorter:
    shorter = -(-longest // 8) * 8
  shorter = min(shorter, row_length)
  return (shorter, row_length) if source < target else (row_length, shorter)


def check_fit(source_lengths, target_lengths, row_length: int) -> None:
  """UserError when a sentence is longer than a row."""
  for side, lengths in (("source", source_lengths), ("target", target_lengths)):
    if (longest := lengths.max()) > row_length:
      raise UserError(
        f"A {side} sentence has {longest} tokens, but a row has room for config.data.row_length={row_length}. "
        f"Set config.data.max_length to at most {row_length}, or config.data.row_length to at least {longest}."
      )


def pack(
  source_lengths: np.ndarray, target_lengths: np.ndarray, shape: tuple[int, int], seed: int
) -> Packing:
  """Packs all sentence pairs into few rows of `shape` (source, target) tokens. Every pair must fit in a row.

  Greedily, a row at a time: the largest pair left, then again and again the one that leaves the least room on
  the emptier side, as fractions of the row; this fills the row and keeps its two sides in balance. Pairs of
  the same two lengths are interchangeable, so that a way to fill a row is repeated while there are pairs for
  it, and the work is a few milliseconds for every thousand *different* pairs of lengths, whatever the corpus.
  """
  source_room, target_room = shape
  cells, cell_of, counts = np.unique(
    np.asarray(source_lengths, np.int64) * (target_room + 1) + target_lengths,
    return_inverse=True,
    return_counts=True,
  )
  source, target = cells // (target_room + 1) / source_room, cells % (target_room + 1) / target_room
  # Which of the equally long pairs goes where is chance.
  shuffled = np.random.default_rng(seed).permutation(len(cell_of))
  members = shuffled[np.argsort(cell_of[shuffled], kind="stable")]
  starts = np.concatenate([[0], np.cumsum(counts)])[:-1]

  alive = np.argsort(-(source + target), kind="stable")
  left = counts.copy()
  sentences, sizes = [], []
  while len(alive):
    row = _fill(source[alive], target[alive], left[alive])
    kinds = alive[list(row)]
    used = np.array(list(row.values()))
    times = int((left[kinds] // used).min())
    taken = [
      members[start : start + n * times].reshape(times, n)
      for start, n in zip(starts[kinds] + counts[kinds] - left[kinds], used, strict=True)
    ]
    sentences.append(np.concatenate(taken, axis=1).ravel())
    sizes.append(np.full(times, used.sum()))
    left[kinds] -= used * times
    alive = alive[left[alive] > 0]
  offsets = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
  return Packing(np.concatenate(sentences), offsets)


def _fill(source: np.ndarray, target: np.ndarray, left: np.ndarray) -> dict[int, int]:
  """How many of each kind of pair go into one row; sizes in fractions of it, the first kind first."""
  row = {0: 1}
  source_room, target_room = 1 - source[0], 1 - target[0]
  while True:
    emptier = np.maximum(source_room - source, target_room - target)
    # A hair of tolerance, far below one token, for the rounding of the fractions.
    emptier[(source > source_room + 1e-9) | (target > target_room + 1e-9)] = np.inf
    for kind, used in row.items():
      if used == left[kind]:
        emptier[kind] = np.inf
    best = int(emptier.argmin())
    if emptier[best] == np.inf:
      return row
    row[best] = row.get(best, 0) + 1
    source_room, target_room = source_room - source[best], target_room - target[best]
