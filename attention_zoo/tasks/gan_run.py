"""A trained generator and its discriminator: sample, and how alike far parts of images are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.evaluation.distant import distant_correlation
from attention_zoo.protocols import Evaluation, Score
from attention_zoo.tasks import arguments
from attention_zoo.tasks.image_model import Images
from attention_zoo.tasks.picture_run import PictureRun

_MAX_SEED = 2**31 - 1
_SHOWN = 16  # samples on a page
_MEASURED = 512  # images that are drawn for a measure


class GANRun(PictureRun):
  """What `attention_zoo.load` returns for a generative adversarial network."""

  SAMPLE_OPTIONS = ("label",)  # of the command, beside those of every model

  def sample(self, n: int = 1, *, label=None, seed: int = 0) -> Images:
    """Drawn images. label: as in image models, the name or number of a class, or a list of n; by default each in turn.

    Image i depends on its label and seed + i alone. Raises UserError for labels that there are not.
    """
    n = arguments.whole(n, "n", 1, 100_000)
    seed = arguments.whole(seed, "seed", 0, _MAX_SEED - n)
    labels = self._labels(label, n)
    parts = self._parts((np.arange(seed, seed + n).astype(np.uint32), labels), n)
    found = np.concatenate([np.asarray(self._sampler(self.params, self.variables, *part)) for part in parts])[:n]
    return Images(found, tuple(self.task.class_names[i] if self.config.data.num_classes else "" for i in labels))

  def save_samples(self, output, *, num_samples=1, label=None, seed=0, **others):
    """Writes a grid of samples."""
    self._write(output, others, lambda: self.sample(num_samples, label=label, seed=seed))

  @functools.cached_property
  def _sampler(self):
    def sample(params, variables, seeds_B, labels_B):
      noise_BD = jax.vmap(lambda seed: self.task.noise(jax.random.key(seed), 1)[0])(seeds_B)
      images = self.task.generate(params, variables, noise_BD, labels_B)
      return jnp.round((images + 1) * 127.5).astype(jnp.uint8)

    return jax.jit(sample)

  def evaluate(self, split: str, *, report=None) -> Evaluation:
    """Both players' losses on a split, and how alike the left and the right of its images are, beside those of drawn
    ones (`evaluation/distant.py`)."""
    split = arguments.split_name(split)
    figures = self._evaluate(self.params, self.variables, split)
    real, labels = self.task.pictures(split)
    told = np.resize(labels, _MEASURED).tolist() if self.config.data.num_classes else None
    drawn = self.sample(_MEASURED, label=told).pixels
    if report:
      report(1, 1)
    found = {name: figures[name] for name in ("discriminator", "generator")}
    found |= {"distant_real": distant_correlation(real), "distant_drawn": distant_correlation(drawn)}
    scores = [Score(name.replace("_", " "), value) for name, value in found.items()]
    return Evaluation(scores, [], {"figures": found, "images": figures["weight"]})

  def page(self, evaluation: Evaluation, command: str = "") -> str:
    """The HTML page about the run, with a grid of samples."""
    return self._page(evaluation, command, "distant drawn", self.sample(_SHOWN))
