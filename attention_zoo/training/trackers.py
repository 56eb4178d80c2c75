"""Trackers: functions of a user's own that are handed every record of a run,
to send it to Weights & Biases or elsewhere.

  # my_tracker.py, used by --tracker=my_tracker:log
  import functools, wandb
  start = functools.cache(wandb.init)  # when first called: every process imports this file, and process 0 alone logs

  def log(step, split, values):
    start(project="attention_zoo", id="base", resume="allow")
    wandb.log({f"{split}/{name}": value for name, value in values.items()}, step=step)

step: int. split: "train" or "dev". values: dict of float, as in metrics.jsonl. Called on process 0, between two steps:
a slow tracker makes training slow. A run that resumes hands over anew what comes after its checkpoint.
"""

import importlib

from attention_zoo.errors import UserError


def load(name: str):
  """The function that 'package.module:function' names. Raises UserError where there is none."""
  module, _, function = name.partition(":")
  try:
    found = getattr(importlib.import_module(module), function)
  except Exception as error:  # whatever the module of a user raises
    raise UserError(f"--tracker={name}: cannot be used as MODULE:FUNCTION ({type(error).__name__}: {error})") from error
  if not callable(found):
    raise UserError(f"--tracker={name}: {function} is not a function")
  return found


class Trackers:
  """Calls them one by one. An error of one is told once, through `say`, and stops neither the run nor the others."""

  def __init__(self, functions, say):
    self._functions, self._say, self._told = tuple(functions), say, set()

  def send(self, step: int, split: str, values: dict) -> None:
    for index, function in enumerate(self._functions):
      try:
        function(step, split, dict(values))
      except Exception as error:
        if index not in self._told:
          self._told.add(index)
          name = getattr(function, "__qualname__", repr(function))
          self._say(f"the tracker {name} failed at step {step}, and may again: {type(error).__name__}: {error}")
