"""Where images come from, and batches of them, each a pure function of (seed, step).

A config names a source with its options: source="shapes(train=5000)". A batch is a dict of int32 arrays: `pixels`
[B, Y, X, 3] of 0 to 255, `labels` [B], the number of each image's class, and `weights` [B], 0 for the empty rows that
fill up the last batch of an evaluation. With a low resolution it also has `low` [B, y, x, 3]: the same images, each
pixel the mean of a square of them.
"""

import functools
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from attention_zoo import grammar
from attention_zoo.data import picture
from attention_zoo.data.batches import Batch, rng, share
from attention_zoo.data.splits import ROLES
from attention_zoo.errors import UserError


class Images(Protocol):
  classes: tuple[str, ...]  # their names; () where the images have no classes

  def pictures(self, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(pixels uint8 [n, size, size, 3], labels int32 [n]) of the split of this role or name. UserError on bad input."""

  def fingerprint(self, split: str) -> str:
    """A hexadecimal digest that changes when the content of the split does."""


def make_images(data, directory: str) -> Images:
  """The source that the config group `data` names. directory: where config.data.dir is. Raises UserError."""
  roles = {role: data[f"{role}_split"] for role in ROLES}
  try:
    function, options = grammar.bind(data.source, SOURCES, "source of images", num_given=3)
    source = function(roles, directory, data.size, **options)
  except ValueError as error:
    if isinstance(error, UserError):
      raise
    raise UserError(f"config.data.source: {error}") from error
  source.told = bool(data.num_classes)  # folders are classes only where classes are asked for
  return source


def shapes(roles, directory, size, train: int = 20_000, dev: int = 1_000, test: int = 1_000, seed: int = 0):
  """Pictures of coloured shapes (`data/shapes.py`), in four classes. train, dev, test: images of each split."""
  from attention_zoo.data.shapes import Shapes

  return Shapes(roles, size, _counts("shapes", train, dev, test, seed, size), seed)


def markers(
  roles, directory, size, train: int = 20_000, dev: int = 1_000, test: int = 1_000, seed: int = 0, only: str = ""
):
  """Pictures of two markers far apart, in two classes: of one colour or not (`data/markers.py`). only: the name of a
  class, where there are to be no others."""
  from attention_zoo.data.markers import CLASSES, Markers

  if only and only not in CLASSES:
    raise ValueError(f"markers has the classes {', '.join(CLASSES)}, not only={only!r}")
  label = CLASSES.index(only) if only else None
  return Markers(roles, size, _counts("markers", train, dev, test, seed, size), seed, label)


def _counts(name, train, dev, test, seed, size) -> dict[str, int]:
  """Images of each split of an embedded source."""
  counts = {"train": train, "dev": dev, "test": test}
  if min(counts.values()) < 1 or max(counts.values()) > 10**7 or not 0 <= seed < 2**63:
    raise ValueError(f"{name} needs at least one image in each split, at most 10,000,000, and a seed of 0 or more")
  picture.check_memory(max(counts.values()), size, f"config.data.source={name}")
  return counts


def images(roles, directory, size, resize: str = "crop", enlarge: bool = False, bad: str = "skip"):
  """Folders or zip files of images, one for each split, in config.data.dir (`data/image_files.py`).

  resize: "crop" takes the square in the middle of each image and makes it smaller; "none": all have the size. enlarge:
  whether to make smaller ones larger. bad: what becomes of a file that cannot be read: "skip" leaves it out and tells
  so, "refuse" ends.
  """
  from attention_zoo.data.image_files import ImageFolder

  return ImageFolder(roles, directory, size, **_checked(resize, bad), enlarge=enlarge)


def tfds(
  roles, directory, size, name: str, image: str = "image", label: str = "label", resize: str = "crop",
  enlarge: bool = False, bad: str = "skip",
):  # fmt: skip
  """A data set of TensorFlow Datasets, prepared as array_record: tfds(name='cifar10'). image, label: its fields."""
  from attention_zoo.data.image_files import ImageRecords

  fields = {"name": name, "image": image, "label": label}
  return ImageRecords(roles, directory, size, **fields, **_checked(resize, bad), enlarge=enlarge)


def _checked(resize, bad) -> dict:
  for name, value, known in (("resize", resize, picture.RESIZES), ("bad", bad, ("skip", "refuse"))):
    if value not in known:
      raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
  return {"resize": resize, "bad": bad}


def file_options(source: str) -> dict:
  """How a config's source brings files to its size, as options of `picture.read`; a user's files go the same way."""
  _, options = grammar.parse(source)
  return {name: options[name] for name in ("resize", "enlarge") if name in options}


SOURCES = {function.__name__: function for function in (shapes, markers, images, tfds)}


def shrink(pixels_BYX3: np.ndarray, size: int) -> np.ndarray:
  """uint8 [B, size, size, 3]: each pixel the mean of a square of the image's, rounded."""
  B, Y, X = pixels_BYX3.shape[:3]
  blocks = pixels_BYX3.reshape(B, size, Y // size, size, X // size, 3)
  return np.round(blocks.mean((2, 4), np.float32)).astype(np.uint8)


def bicubic(pixels_BYX3: np.ndarray, size: int) -> np.ndarray:
  """uint8 [B, size, size, 3]: the images, enlarged by bicubic interpolation."""
  from PIL import Image

  return np.stack([
    np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)) for pixels in pixels_BYX3
  ])  # fmt: skip


class ImageBatches:
  """The endless training batches: epoch after epoch, each in another random order.

  flip: half of the images, drawn anew in each epoch, are mirrored. low_size: of `low`; 0: there is none.
  """

  def __init__(self, pixels, labels, *, rows: int, seed: int, flip=False, low_size=0):
    self._pixels, self._labels, self._rows, self._seed = pixels, labels, rows, seed
    self._flip, self._low_size = flip, low_size
    self._epoch = functools.lru_cache(maxsize=2)(self._epoch)  # a cache of its own for each object

  def __getitem__(self, step: int) -> Batch:
    return self.local(step, (0,), 1)

  def local(self, step: int, parts: Sequence[int], count: int) -> Batch:
    """The rows of batch `step` in these of its `count` equal parts."""
    numbers = step * self._rows + share(self._rows, parts, count, "batch_size")
    epochs, rows = np.divmod(numbers, len(self._pixels))
    found = [[column[row] for column in self._epoch(int(epoch))] for epoch, row in zip(epochs, rows, strict=True)]
    at, mirrored = (np.array(column) for column in zip(*found, strict=True))
    pixels = self._pixels[at]
    pixels = np.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
    return build(pixels, self._labels[at], len(at), self._low_size)

  def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """(the order of the images, which of them are mirrored)."""
    chance = rng(self._seed, epoch)
    order = chance.permutation(len(self._pixels))
    return order, (chance.random(len(order)) < 0.5) & self._flip


def eval_batches(pixels, labels, *, rows: int, low_size=0) -> Iterator[Batch]:
  """Every image once, in batches of one shape; the last one is filled up with empty rows."""
  for start in range(0, len(pixels), rows):
    here = slice(start, start + rows)
    yield build(pixels[here], labels[here], rows, low_size)


def build(pixels, labels, rows: int, low_size=0) -> Batch:
  """The batch of these images and of as many empty rows as fill it up."""
  batch = {"pixels": pixels, "labels": labels, "weights": np.ones(len(pixels))}
  if low_size:
    batch["low"] = shrink(pixels, low_size)
  fill = lambda x: np.pad(x, ((0, rows - len(x)),) + ((0, 0),) * (x.ndim - 1))
  return {name: fill(x).astype(np.int32) for name, x in batch.items()}


def batch_shapes(rows: int, size: int, low_size=0) -> dict:
  shapes = {"pixels": (rows, size, size, 3), "labels": (rows,), "weights": (rows,)}
  return shapes | ({"low": (rows, low_size, low_size, 3)} if low_size else {})


def to_pixels(given, size: int, name="image", **options) -> np.ndarray:
  """uint8 [size, size, 3] of an array of whole numbers from 0 to 255, or of an image file. options: of `picture.read`,
  for files.

  name: the argument's, for the UserError.
  """
  if isinstance(given, (str, os.PathLike)):
    return picture.read_file(given, size, **options)
  try:
    pixels = np.asarray(given)
  except ValueError:  # rows of several lengths
    pixels = np.zeros(())
  if not np.issubdtype(pixels.dtype, np.number):
    raise UserError(f"{name} must hold whole numbers from 0 to 255, not {pixels.dtype}")
  if pixels.shape != (size, size, 3):
    raise UserError(f"{name} must be an image of {size} x {size} x 3 values, not of the shape {list(pixels.shape)}")
  if not np.isfinite(pixels).all() or (pixels % 1).any() or pixels.min() < 0 or pixels.max() > 255:
    raise UserError(f"{name} must hold whole numbers from 0 to 255")
  return pixels.astype(np.uint8)
