"""A trained image model: sample, complete, bits per dimension.

Letters beside the house's: P what a head is given of a pixel.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable

import jax
import numpy as np

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.plots import image_grid
from attention_zoo.protocols import Evaluation, Score
from attention_zoo.tasks import arguments
from attention_zoo.tasks import pixels as heads
from attention_zoo.tasks.picture_run import PictureRun, check_png

_MAX_SEED = 2**31 - 1
_SHOWN = 16  # samples on a page


@dataclasses.dataclass(frozen=True, repr=False)
class Images:
  """pixels: uint8 [n, Y, X, 3]. labels: the name of each one's class, "" where there are none. A notebook shows them.

  columns: of the grid that `png` draws; None: about as many as rows.
  """

  pixels: np.ndarray
  labels: tuple[str, ...]
  columns: int | None = None

  def __len__(self):
    return len(self.pixels)

  def __getitem__(self, i):
    return self.pixels[i]

  def __repr__(self):
    n, Y, X, _ = self.pixels.shape
    return f"<{n} image{'s' * (n != 1)} of {Y} x {X} pixels: a notebook shows them, save('grid.png') writes them>"

  def png(self) -> bytes:
    """All of them in a grid, as a PNG file."""
    return image_grid.png(self.pixels, self.columns)

  _repr_png_ = png

  def save(self, path) -> None:
    """Writes the grid as a PNG file."""
    check_png(path)
    files.write_bytes(files.expand(path), self.png())


class ImageModel(PictureRun):
  """What `attention_zoo.load` returns for an image model. Work is spread over all devices of this process."""

  SAMPLE_OPTIONS = ("label", "image", "rows")  # of the command, beside those of every model

  # Sampling

  def sample(self, n: int = 1, *, label=None, temperature: float | None = None, seed: int = 0) -> Images:
    """Images drawn from nothing, value after value.

    label: of a model that is told classes, the name or number of one, or a list of n; by default each in turn.
    temperature: below 1 is bolder, 0 takes the most probable; config.decode's by default. Image i depends on the
    options and seed + i alone. Raises UserError for options out of range and labels that there are not.
    """
    n = arguments.whole(n, "n", 1, 10_000)
    labels = self._labels(label, n)
    pixels = np.zeros((n, *self._shape), np.int32)
    return self._draw(pixels, np.zeros(pixels.shape[:3], bool), {"labels": labels}, temperature, seed)

  def complete(self, image, rows: int, *, n: int = 1, label=None, temperature: float | None = None, seed: int = 0):
    """n + 1 images: the given one, and `n` that have its upper `rows` rows and are drawn below them.

    image: uint8 [Y, X, 3], or a file, which is cut to size as the run's images are. The other options are
    those of `sample`, but that a model that is told classes needs the label. Raises UserError for rows that the model
    does not generate first: with tiles, only whole tiles.
    """
    n, rows = arguments.whole(n, "n", 1, 10_000), arguments.whole(rows, "rows", 0, self._shape[0])
    given = self._pixels([image])
    if (fitting := self._first_rows(rows)) != rows:
      raise UserError(f"rows = {rows}: this model draws others before it sees all of these; take {fitting}")
    pixels = np.repeat(given, n, 0).astype(np.int32)
    known = np.zeros(pixels.shape[:3], bool)
    known[:, :rows] = True
    drawn = self._draw(pixels, known, {"labels": self._labels_of(label, n)}, temperature, seed)
    return Images(np.concatenate([given, drawn.pixels]), ("", *drawn.labels), n + 1 if n < 8 else None)

  def save_samples(
    self, output, *, num_samples=1, label=None, image=None, rows=None, temperature=None, seed=0, **others
  ):
    """Writes a grid of samples, or of completions of an image whose upper rows are kept, half of them by default."""
    options = {"label": label, "temperature": temperature, "seed": seed}
    if not image:
      if rows is not None:
        raise UserError("--rows says how much of an image is kept: it needs --image=FILE")
      return self._write(output, others, lambda: self.sample(num_samples, **options))
    rows = self._first_rows(self._shape[0] // 2) if rows is None else rows
    self._write(output, others, lambda: self.complete(image, rows, n=num_samples, **options))

  def _first_rows(self, rows: int) -> int:
    """The least number of upper rows, at least these, whose positions come before all others."""
    order = np.asarray(self.task.decoding(self.params, {"labels": np.zeros(1, np.int32)}).order)
    of_row, size = len(order) // self._shape[0], self._shape[0]
    return next(y for y in range(rows, size + 1) if (order[: y * of_row] < y * of_row).all())

  def _draw(self, pixels_BYX3, known_BYX, conditions, temperature, seed) -> Images:
    """In batches whose rows are filled up to what the devices share."""
    n = len(pixels_BYX3)
    temperature = self.config.decode.temperature if temperature is None else temperature
    temperature = np.float32(arguments.real(temperature, "temperature", 0, 1e6))
    seed = arguments.whole(seed, "seed", 0, _MAX_SEED - n)
    inputs = (pixels_BYX3, known_BYX, conditions, np.arange(seed, seed + n).astype(np.uint32))
    found = [self._sampler(self.params, *part, temperature) for part in self._parts(inputs, n)]
    pixels = np.concatenate([np.asarray(part) for part in found])[:n].astype(np.uint8)
    named = self.config.data.num_classes and "labels" in conditions
    labels = tuple(self.task.class_names[i] if named else "" for i in conditions.get("labels", np.zeros(n, int)))
    return Images(pixels, labels)

  @functools.cached_property
  def _sampler(self):
    def sample(params, pixels_BYX3, known_BYX, conditions, seeds_B, temperature):
      decoding = self.task.decoding(params, conditions)
      return heads.draw(decoding, self.task.model_config.head, pixels_BYX3, known_BYX, seeds_B, temperature)

    return jax.jit(sample)

  # Scoring

  def bits_per_dim(self, images: Iterable, labels=None) -> np.ndarray:
    """float64 [n]: what each value of each image costs, in bits, from its exact likelihood.

    images: uint8 [n, Y, X, 3], or a list of such images and files. labels: of a model that is told classes, which needs
    them. Raises UserError for what is no image of the model's size; files are not cut to it.
    """
    pixels = self._pixels(images, resize="none")
    conditions, n = self._conditions(pixels, self._labels_of(labels, len(pixels))), len(pixels)
    parts = self._parts((pixels.astype(np.int32), conditions), n)
    found = [np.asarray(self._scorer(self.params, *part)) for part in parts]
    return np.concatenate(found)[:n].astype(np.float64) / (math.log(2) * math.prod(self._shape))

  def _conditions(self, pixels_BYX3, labels_B) -> dict:
    """What the model is told beside the pixels."""
    return {"labels": labels_B}

  @functools.cached_property
  def _scorer(self):
    def nats(params, pixels_BYX3, conditions):
      outputs_BYXP = self.task.model.apply({"params": params}, conditions | {"pixels": pixels_BYX3})
      return -heads.log_likelihoods(self.task.model_config.head, outputs_BYXP, pixels_BYX3).sum((1, 2, 3))

    return jax.jit(nats)

  # Evaluating

  def evaluate(self, split: str, *, report=None) -> Evaluation:
    """Bits per dimension of a split, of all values and of each channel's; of a model that is told classes, given the
    class."""
    figures = self._evaluate(self.params, self.variables, arguments.split_name(split))
    if report:
      report(1, 1)
    found = {name: figures[name] for name in ("bits_per_dim", "bits_red", "bits_green", "bits_blue")}
    scores = [Score(name.replace("_", " "), value) for name, value in found.items()]
    return Evaluation(scores, [], {"scores": dict([scores[0][:2]]), "bits": found, "values": figures["weight"]})

  def page(self, evaluation: Evaluation, command: str = "") -> str:
    """The HTML page about the run, with a grid of samples."""
    return self._page(evaluation, command, "bits per dim", self._examples())

  def _examples(self) -> Images:
    return self.sample(_SHOWN)
