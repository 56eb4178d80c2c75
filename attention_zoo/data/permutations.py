"""Batches for permutation language models (Yang et al. 2019, section 2.3), each a pure function of (seed, step).

They are those of `data/windows.py`, with the tokens themselves as `inputs`, `types` of zeros, and `places`
[B, most_predicted] and `order` [B, T]: the tokens of a row that are predicted, drawn at random, come one after the
other in a random order, 1, 2, ..; the others come before them all, 0.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from attention_zoo.data.batches import Batch, Shapes, share


def most_predicted(one_in: int, length: int) -> int:
  return max(1, length // one_in)


class Permuted:
  """Training batches. one_in: of so many tokens one is predicted."""

  def __init__(self, batches, *, rows: int, one_in: int, seed: int):
    self._batches, self._rows, self._one_in, self._seed = batches, rows, one_in, seed

  @property
  def shapes(self) -> tuple[Shapes, ...]:
    return tuple({name: (self._rows, *x.shape[1:]) for name, x in self[0].items()} for _ in self._batches.shapes)

  def __getitem__(self, step: int) -> Batch:
    return self.local(step, (0,), 1)

  def local(self, step: int, parts: Sequence[int], count: int) -> Batch:
    """The rows of batch `step` in these of its `count` equal parts."""
    numbers = step * self._rows + share(self._rows, parts, count)
    return permuted(self._batches.local(step, parts, count), numbers.tolist(), self._one_in, self._seed)


def in_order(batches: Iterable[Batch], one_in: int) -> Iterator[Batch]:
  """Of batches that are evaluated; the permutations are always the same, whatever the seed of training."""
  at = 0
  for batch in batches:
    yield permuted(batch, range(at, at + len(batch["targets"])), one_in, seed=0)
    at += len(batch["targets"])


def permuted(batch: Batch, numbers: Sequence[int], one_in: int, seed: int) -> Batch:
  """The batch of `data/windows.py`, its rows permuted as their numbers say."""
  rows, length = batch["targets"].shape
  most = most_predicted(one_in, length)
  found = {name: batch[name] for name in ("segments", "positions", "fresh") if name in batch}
  found |= {"inputs": batch["targets"], "types": np.zeros((rows, length), np.int32)}
  found |= {"order": np.zeros((rows, length), np.int32), "places": np.zeros((rows, most), np.int32)}
  for b, number in enumerate(numbers):
    chance = np.random.Generator(np.random.Philox(key=[seed % 2**64, number], counter=[0, 0, 0, 2]))
    chosen = chance.permutation(length)[:most]
    found["order"][b, chosen] = np.arange(1, most + 1)
    found["places"][b] = np.sort(chosen)
  return found
