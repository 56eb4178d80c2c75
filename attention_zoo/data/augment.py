"""Training batches of music in other keys and at other speeds, each a pure function of (seed, step).

Every row is transposed by up to `transpose` semitones either way, and its times are multiplied by 1 - stretch ..
1 + stretch (Huang et al. 2018: three semitones and 5 %). A row that gets longer is cut, one that gets shorter ends in
padding. Rows that continue those of the batch before ("contiguous") keep their key for an epoch. A row is transposed by
less where a note would leave the vocabulary.
"""

from collections.abc import Sequence

import numpy as np

from attention_zoo.data.batches import Batch, share
from attention_zoo.data.tokenizer import BOS, EOS

_STREAM = 0x6D75736963  # what sets these random numbers apart from those that choose the rows


class Augmented:
  """batches: one of `data/windows.py`. vocabulary: of `data/events.py`."""

  def __init__(self, batches, vocabulary, *, transpose: int, stretch: float, seed: int):
    self._batches, self._vocabulary, self._seed = batches, vocabulary, seed
    self._transpose, self._stretch = transpose, stretch
    self.shapes = batches.shapes
    # A row that goes on where it was is transposed by what all of its part has room for.
    parts = enumerate(getattr(batches, "row_parts", lambda: ())())
    self._rooms = {number: vocabulary.room(part) for number, part in parts}

  def __getitem__(self, step: int) -> Batch:
    return self.local(step, (0,), 1)

  def local(self, step: int, parts: Sequence[int], count: int) -> Batch:
    """The rows of batch `step` in these of its `count` equal parts."""
    batch = self._batches.local(step, parts, count)
    total = self.shapes[0]["targets"][0]
    period = getattr(self._batches, "steps_per_epoch", 1)  # of contiguous batches
    for row, number in enumerate(share(total, parts, count)):
      chance = np.random.default_rng([self._seed, _STREAM, step // period, number])
      semitones = int(chance.integers(-self._transpose, self._transpose + 1))
      factor = 1 + self._stretch * chance.uniform(-1, 1)
      if number in self._rooms:
        semitones = int(np.clip(semitones, *self._rooms[number]))
      both = self._vocabulary.transpose(np.stack([batch[name][row] for name in ("inputs", "targets")]), semitones)
      batch["inputs"][row], batch["targets"][row] = both
      if self._stretch:
        self._stretch_row({name: x[row] for name, x in batch.items()}, factor)
    return batch

  def _stretch_row(self, row: dict[str, np.ndarray], factor: float) -> None:
    """Writes the row anew, segment by segment."""
    old = {name: x.copy() for name, x in row.items()}
    for x in row.values():
      x[:] = 0
    at, length = 0, len(old["targets"])
    for segment in range(1, old["segments"].max() + 1):
      here = old["segments"] == segment
      targets = self._vocabulary.stretch(old["targets"][here], factor)[: length - at]
      if not len(targets):
        break
      part = slice(at, at + len(targets))
      row["targets"][part], row["segments"][part] = targets, segment
      row["positions"][part] = np.arange(len(targets))
      row["inputs"][part] = np.where(np.roll(targets, 1) == EOS, BOS, np.roll(targets, 1))
      row["inputs"][at] = old["inputs"][here][0]
      at = part.stop
