"""Pictures that can be told apart by what lies far apart alone: two coloured markers, of one colour or of two.

Picture i of a split is a function of (seed, split, i). One marker lies in the left quarter, the other in the right one,
anywhere in height; what is between is grey noise. Half of the pictures have markers of equal colour. Every colour is as
frequent in both classes and at both places, so that a marker alone says nothing.
"""

import hashlib

import numpy as np

from attention_zoo.errors import UserError

CLASSES = ("different", "same")
COLOURS = ((220, 60, 50), (60, 170, 80), (60, 100, 220), (235, 200, 60))
SPLITS = ("train", "dev", "test")
_FORMAT = 1  # of the pictures; part of the fingerprint


def picture(split: str, index: int, size: int, seed: int = 0, label: int | None = None) -> tuple[np.ndarray, int]:
  """(uint8 [size, size, 3], its class). label: the class; None: any."""
  chance = np.random.Generator(np.random.Philox(key=[seed, 3 * index + SPLITS.index(split)]))
  pixels = np.repeat(chance.integers(80, 140, (size, size, 1)), 3, 2).astype(np.uint8)
  side = max(size // 8, 1)
  drawn, first = int(chance.integers(2)), int(chance.integers(len(COLOURS)))
  label = drawn if label is None else label
  second = first if label else (first + int(chance.integers(1, len(COLOURS)))) % len(COLOURS)
  for colour, left in ((first, 0), (second, size - size // 4)):
    top = int(chance.integers(size - side + 1))
    left += int(chance.integers(max(size // 4 - side, 0) + 1))
    pixels[top : top + side, left : left + side] = COLOURS[colour]
  return pixels, label


class Markers:
  """A source of `data/images.py`."""

  def __init__(self, roles, size, counts, seed, only=None):
    self.classes = CLASSES if only is None else (CLASSES[only],)
    self._roles, self._size, self._counts, self._seed, self._only = roles, size, counts, seed, only

  def _name(self, split):
    name = self._roles.get(split, split)
    if name not in SPLITS:
      raise UserError(f"the source markers has the splits {', '.join(SPLITS)}, not {name!r}")
    return name

  def pictures(self, split: str):
    """(uint8 [n, size, size, 3], labels int32 [n])."""
    name = self._name(split)
    found = [picture(name, i, self._size, self._seed, self._only) for i in range(self._counts[name])]
    labels = [0 if self._only is not None else label for _, label in found]
    return np.stack([pixels for pixels, _ in found]), np.array(labels, np.int32)

  def fingerprint(self, split: str) -> str:
    name = self._name(split)
    parts = _FORMAT, name, self._size, self._counts[name], self._seed, self._only
    return hashlib.sha256(repr(parts).encode()).hexdigest()
