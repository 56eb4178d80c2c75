"""Super-resolution by two players: a generator that enlarges small images, and a discriminator of the large ones.

`SuperResolutionGAN` is what the training loop sees; `tasks/gan_upscaler.py` holds what a user does with trained
parameters. Both players' losses are one sum in which each is blind to the other's parameters, as in `tasks/gan.py`.
They are those of srez (Garcia 2016): with f the logistic loss of being taken for real, f(x) = log(1 + exp(-x)),

  D(params_d) = f(d(real)) + f(-d(constant(g(low))))
  G(params_g) = (1 - w) f(d(g(low), constant(params_d))) + w |small(g(low)) - low|

where small takes the mean of each square, as the small images were made, |..| is the mean over all values (from 0 to
1), and w = config.train.l1_weight. In training normal noise of the deviation config.train.low_noise is added to what
the generator is given. There is no likelihood, hence no bits per dimension.

A model for it has, beside what `models/__init__.py` asks of every model:

  - BATCH of "pixels", int32 [B, Y, X, 3], and "low", int32 [B, y, x, 3]. Its Config takes `size`, `num_classes` and
    `low_size`, and has head == "players".
  - enlarge(low_BYX3) -> images [B, Y, X, 3] from 0 to 1, and discriminate(images) -> logits_B, methods, both float32,
    whose parameters lie under "generator" and "discriminator". Images do not see each other.
"""

import jax
import jax.numpy as jnp

from attention_zoo.protocols import Loss
from attention_zoo.tasks.gan import Players
from attention_zoo.tasks.gan_upscaler import GANUpscaler
from attention_zoo.tasks.super_resolution import LowResolution
from attention_zoo.training.config import COUNT, FRACTION, POSITIVE


class SuperResolutionGAN(Players, LowResolution):
  """The task as the loop sees it, made from a config and a work directory."""

  FIELDS = {
    "data": LowResolution.DATA,
    "train": {"l1_weight": FRACTION, "low_noise": POSITIVE},
    "decode": {"batch_size": COUNT},
  }

  def loss(self, params, variables, carry, batch, rng, step) -> Loss:
    """Both players' losses of each image; see above. rng None: without noise."""
    weights_B = (batch["weights"] > 0).astype(jnp.float32)
    low_BYX3, real_BYX3 = (batch[name].astype(jnp.float32) / 255 for name in ("low", "pixels"))
    constant, l1_weight = jax.lax.stop_gradient, self.config.train.l1_weight

    def play(params, x, method):
      with self.rows_kept(len(weights_B)):
        return self.model.apply({"params": params}, x, method=method)

    noise = 0 if rng is None else self.config.train.low_noise * jax.random.normal(rng, low_BYX3.shape)
    drawn_BYX3 = play(params, low_BYX3 + noise, "enlarge")
    real_B = play(params, real_BYX3, "discriminate")
    drawn_B = play(params, constant(drawn_BYX3), "discriminate")
    fooled_B = play(constant(params), drawn_BYX3, "discriminate")
    l1_B = jnp.abs(shrink(drawn_BYX3, self.low_size) - low_BYX3).mean((1, 2, 3))

    total = lambda x_B: (x_B * weights_B).sum()
    discriminator = total(jax.nn.softplus(-real_B) + jax.nn.softplus(drawn_B))
    generator = total((1 - l1_weight) * jax.nn.softplus(-fooled_B) + l1_weight * l1_B)
    weight = weights_B.sum()
    sums = {"discriminator": discriminator, "generator": generator, "l1": total(l1_B)}
    return Loss(discriminator + generator, weight, {name: (sum, weight) for name, sum in sums.items()})

  def runner(self, params, variables, *, checkpoint, step) -> GANUpscaler:
    return GANUpscaler(self, params, variables, checkpoint=checkpoint, step=step)


def shrink(x_BYX3, size: int):
  """[B, size, size, 3]: the mean of each square."""
  B, Y, X = x_BYX3.shape[:3]
  return x_BYX3.reshape(B, size, Y // size, size, X // size, 3).mean((2, 4))
