"""Learning rates: linear warmup, then inverse square root, exponential or cosine decay."""

import jax.numpy as jnp
import optax

from attention_zoo.errors import UserError


def make_schedule(optimizer, d_model: int) -> optax.Schedule:
  """The learning rate as a function of the number of updates made so far (0 before the first, as in Optax).

  With step = updates + 1, c = learning_rate, w = warmup_steps, n = decay_steps, r = decay_rate and
  e = end_factor, and with u = max(step - w, 0) / n, since the decays begin where the warmup ends:

    inverse_sqrt   c d_model^-0.5 min(step^-0.5, step w^-1.5)        (Vaswani et al. 2017, eq. 3, has c = 1)
    exponential    c min(step / w, 1) max(r^u, e)
    cosine         c min(step / w, 1) (e + (1 - e) (1 + cos(pi min(u, 1))) / 2)

  Raises UserError for another name.
  """
  warmup = max(optimizer.warmup_steps, 1)
  factor, end = optimizer.learning_rate, optimizer.end_factor

  def inverse_sqrt(count):
    step = count + 1.0
    return factor * d_model**-0.5 * jnp.minimum(step**-0.5, step * warmup**-1.5)

  def exponential(count):
    step = count + 1.0
    decay = optimizer.decay_rate ** (jnp.maximum(step - warmup, 0.0) / optimizer.decay_steps)
    return factor * jnp.minimum(step / warmup, 1.0) * jnp.maximum(decay, end)

  def cosine(count):
    step = count + 1.0
    progress = jnp.clip((step - warmup) / optimizer.decay_steps, 0.0, 1.0)
    return factor * jnp.minimum(step / warmup, 1.0) * (end + (1 - end) * (1 + jnp.cos(jnp.pi * progress)) / 2)

  schedules = {"inverse_sqrt": inverse_sqrt, "exponential": exponential, "cosine": cosine}
  if optimizer.schedule not in schedules:
    raise UserError(
      f"config.optimizer.schedule = {optimizer.schedule!r} is not one of {', '.join(schedules)}"
    )
  return schedules[optimizer.schedule]
