"""Super-resolution: image modelling where the model is given the image at a low resolution.

A model for it has what `tasks/image_modeling.py` asks for, and BATCH with "low", int32 [B, y, x, 3]; its Config takes
`low_size`, the rows and columns of that. `tasks/upscaler.py` holds what a user does with trained parameters.
"""

from attention_zoo.errors import UserError
from attention_zoo.protocols import Examples
from attention_zoo.tasks.image_modeling import ImageModeling
from attention_zoo.tasks.picture_task import DATA, PictureTask
from attention_zoo.tasks.upscaler import Upscaler
from attention_zoo.training.config import COUNT


class LowResolution(PictureTask):
  """A task whose model is given small images; its runner is an `upscaler.Upscaling`."""

  GIVEN = (*PictureTask.GIVEN, "low_size")
  DATA = DATA | {"low_size": COUNT}
  has_dev_samples = True

  def __init__(self, config, workdir):
    if config.data.size % config.data.low_size:
      raise UserError(
        f"config.data.size = {config.data.size} is no multiple of config.data.low_size = {config.data.low_size}: each "
        "pixel of the small image is the mean of a square"
      )
    super().__init__(config, workdir)
    if "low" not in self.module.BATCH:
      raise UserError(
        f"config.model.name = {config.model.name!r} does not look at the small image: choose another model, or "
        'config.task = "image_modeling"'
      )

  @property
  def low_size(self) -> int:
    return self.config.data.low_size

  def dev_samples(self, params, variables, count) -> Examples:
    """Of the first images of dev: small, enlarged by the model, and as they are."""
    with self.lent(params, variables) as run:
      return Examples([], {"samples": run.examples("dev", count).png()})


class SuperResolution(LowResolution, ImageModeling):
  """The task as the loop sees it, made from a config and a work directory."""

  FIELDS = ImageModeling.FIELDS | {"data": LowResolution.DATA}

  def runner(self, params, variables, *, checkpoint, step) -> Upscaler:
    return Upscaler(self, params, variables, checkpoint=checkpoint, step=step)
