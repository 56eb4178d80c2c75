"""A trained generator that enlarges images: upscale, PSNR and SSIM, both players' losses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.protocols import Evaluation, Score
from attention_zoo.tasks import arguments
from attention_zoo.tasks.image_model import Images
from attention_zoo.tasks.upscaler import Upscaling


class GANUpscaler(Upscaling):
  """What `attention_zoo.load` returns for super-resolution by an adversarial network."""

  SAMPLE_OPTIONS = ("image",)
  _takes = "this one draws nothing, and makes one image of another"

  def upscale(self, image) -> Images:
    """The one image that the generator makes of the small one: nothing is drawn.

    image: uint8 [y, x, 3] of config.data.low_size, or a file; one of another size is cut to config.data.size, as the
    run's images are, and made small as in training. Raises UserError for what is no such image.
    """
    return self._upscale(self._low(image)[None])

  def _upscale(self, low_BYX3, labels_B=None) -> Images:
    parts = self._parts(low_BYX3, len(low_BYX3))
    found = np.concatenate([np.asarray(self._generator(self.params, part)) for part in parts])[: len(low_BYX3)]
    return Images(found, ("",) * len(found))

  @functools.cached_property
  def _generator(self):
    def enlarge(params, low_BYX3):
      images = self.task.model.apply({"params": params}, low_BYX3.astype(jnp.float32) / 255, method="enlarge")
      return jnp.round(images * 255).astype(jnp.uint8)

    return jax.jit(enlarge)

  def save_samples(self, output, *, image=None, num_samples=1, seed=0, **others):
    """Writes the enlarged image."""
    self._check_given(image)
    drawing = {"num_samples": num_samples if num_samples != 1 else None, "seed": seed or None}
    self._write(output, drawing | others, lambda: self.upscale(image))

  def evaluate(self, split: str, *, report=None) -> Evaluation:
    """Both players' losses on a split, and how near enlarged images come to its first ones, beside bicubic
    interpolation."""
    nearness = self.nearness(split)
    figures = self._evaluate(self.params, self.variables, arguments.split_name(split))
    if report:
      report(1, 1)
    found = {name: figures[name] for name in ("discriminator", "generator", "l1")}
    record = {"scores": {score.name: score.value for score in nearness}, "figures": found}
    record["images"] = self._compared(split)
    return Evaluation(nearness + [Score(*pair) for pair in found.items()], [], record)

  def page(self, evaluation: Evaluation, command: str = "") -> str:
    """The HTML page about the run, with a grid of enlarged images."""
    return self._page(evaluation, command, "psnr", self._examples())
