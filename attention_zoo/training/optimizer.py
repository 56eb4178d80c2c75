"""The optimizers, all from Optax: what is ours is only the choice by name."""

import optax

from attention_zoo.errors import UserError
from attention_zoo.training.schedule import make_schedule


def make_optimizer(optimizer, d_model: int) -> optax.GradientTransformation:
  """Adam (Kingma and Ba 2015), Adafactor (Shazeer and Stern 2018) or SM3 (Anil et al. 2019), scheduled.

  optimizer: the config group. Gradients are clipped to the global norm clip_norm first, unless that is 0.
  """
  schedule = make_schedule(optimizer, d_model)
  makers = {
    "adam": lambda: optax.adam(schedule, b1=optimizer.b1, b2=optimizer.b2, eps=optimizer.eps),
    "adafactor": lambda: optax.adafactor(
      schedule, multiply_by_parameter_scale=False, momentum=optimizer.b1 or None
    ),
    "sm3": lambda: optax.chain(optax.scale_by_sm3(optimizer.b1), optax.scale_by_learning_rate(schedule)),
  }
  if optimizer.name not in makers:
    raise UserError(f"config.optimizer.name = {optimizer.name!r} is not one of {', '.join(makers)}")
  transformation = makers[optimizer.name]()
  if optimizer.clip_norm > 0:
    transformation = optax.chain(optax.clip_by_global_norm(optimizer.clip_norm), transformation)
  return transformation
