"""The optimizers, all from Optax: what is ours is only the choice by name."""

import re

import jax
import optax

from attention_zoo import grammar
from attention_zoo.errors import UserError
from attention_zoo.training.schedule import make_schedule


def make_optimizer(optimizer) -> optax.GradientTransformation:
  """The optimizer that the config group's `name` names, with options; its learning rate follows `make_schedule`.

  Gradients are clipped to the global norm clip_norm first, unless that is 0. Raises UserError for an unknown name or
  option, or a bad value.
  """
  try:
    function, options = grammar.bind(optimizer.name, OPTIMIZERS, "optimizer")
    for name in ("b1", "b2", "momentum"):
      if not 0 <= options.get(name, 0) < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, not {options[name]}")
    for name in ("eps", "weight_decay"):
      if options.get(name, 0) < 0:
        raise ValueError(f"{name} must be at least 0, not {options[name]}")
  except ValueError as error:
    raise UserError(f"config.optimizer.name: {error}") from error
  transformation = function(make_schedule(optimizer), **options)
  if optimizer.clip_norm > 0:
    transformation = optax.chain(optax.clip_by_global_norm(optimizer.clip_norm), transformation)
  return transformation


def sgd(schedule, momentum: float = 0.0, nesterov: bool = False):
  return optax.sgd(schedule, momentum=momentum or None, nesterov=nesterov)


def adam(schedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8):
  """Kingma and Ba 2015."""
  return optax.adam(schedule, b1=b1, b2=b2, eps=eps)


def adamw(schedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.01):
  """Loshchilov and Hutter 2019: weight decay apart from the gradient. As usual, biases and scales do not decay."""
  return optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=_decays)


def adafactor(schedule, momentum: float = 0.9):
  """Shazeer and Stern 2018, without the scale of the parameters. momentum 0: none, and no memory for it."""
  return optax.adafactor(schedule, multiply_by_parameter_scale=False, momentum=momentum or None)


def sm3(schedule, momentum: float = 0.9):
  """Anil et al. 2019."""
  return optax.chain(optax.scale_by_sm3(momentum), optax.scale_by_learning_rate(schedule))


OPTIMIZERS = {function.__name__: function for function in (sgd, adam, adamw, adafactor, sm3)}


def _decays(params):
  """True for what multiplies activations; False for what is added to them or scales them."""
  small = lambda path: re.search("(^|_)(bias|scale)(_|$)", str(path[-1].key))
  return jax.tree_util.tree_map_with_path(lambda path, _: not small(path), params)
