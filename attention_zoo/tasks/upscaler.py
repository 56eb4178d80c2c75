"""A trained model of super-resolution: upscale, bits per dimension, PSNR and SSIM."""

import os

import numpy as np

from attention_zoo.data import images as images_lib
from attention_zoo.data import picture
from attention_zoo.errors import UserError
from attention_zoo.evaluation import image_quality
from attention_zoo.protocols import Evaluation, Score
from attention_zoo.tasks import arguments
from attention_zoo.tasks.image_model import ImageModel, Images
from attention_zoo.tasks.picture_run import PictureRun

_COMPARED = 64  # images of a split that are enlarged to be measured
_SHOWN = 6  # of a page


class Upscaling(PictureRun):
  """What every run has that enlarges images. Its _upscale(low_BYX3, labels_B) -> Images makes one of each."""

  _drawn_how = ""  # the end of a signature

  def sample(self, n=1, **options):
    raise UserError("this model enlarges images: run.upscale(image)")

  def _low(self, image) -> np.ndarray:
    """uint8 [y, x, 3]: what the model is given of an image."""
    size = self.config.data.low_size
    if not isinstance(image, (str, os.PathLike)) or picture.file_size(image) == (size, size):
      return images_lib.to_pixels(image, size, "image", resize="none")
    return images_lib.shrink(self._pixels([image]), size)[0]

  def _check_given(self, image) -> None:
    if not image:
      raise UserError("a model of super-resolution needs --image=FILE, the small image")

  def enlarged(self, split: str, count: int, *, start: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(small, enlarged, real) uint8 [n, ..] of `count` images of a split from image `start` on, or as many as there
    are."""
    pixels, labels = (part[start : start + count] for part in self.task.pictures(split))
    low = images_lib.shrink(pixels, self.config.data.low_size)
    return low, self._upscale(low, labels).pixels, pixels

  def examples(self, split: str, count: int) -> Images:
    """Three columns of the first images of a split: small, enlarged by the model, and as they are."""
    low, drawn, pixels = self.enlarged(split, count)
    scale = self.config.data.size // self.config.data.low_size
    rows = np.stack([low.repeat(scale, 1).repeat(scale, 2), drawn, pixels], 1)
    return Images(rows.reshape(-1, *self._shape), ("",) * (3 * len(rows)), 3)

  def _examples(self) -> Images:
    return self.examples("dev", _SHOWN)

  def _compared(self, split) -> int:
    """The images of a split that `nearness` measures; "images" of every record."""
    return min(_COMPARED, len(self.task.pictures(split)[0]))

  def nearness(self, split: str) -> list[Score]:
    """How near enlarged images and bicubic interpolation come to the first images of a split: PSNR and, where images
    have 7 rows or more, SSIM."""
    measures = image_quality.measures(self.config.data.size)  # what is not installed is told before images are made
    low, drawn, pixels = self.enlarged(arguments.split_name(split), _COMPARED)
    how = f"first {len(pixels)} images of {split}"
    sides = [("", drawn, how + self._drawn_how), (" bicubic", images_lib.bicubic(low, len(pixels[0])), how)]
    return [
      Score(f"{name}{side}", float(measure(pixels, found).mean()), said, image_quality.DIGITS[name])
      for name, measure in measures.items() for side, found, said in sides
    ]  # fmt: skip


class Upscaler(Upscaling, ImageModel):
  """What `attention_zoo.load` returns for a model of super-resolution."""

  SAMPLE_OPTIONS = ("image", "label")

  def upscale(self, image, *, n: int = 1, label=None, temperature: float | None = None, seed: int = 0) -> Images:
    """`n` images that the small one may be of.

    image: uint8 [y, x, 3] of config.data.low_size, or a file; one of another size is cut to config.data.size, as the
    run's images are, and made small as in training. The other options are those of `ImageModel.sample`, but that a
    model that is told classes needs the label. Raises UserError for what is no such image.
    """
    low = self._low(image)
    n = arguments.whole(n, "n", 1, 10_000)
    return self._upscale(np.repeat(low[None], n, 0), self._labels_of(label, n), temperature, seed)

  def _upscale(self, low_BYX3, labels_B, temperature=None, seed=0) -> Images:
    pixels = np.zeros((len(low_BYX3), *self._shape), np.int32)
    given = {"low": low_BYX3.astype(np.int32), "labels": labels_B}
    return self._draw(pixels, np.zeros(pixels.shape[:3], bool), given, temperature, seed)

  @property
  def _drawn_how(self) -> str:
    return f", samples at temperature {self.config.decode.temperature:g}"

  def complete(self, image, rows, **options):
    raise UserError("this model enlarges images: run.upscale(image)")

  def _conditions(self, pixels_BYX3, labels_B) -> dict:
    low = images_lib.shrink(pixels_BYX3, self.config.data.low_size)
    return {"labels": labels_B, "low": low.astype(np.int32)}

  def save_samples(self, output, *, image=None, num_samples=1, label=None, temperature=None, seed=0, **others):
    """Writes a grid of images that the small one may be of."""
    self._check_given(image)
    self._write(output, others, lambda: self.upscale(image, n=num_samples, label=label, temperature=temperature,
                                                     seed=seed))  # fmt: skip

  def evaluate(self, split: str, *, report=None) -> Evaluation:
    """Bits per dimension of a split, and how near samples come to its first images, beside bicubic interpolation."""
    nearness = self.nearness(split)
    found = super().evaluate(split, report=report)
    scores = found.record["scores"] | {score.name: score.value for score in nearness}
    record = {"scores": scores, "images": self._compared(split)}
    return Evaluation(found.scores + nearness, [], found.record | record)
