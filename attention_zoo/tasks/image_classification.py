"""Image classification: where images, their classes and a classifier meet.

`ImageClassification` is what the training loop sees; `tasks/image_classifier.py` holds what a user does with trained
parameters. The images are those of image modelling (`data/images.py`).

A model for it has, beside what `models/__init__.py` asks of every model:

  - BATCH of "pixels", int32 [B, Y, X, 3] of 0 to 255. Its Config takes `size`, the rows and columns of the images, and
    `num_classes`, and has head == "classes".
  - __call__(batch, *, train) -> logits BV, float32, V = num_classes. Images do not see each other.
"""

import jax
import jax.numpy as jnp

from attention_zoo.errors import UserError
from attention_zoo.protocols import Loss
from attention_zoo.tasks.image_classifier import ImageClassifier
from attention_zoo.tasks.picture_task import DATA, PictureTask
from attention_zoo.training.config import COUNT
from attention_zoo.training.loss import smoothed_cross_entropy


class ImageClassification(PictureTask):
  """The task as the loop sees it, made from a config and a work directory."""

  unit = "images"
  FIELDS = {"data": DATA, "decode": {"batch_size": COUNT}}

  def __init__(self, config, workdir):
    super().__init__(config, workdir)
    if getattr(self.model_config, "head", None) != "classes":
      raise UserError(f"config.model.name = {config.model.name!r} is no classifier: its outputs are not of classes")

  def batch_units(self) -> int:
    return self.config.data.batch_size

  def loss(self, params, variables, carry, batch, rng, step) -> Loss:
    """The cross-entropy of each image's class."""
    weights_B = (batch["weights"] > 0).astype(jnp.float32)
    logits_BV, _ = self.apply(params, batch, rng)
    value, nll, correct = smoothed_cross_entropy(logits_BV, batch["labels"], weights_B)
    weight = weights_B.sum()
    return Loss(value, weight, {"nll": (nll, weight), "accuracy": (correct, weight)})

  def probabilities(self, params, pixels_BYX3):
    """P of each class, float32 BV."""
    return jax.nn.softmax(self.model.apply({"params": params}, {"pixels": pixels_BYX3}))

  def runner(self, params, variables, *, checkpoint, step) -> ImageClassifier:
    return ImageClassifier(self, params, variables, checkpoint=checkpoint, step=step)
