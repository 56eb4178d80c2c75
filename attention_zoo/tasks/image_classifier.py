"""A trained classifier of images: classify, evaluate."""

import dataclasses
import functools
from collections.abc import Iterable

import jax
import numpy as np

from attention_zoo.protocols import Evaluation, Score
from attention_zoo.tasks import arguments
from attention_zoo.tasks.picture_run import PictureRun
from attention_zoo.tasks.report import task_report


@dataclasses.dataclass(frozen=True)
class Classified:
  """label: the most probable class. probabilities: of each class, the most probable first."""

  label: str
  probabilities: dict[str, float]


class ImageClassifier(PictureRun):
  """What `attention_zoo.load` returns for a classifier of images."""

  def classify(self, images: Iterable) -> list[Classified]:
    """The classes of images: uint8 [n, Y, X, 3], or a list of such images and files.

    Files are cut to size as the run's images are (`resize` and `enlarge` of a source of files). Raises UserError for
    what is no image of the model's size.
    """
    pixels = self._pixels(images).astype(np.int32)
    names = self.task.class_names
    found = []
    for probabilities_V in self._probabilities_of(pixels):
      order = np.argsort(-probabilities_V, kind="stable")
      found.append(Classified(names[order[0]], {names[i]: float(probabilities_V[i]) for i in order}))
    return found

  def _probabilities_of(self, pixels_BYX3) -> np.ndarray:
    parts = self._parts(pixels_BYX3, len(pixels_BYX3))
    found = [np.asarray(self._classify(self.params, part)) for part in parts]
    return np.concatenate(found)[: len(pixels_BYX3)]

  @functools.cached_property
  def _classify(self):
    return jax.jit(self.task.probabilities)

  def evaluate(self, split: str, *, report=None) -> Evaluation:
    """Accuracy and cross-entropy of a split, and how often each class was found for each."""
    split = arguments.split_name(split)
    figures = self._evaluate(self.params, self.variables, split)
    pixels, labels = self.task.pictures(split)
    guesses = self._probabilities_of(pixels.astype(np.int32)).argmax(-1)
    if report:
      report(1, 1)
    names = self.task.class_names
    confusion = np.zeros((len(names), len(names)), int)
    np.add.at(confusion, (labels, guesses), 1)
    scores = [Score("accuracy", figures["accuracy"]), Score("nll", figures["nll"])]
    samples = [{"class": names[label], "found": names[guess]} for label, guess in zip(labels, guesses, strict=True)]
    record = {"accuracy": figures["accuracy"], "nll": figures["nll"], "images": figures["weight"], "classes": names,
              "confusion": confusion.tolist()}  # fmt: skip
    return Evaluation(scores, samples, record)

  def page(self, evaluation: Evaluation, command: str = "") -> str:
    """The HTML page about the run."""
    return task_report(self, self.config.model.name, evaluation, headline=("accuracy",), command=command)
