"""What every trained model of images has: its parameters on all devices, images as it takes them, and its loss."""

import jax
import numpy as np

from attention_zoo.data import images as images_lib
from attention_zoo.errors import UserError
from attention_zoo.grammar import nearest
from attention_zoo.plots import image_grid, theme
from attention_zoo.tasks import arguments
from attention_zoo.tasks.describe import Description, describe
from attention_zoo.tasks.report import task_report
from attention_zoo.tasks.run import Run
from attention_zoo.training import sharding


def check_png(path) -> None:
  """Raises UserError for another name than that of a PNG file."""
  if not str(path).lower().endswith(".png"):
    raise UserError(f"{path}: a grid of images is written as a PNG file, whose name ends in .png")


class PictureRun(Run):
  """Of a `picture_task.PictureTask` whose config.decode has a batch_size. Work is spread over all devices of this
  process."""

  _takes = "images have --num_samples, --seed and most --temperature"  # of the flags of sampling

  def describe(self, *, rows: int = 1) -> Description:
    """Every part of the model with its parameters, the shapes that it returns and its operations; a notebook shows it
    as a table. Nothing is computed. rows: images of the batch that shapes and operations are of."""
    rows = arguments.whole(rows, "rows", 1, 10**6)
    return describe(self.config.model.name, self.task.module, self.task.model_config, rows=rows)

  @property
  def _shape(self):
    return self.config.data.size, self.config.data.size, 3

  def _pixels(self, given, **options) -> np.ndarray:
    """uint8 [n, Y, X, 3] of arrays and files, which are brought to size as the run's own are. options: instead."""
    given = arguments.items(given, "images", "images", "[image]")
    if not given:
      raise UserError("images must hold at least one image")
    size, options = self.config.data.size, options or images_lib.file_options(self.config.data.source)
    return np.stack([images_lib.to_pixels(image, size, f"images[{i}]", **options) for i, image in enumerate(given)])

  def _labels_of(self, label, n: int) -> np.ndarray:
    """int32 [n], of images that are given: their class is the caller's to say."""
    if label is None and self.config.data.num_classes:
      raise UserError("this model is told classes: give the label of each image")
    return self._labels(label, n)

  def _labels(self, label, n: int) -> np.ndarray:
    """int32 [n]; by default each class in turn."""
    names, number = self.task.class_names, self.config.data.num_classes
    if not number:
      if label is not None:
        raise UserError("this model is told no classes (config.data.num_classes = 0): leave the label out")
      return np.zeros(n, np.int32)
    if label is None:
      return np.arange(n, dtype=np.int32) % number
    given = [label] * n if isinstance(label, (str, int, np.integer)) else arguments.items(label, "label", "labels")
    if len(given) != n:
      raise UserError(f"there must be as many labels as images, got {len(given)} and {n}")
    for each in given:
      if isinstance(each, str) and each not in names:
        raise UserError(f"there is no class {each!r}{nearest(each, names)}; there are {', '.join(names)}")
    return np.array([
      names.index(each) if isinstance(each, str) else arguments.whole(each, "label", 0, number - 1) for each in given
    ], np.int32)  # fmt: skip

  def _write(self, output, others, draw) -> None:
    if not output:
      raise UserError("samples of images need --output=FILE.png")
    if given := [name for name, value in others.items() if value is not None]:
      raise UserError(f"--{given[0]} is for other models: {self._takes}")
    check_png(output)
    draw().save(output)

  def _page(self, evaluation, command, headline, samples) -> str:
    """The HTML page about the run. headline: the score on top. samples: an `image_model.Images`, shown as a grid."""
    more = [("images", "Samples", image_grid.html(samples.png(), theme.escape(str(samples.labels))))]
    return task_report(self, self.config.model.name, evaluation, headline=(headline,), command=command, more=more)

  def _parts(self, tree, n):
    """The rows of a tree in batches of one shape, the last one filled up."""
    devices = self._mesh.size
    rows = -(-min(self.config.decode.batch_size, n) // devices) * devices
    for start in range(0, n, rows):
      part = jax.tree.map(lambda x, start=start: x[start : start + rows], tree)
      fill = lambda x: np.pad(x, ((0, rows - len(x)),) + ((0, 0),) * (x.ndim - 1))
      yield jax.device_put(jax.tree.map(fill, part), sharding.batch_sharding(self._mesh))
