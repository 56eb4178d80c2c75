"""Learning rates: linear warmup, then constant, inverse square root, linear, exponential, cosine or stepwise decay; and
the slanted triangle, which has its own warmup."""

import math

import jax.numpy as jnp
import optax

from attention_zoo import grammar
from attention_zoo.errors import UserError


def check_width(config) -> None:
  """Raises UserError where the paper's schedule is for another width than the model's."""
  widths = config.model.get("d_model"), config.optimizer.d_model
  if grammar.parse(config.optimizer.schedule)[0] == "inverse_sqrt" and widths[0] not in (None, widths[1]):
    raise UserError(
      f"config.optimizer.d_model = {widths[1]}, but config.model.d_model = {widths[0]}, and the schedule inverse_sqrt "
      "is for the model's width. A config file that replaces the group model sets both; another rate is "
      "config.optimizer.learning_rate"
    )


def make_schedule(optimizer) -> optax.Schedule:
  """The learning rate as a function of the number of updates made so far (0 before the first, as in Optax).

  optimizer: the config group; its `schedule` names one of the functions below, with options. With step = updates + 1,
  c = learning_rate, w = warmup_steps, n = decay_steps, r = decay_rate and e = end_factor, and with
  u = max(step - w, 0) / n, since the decays begin where the warmup ends:

    inverse_sqrt   c d_model^-0.5 min(step^-0.5, step w^-1.5)        (Vaswani et al. 2017, eq. 3, has c = 1)
    constant       c min(step / w, 1)
    linear         c min(step / w, 1) (1 - (1 - e) min(u, 1))
    exponential    c min(step / w, 1) max(r^u, e)
    cosine         c min(step / w, 1) (e + (1 - e) (1 + cos(pi min(u, 1))) / 2)
    stepwise       c min(step / w, 1) r^ceil(max(step - begin, 0) / n)     ("halved every epoch after epoch 5": r = 0.5)

  Howard and Ruder 2018, equation 3, counts t = updates, T = total_steps; warmup_steps mean nothing to it:

    slanted_triangular   c (1 + p (ratio - 1)) / ratio,   cut = floor(T cut_fraction), at least 1,
                         p = t / cut before cut, then 1 - (t - cut) / (cut (1 / cut_fraction - 1)), at least 0

  Raises UserError for another name, an unknown option or a bad value.
  """
  try:
    function, options = grammar.bind(optimizer.schedule, SCHEDULES, "schedule", num_given=2)
    for name, (low, high) in _RANGES.items():
      if not low <= options.get(name, low) <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {options[name]}")
  except ValueError as error:
    raise UserError(f"config.optimizer.schedule: {error}") from error
  warmup, factor = max(optimizer.warmup_steps, 1), optimizer.learning_rate

  if function is inverse_sqrt:
    factor *= optimizer.d_model**-0.5
  return lambda count: factor * function(count + 1.0, warmup, **options)


_RANGES = {
  "begin": (0, 10**12), "decay_steps": (1, 10**12), "decay_rate": (0.0, 1.0), "end_factor": (0.0, 1.0),
  "total_steps": (2, 10**12), "cut_fraction": (1e-6, 1 - 1e-6), "ratio": (1.0, 1e12),
}  # fmt: skip


def inverse_sqrt(step, warmup):
  return jnp.minimum(step**-0.5, step * warmup**-1.5)


def constant(step, warmup):
  return jnp.minimum(step / warmup, 1.0)


def linear(step, warmup, decay_steps: int, end_factor: float = 0.0):
  return constant(step, warmup) * (1 - (1 - end_factor) * _progress(step, warmup, decay_steps))


def exponential(step, warmup, decay_steps: int, decay_rate: float, end_factor: float = 0.0):
  decay = decay_rate ** (jnp.maximum(step - warmup, 0.0) / decay_steps)
  return constant(step, warmup) * jnp.maximum(decay, end_factor)


def cosine(step, warmup, decay_steps: int, end_factor: float = 0.0):
  half_wave = (1 + jnp.cos(jnp.pi * _progress(step, warmup, decay_steps))) / 2
  return constant(step, warmup) * (end_factor + (1 - end_factor) * half_wave)


def stepwise(step, warmup, begin: int, decay_steps: int, decay_rate: float = 0.5):
  return constant(step, warmup) * decay_rate ** jnp.ceil(jnp.maximum(step - begin, 0.0) / decay_steps)


def slanted_triangular(step, warmup, total_steps: int, cut_fraction: float = 0.1, ratio: float = 32.0):
  cut = max(math.floor(total_steps * cut_fraction), 1)
  t = step - 1
  p = jnp.where(t < cut, t / cut, jnp.maximum(1 - (t - cut) / (cut * (1 / cut_fraction - 1)), 0.0))
  return (1 + p * (ratio - 1)) / ratio


def _progress(step, warmup, decay_steps):
  return jnp.clip((step - warmup) / decay_steps, 0.0, 1.0)


SCHEDULES = {
  function.__name__: function
  for function in (inverse_sqrt, constant, linear, exponential, cosine, stepwise, slanted_triangular)
}
