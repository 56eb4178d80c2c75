"""Generative adversarial networks: where images and two players meet, in one loop with one optimizer.

`GAN` is what the training loop sees; `tasks/gan_run.py` holds what a user does with trained parameters. The images are
those of image modelling (`data/images.py`).

Both players' losses are one sum, in which each is blind to the other's parameters: the generator's images come to the
discriminator's loss as constants, and the generator's loss has the discriminator's parameters as constants. So the
gradient of the sum is that of each player's own loss (the hinge loss of Miyato et al. 2018 and Zhang et al. 2019):

  D(x, params_d) = relu(1 - d(real)) + relu(1 + d(constant(g(noise, params_g))))
  G(params_g)    = -d(g(noise, params_g), constant(params_d))

An optimizer that has a step for each parameter (Adam) thus trains both at once. Their learning rates differ by
config.train.learning_rate_factors, as (("^generator/", 0.25),).

A model for it has, beside what `models/__init__.py` asks of every model:

  - BATCH of "pixels", int32 [B, Y, X, 3], and "labels", int32 [B]. Its Config takes `size` and `num_classes`, has
    `d_noise` and head == "players".
  - generate(noise_BD, labels_B) -> images [B, Y, X, 3] from -1 to 1, and discriminate(images, labels_B) -> scores_B,
    methods, both float32, whose parameters lie under "generator" and "discriminator". Images do not see each other.
  - What it learns without gradients is in the collection "spectral", which changes where it is mutable, and
    may be left out.
"""

import jax
import jax.numpy as jnp

from attention_zoo.errors import UserError
from attention_zoo.protocols import Examples, Initial, Loss
from attention_zoo.tasks.gan_run import GANRun
from attention_zoo.tasks.picture_task import DATA, PictureTask
from attention_zoo.training.config import COUNT

COLLECTION = "spectral"


class Players(PictureTask):
  """A task of two players. A loss is of images, not of their values."""

  unit = "images"

  def __init__(self, config, workdir):
    super().__init__(config, workdir)
    if getattr(self.model_config, "head", None) != "players":
      raise UserError(f"config.model.name = {config.model.name!r} is no pair of generator and discriminator")

  def batch_units(self) -> int:
    return self.config.data.batch_size


class GAN(Players):
  """The task as the loop sees it, made from a config and a work directory."""

  has_dev_samples = True
  FIELDS = {"data": DATA, "decode": {"batch_size": COUNT}}

  def init(self, rng) -> Initial:
    variables = dict(self._first(rng))
    return Initial(variables.pop("params"), variables)

  def noise(self, rng, rows: int):
    """BD: row i is a function of rng and i."""
    return jax.random.normal(rng, (rows, self.model_config.d_noise))

  def generate(self, params, variables, noise_BD, labels_B):
    return self.model.apply({"params": params, **variables}, noise_BD, labels_B, method="generate")

  def loss(self, params, variables, carry, batch, rng, step) -> Loss:
    """Both players' hinge losses of each image; see above. rng None: with the same noise for each batch."""
    weights_B = (batch["weights"] > 0).astype(jnp.float32)
    labels_B, constant = batch["labels"], jax.lax.stop_gradient
    noise_BD = self.noise(jax.random.key(0) if rng is None else rng, len(labels_B))

    def play(params, variables, x, method, learn):
      """(what a player says, variables afterwards). learn: whether the step of the power iteration is kept."""
      all_of_it = {"params": params, **variables}
      with self.rows_kept(len(labels_B)):
        if rng is None or not learn:
          return self.model.apply(all_of_it, x, labels_B, method=method), variables
        return self.model.apply(all_of_it, x, labels_B, method=method, mutable=[COLLECTION])

    real = batch["pixels"].astype(jnp.float32) / 127.5 - 1
    drawn, variables = play(params, variables, noise_BD, "generate", True)
    # From the same vectors each pass takes the same step, so that all are divided by the same singular values.
    real_B, after = play(params, variables, real, "discriminate", True)
    drawn_B, _ = play(params, variables, constant(drawn), "discriminate", False)
    fooled_B, _ = play(constant(params), variables, drawn, "discriminate", False)

    total = lambda x_B: (x_B * weights_B).sum()
    discriminator = total(jax.nn.relu(1 - real_B) + jax.nn.relu(1 + drawn_B))
    generator = -total(fooled_B)
    weight = weights_B.sum()
    sums = {"discriminator": discriminator, "generator": generator, "score_real": total(real_B),
            "score_drawn": total(drawn_B)}  # fmt: skip
    found = {name: (sum, weight) for name, sum in sums.items()}
    return Loss(discriminator + generator, weight, found, variables=constant(after))

  def dev_samples(self, params, variables, count) -> Examples:
    """A grid of drawn images, of each class in turn where there are classes."""
    with self.lent(params, variables) as run:
      return Examples([], {"samples": run.sample(count).png()})

  def runner(self, params, variables, *, checkpoint, step) -> GANRun:
    return GANRun(self, params, variables, checkpoint=checkpoint, step=step)
