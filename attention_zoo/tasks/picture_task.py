"""What every task on images has: the run's images and the names of their classes, and batches of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from attention_zoo import files
from attention_zoo.data import classes, identity, images
from attention_zoo.data.batches import prefetch
from attention_zoo.errors import UserError
from attention_zoo.tasks.model_task import ModelTask
from attention_zoo.training import checkpoints, distributed
from attention_zoo.training.config import COUNT, FLAG, NATURAL, TEXT, Field

DATA = {
  "source": TEXT,
  "dir": TEXT,
  "train_split": TEXT,
  "dev_split": TEXT,
  "test_split": TEXT,
  "size": Field(int, low=1, high=1024),  # rows and columns of the images
  "num_classes": NATURAL,  # that the model is told, or tells; 0: none, whatever the source has
  "flip": FLAG,  # mirrors half of the training images
  "batch_size": COUNT,
  "seed": NATURAL,
}


class PictureTask(ModelTask):
  """A task whose config.data has the fields of DATA."""

  GIVEN = ("size", "num_classes")
  longest = None  # images have one size

  def __init__(self, config, workdir):
    super().__init__(config, workdir)
    if config.data.num_classes == 1:
      raise UserError("config.data.num_classes = 1: a single class tells a model nothing, set it to 0")
    self._found, self.pictures = functools.cache(self._found), functools.cache(self.pictures)

  @property
  def low_size(self) -> int:
    return 0

  # The run's images and the names of their classes

  @functools.cached_property
  def source(self):
    return images.make_images(self.config.data, identity.find_text(self.workdir, self.config.data.dir))

  def pictures(self, split: str):
    """(pixels uint8 [n, Y, X, 3], labels int32 [n]) of a split. Raises UserError for other classes than the run's."""
    found = self._found(split)
    if self.config.data.num_classes and identity.read(self.workdir) and tuple(self.source.classes) != self.class_names:
      raise UserError(
        f"the images have the classes {', '.join(self.source.classes)[:200]}, but the run in {self.workdir} has "
        f"{', '.join(self.class_names)[:200]}: bring back the folders of its training images"
      )
    return found

  def _found(self, split):
    pixels, labels = self.source.pictures(split)
    if self.config.data.num_classes and len(self.source.classes) != self.config.data.num_classes:
      raise UserError(
        f"config.data.num_classes = {self.config.data.num_classes}, but {self.config.data.source} has "
        f"{len(self.source.classes)} classes ({', '.join(self.source.classes)[:200]}): set it to that, or to 0 for a "
        "model that is told none"
      )
    return pixels, labels

  def fingerprint(self) -> str:
    return self.source.fingerprint("train")

  @functools.cached_property
  def class_names(self) -> tuple[str, ...]:
    names, number = classes.parse(identity.vocabulary(self.workdir), self.workdir), self.config.data.num_classes
    if number and len(names) != number:
      raise UserError(f"{self.workdir}: the run has {len(names)} classes, but config.data.num_classes = {number}")
    return names

  def check(self) -> None:
    _ = self.class_names

  def claim(self) -> None:
    """Notes the images and their classes of a new run, and holds one that exists to them; for training alone."""
    data = self.config.data
    found, directory = self.fingerprint(), data.dir
    self._found("train")
    if files.is_local(directory) and directory:
      directory = str(files.expand(directory).absolute())
    claim = functools.partial(
      identity.claim, self.workdir, train=found, directory=directory,
      settings={"source": data.source, "size": data.size},
      learn=lambda: classes.learn(self.source.classes), trained=bool(checkpoints.steps(self.workdir)),
    )  # fmt: skip
    distributed.first_then_others(claim)
    if jax.process_count() > 1:
      digest = np.frombuffer(bytes.fromhex(found), np.uint8)
      if (multihost_utils.process_allgather(digest) != digest).any():
        raise UserError(f"the processes do not all find the same training images (config.data.dir = {data.dir!r})")

  # Batches

  @functools.cached_property
  def batches(self):
    """The endless training batches, random access by step."""
    data = self.config.data
    options = dict(rows=data.batch_size, seed=data.seed, flip=data.flip, low_size=self.low_size)
    return images.ImageBatches(*self.pictures("train"), **options)

  def train_batches(self, start, parts, count):
    self.claim()
    self.pictures("dev")  # What is wrong with it is told now, not at the first evaluation.
    return prefetch(self.batches, start, parts, count)

  def eval_batches(self, split):
    return images.eval_batches(*self.pictures(split), rows=self.config.data.batch_size, low_size=self.low_size)

  def batch_shapes(self):
    data = self.config.data
    shapes = images.batch_shapes(data.batch_size, data.size, self.low_size)
    return {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in shapes.items()}

  def train_shapes(self):
    return ({name: shape.shape for name, shape in self.batch_shapes().items()},)
