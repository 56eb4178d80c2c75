"""Pictures of one to three coloured shapes, made by a rule: for image models, captions and questions, without files.

Picture i of a split is a function of (seed, split, i). One of its objects is large, and its shape is the picture's
class. Splits share no scene: a hash of the scene says which split it belongs to. (Two small objects in the other order
are another scene and the same picture: one of several billions.)
"""

import dataclasses
import hashlib
import zlib

import numpy as np

from attention_zoo.errors import UserError

SHAPES = ("circle", "square", "triangle", "cross")  # the classes
COLOURS = {
  "red": (214, 58, 52), "green": (62, 160, 78), "blue": (54, 98, 206), "yellow": (236, 200, 60),
  "purple": (142, 72, 170), "orange": (232, 130, 40), "turquoise": (70, 188, 186), "white": (240, 240, 236),
}  # fmt: skip
BACKGROUNDS = {"black": (18, 18, 22), "grey": (110, 112, 116), "brown": (74, 58, 48)}
SPLITS = {"train": range(2, 10), "dev": (0,), "test": (1,)}  # of the last digit of a scene's hash

_FORMAT = 1  # of the pictures; part of the fingerprint
_UNITS = 16  # of a picture's side: boxes are whole numbers of them
_FINE = 3  # points of a pixel's side that are asked whether they lie in a shape


@dataclasses.dataclass(frozen=True)
class Object:
  """box: (top, left, bottom, right), in sixteenths of the picture's side."""

  shape: str
  colour: str
  large: bool
  box: tuple[int, int, int, int]

  @property
  def size(self) -> str:
    return "large" if self.large else "small"

  @property
  def place(self) -> str:
    """Where its middle is: "top left", "middle", ..."""
    top, left, bottom, right = self.box
    row = ("top", "middle", "bottom")[(top + bottom) * 3 // (2 * _UNITS)]
    column = ("left", "middle", "right")[(left + right) * 3 // (2 * _UNITS)]
    return row if row == column else f"{row} {column}"

  def __str__(self):
    return f"{self.size} {self.colour} {self.shape}"


@dataclasses.dataclass(frozen=True)
class Scene:
  """objects: the large one first."""

  background: str
  objects: tuple[Object, ...]

  @property
  def label(self) -> int:
    return SHAPES.index(self.objects[0].shape)

  @property
  def caption(self) -> str:
    """"a large red circle in the top left and a small blue cross in the middle on a grey ground"."""
    named = [f"a {thing} in the {thing.place}" for thing in self.objects]
    return f"{', '.join(named[:-1])}{' and ' * (len(named) > 1)}{named[-1]} on a {self.background} ground"


def scene(split: str, index: int, seed: int = 0) -> Scene:
  """What picture `index` of a split shows."""
  chance = np.random.Generator(np.random.Philox(key=[seed, 3 * index + tuple(SPLITS).index(split)]))
  while True:
    found = _draw(chance)
    if zlib.crc32(repr(found).encode()) % 10 in SPLITS[split]:
      return found


def _draw(chance) -> Scene:
  """A large object in four of the sixteen cells of a picture, and small ones in cells that it leaves free."""
  pick = lambda names: names[chance.integers(len(names))]
  cell = _UNITS // 4
  row, column = (int(x) for x in chance.integers(3, size=2))
  free = [(y, x) for y in range(4) for x in range(4) if not (row <= y <= row + 1 and column <= x <= column + 1)]
  objects = [_place(chance, row * cell, column * cell, 2 * cell, pick, True)]
  for i in chance.permutation(len(free))[: chance.integers(3)]:
    objects.append(_place(chance, free[i][0] * cell, free[i][1] * cell, cell, pick, False))
  return Scene(pick(tuple(BACKGROUNDS)), tuple(objects))


def _place(chance, top, left, room, pick, large) -> Object:
  side = room - int(chance.integers(2))
  top, left = (start + int(chance.integers(room - side + 1)) for start in (top, left))
  return Object(pick(SHAPES), pick(tuple(COLOURS)), large, (top, left, top + side, left + side))


def picture(scene: Scene, size: int) -> np.ndarray:
  """uint8 [size, size, 3]. Edges are as much of a colour as the shape covers of the pixel."""
  ground = np.empty((size, size, 3))
  ground[:] = BACKGROUNDS[scene.background]
  at = (np.arange(size * _FINE) + 0.5) * _UNITS / (size * _FINE)
  for thing in scene.objects:
    top, left, bottom, right = thing.box
    # From -1 to 1 inside the box.
    y, x = 2 * (at - top)[:, None] / (bottom - top) - 1, 2 * (at - left)[None] / (right - left) - 1
    inside = (abs(y) < 1) & (abs(x) < 1) & _COVERS[thing.shape](y, x)
    cover = inside.reshape(size, _FINE, size, _FINE).mean((1, 3))[..., None]
    ground += cover * (COLOURS[thing.colour] - ground)
  return np.round(ground).astype(np.uint8)


_COVERS = {
  "circle": lambda y, x: y**2 + x**2 < 1,
  "square": lambda y, x: (abs(y) < 0.9) & (abs(x) < 0.9),
  "triangle": lambda y, x: 2 * abs(x) < y + 1,
  "cross": lambda y, x: (abs(y) < 0.3) | (abs(x) < 0.3),
}


class Shapes:
  """A source of `data/images.py`."""

  classes = SHAPES

  def __init__(self, roles, size, counts, seed):
    self._roles, self._size, self._counts, self._seed = roles, size, counts, seed

  def _name(self, split):
    name = self._roles.get(split, split)
    if name not in SPLITS:
      raise UserError(f"the source shapes has the splits {', '.join(SPLITS)}, not {name!r}")
    return name

  def scenes(self, split: str) -> list[Scene]:
    name = self._name(split)
    return [scene(name, i, self._seed) for i in range(self._counts[name])]

  def pictures(self, split: str):
    """(uint8 [n, size, size, 3], labels int32 [n])."""
    scenes = self.scenes(split)
    pixels = np.stack([picture(each, self._size) for each in scenes])
    return pixels, np.array([each.label for each in scenes], np.int32)

  def fingerprint(self, split: str) -> str:
    name = self._name(split)
    parts = _FORMAT, name, self._size, self._counts[name], self._seed
    return hashlib.sha256(repr(parts).encode()).hexdigest()
