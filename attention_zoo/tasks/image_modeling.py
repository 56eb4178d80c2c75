"""Image modelling: where images, an autoregressive model, their exact likelihood and sampling meet.

`ImageModeling` is what the training loop sees; `tasks/image_model.py` holds what a user does with trained parameters.

A model for it has, beside what `models/__init__.py` asks of every model:

  - BATCH of "pixels", int32 [B, Y, X, 3] of 0 to 255, and "labels", int32 [B] (`data/images.py`). Its Config takes
    `size`, the rows and columns of the images, and `num_classes`; where that is 0 labels are not looked at.
  - head, in its Config, "categorical" or "dmol": what its outputs are the parameters of.
  - __call__(batch, *, train) -> outputs_BYXP, float32: for each pixel 3 * 256 logits (red's first), or what
    `ops/dmol.py` makes a mixture of. What it says of a value depends on the values before it, in the order of its
    `decoding` (row by row, where it has none), and the channels of a pixel as red, green, blue. With "dmol" a pixel's
    parameters depend on the pixels before it alone: the mixture sees to the channels.
  - Where the logits would be large, hidden(batch, *, train) -> [B, Y, X, 3, D], a method, and output_table(params) ->
    VD in its module: the logits are the products of both, and are never there for a whole batch
    (`training/loss.py`). For "categorical" alone; output_table may return None for a head that has none.
  - decoding(config, params, batch) -> protocols.PixelDecoding in its module: what a step of sampling costs less than a
    whole forward pass with. batch: what conditions the model ("labels", "low"), with the rows. Without it each step is
    a forward pass.

`tests/conformance/test_image_models.py` holds every model to this.

Letters beside the house's: P what a head is given of a pixel.
"""

import math

import jax.numpy as jnp

from attention_zoo.errors import UserError
from attention_zoo.protocols import Examples, Loss
from attention_zoo.tasks import pixels as heads
from attention_zoo.tasks.image_model import ImageModel
from attention_zoo.tasks.picture_task import DATA, PictureTask
from attention_zoo.training.config import COUNT, Field
from attention_zoo.training.loss import linear_cross_entropy

CHANNELS = ("red", "green", "blue")


class ImageModeling(PictureTask):
  """The task as the loop sees it, made from a config and a work directory."""

  unit = "subpixels"  # values, three of each pixel
  has_dev_samples = True
  FIELDS = {
    "data": DATA,
    "decode": {
      "temperature": Field(float, low=0.0),
      "batch_size": COUNT,
    },
  }

  def __init__(self, config, workdir):
    super().__init__(config, workdir)
    if (head := getattr(self.model_config, "head", None)) not in heads.HEADS:
      raise UserError(
        f"config.model.name = {config.model.name!r} has the head {head!r}, which is not one of {', '.join(heads.HEADS)}"
      )

  def loss(self, params, variables, carry, batch, rng, step) -> Loss:
    """The negative logarithm of the likelihood of all values, in nats; reported in bits, also by channel."""
    weights_B = (batch["weights"] > 0).astype(jnp.float32)
    pixels_BYX3, values = batch["pixels"], math.prod(batch["pixels"].shape[1:3])  # of a channel
    table_VD = self.output_table(params)
    if table_VD is None:
      outputs_BYXP, _ = self.apply(params, batch, rng)
      logprobs_BYX3 = heads.log_likelihoods(self.model_config.head, outputs_BYXP, pixels_BYX3)
      nats = [-(logprobs_BYX3[..., i].sum((1, 2)) * weights_B).sum() for i in range(3)]
    else:
      hidden_BYX3D, _ = self.apply(params, batch, rng, method="hidden")
      weights_BYX = jnp.broadcast_to(weights_B[:, None, None], pixels_BYX3.shape[:3])
      each = [(hidden_BYX3D[:, :, :, i], table_VD, pixels_BYX3[..., i], weights_BYX) for i in range(3)]
      nats = [linear_cross_entropy(*channel, 0.0)[0] for channel in each]
    of_channel = values * weights_B.sum()
    bits = {f"bits_{name}": (sum / math.log(2), of_channel) for name, sum in zip(CHANNELS, nats, strict=True)}
    weight = 3 * of_channel
    return Loss(sum(nats), weight, {"bits_per_dim": (sum(nats) / math.log(2), weight)} | bits)

  def output_table(self, params):
    """The table of the logits, where the model keeps hidden outputs and it apart; else None."""
    return self.module.output_table(params) if hasattr(self.module, "output_table") else None

  def decoding(self, params, batch):
    """The model's `protocols.PixelDecoding`. batch: what conditions it, on B rows."""
    if hasattr(self.module, "decoding"):
      return self.module.decoding(self.model_config, params, batch)
    forward = lambda pixels_BYX3: self.model.apply({"params": params}, batch | {"pixels": pixels_BYX3})
    return heads.by_whole_passes(self.model_config.head, forward, self.config.data.size)

  def dev_samples(self, params, variables, count) -> Examples:
    """A grid of samples, of each class in turn where there are classes."""
    with self.lent(params, variables) as run:
      return Examples([], {"samples": run.sample(count).png()})

  def runner(self, params, variables, *, checkpoint, step) -> ImageModel:
    return ImageModel(self, params, variables, checkpoint=checkpoint, step=step)
