"""Batches of whole words with their characters, for models that read a text from both ends.

A batch is that of packed documents in `data/windows.py`, but that a piece of a long document begins with BOS as a
document does, with `characters` int32 [B, T, W], those of the targets (`data/words.py`), 0 where there is padding.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from attention_zoo.data import windows
from attention_zoo.data.batches import Batch
from attention_zoo.data.tokenizer import BOS
from attention_zoo.data.words import Spelt
from attention_zoo.errors import UserError


class SpeltBatches:
  """stream: the words. spelt: their characters. word_length: W."""

  def __init__(self, stream: windows.Stream, spelt: Spelt, word_length: int):
    if len(stream) != len(spelt):
      raise UserError(
        f"the text has {len(stream)} words in one file of the cache, and {len(spelt)} in another: delete both"
      )
    self._stream, self._spelt, self.word_length = stream, spelt, word_length

  def _of_places(self) -> windows.Stream:
    """The same documents, with the number of each word in its place."""
    return windows.Stream(np.arange(len(self._stream), dtype=np.int32), self._stream.offsets)

  def in_order(self, rows: int, row_length: int) -> Iterator[Batch]:
    """Every word once."""
    for batch in windows.eval_batches("packed", self._of_places(), rows=rows, row_length=row_length):
      yield self.spell(batch)

  def endless(self, **options):
    """The training batches. options: of `windows.make_batches`."""
    return _Endless(windows.make_batches("packed", self._of_places(), **options), self)

  def spell(self, batch: Batch) -> Batch:
    """The batch whose targets are numbers of words."""
    places, real = batch["targets"], batch["segments"] > 0
    targets = np.where(real, self._stream.tokens[places], 0).astype(np.int32)
    inputs = np.zeros_like(targets)
    inputs[:, 1:] = targets[:, :-1]
    inputs = np.where(real, np.where(batch["positions"] == 0, BOS, inputs), 0).astype(np.int32)
    characters = np.where(real[..., None], self._spelt.characters(places, self.word_length), 0).astype(np.int32)
    return batch | {"targets": targets, "inputs": inputs, "characters": characters}


class _Endless:
  def __init__(self, batches, owner: SpeltBatches):
    self._batches, self._owner = batches, owner
    self.shapes = tuple(shapes | {"characters": (*shapes["targets"], owner.word_length)} for shapes in batches.shapes)

  def __getitem__(self, step: int) -> Batch:
    return self.local(step, (0,), 1)

  def local(self, step: int, parts: Sequence[int], count: int) -> Batch:
    return self._owner.spell(self._batches.local(step, parts, count))
