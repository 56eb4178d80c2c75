"""Every task of the zoo: name in `config.task` -> class, made with (config, workdir)."""

from attention_zoo.errors import UserError
from attention_zoo.tasks.translation import Translation

TASKS = {"translation": Translation}


def make(config, workdir):
  """The task that `config.task` names."""
  if config.task not in TASKS:
    raise UserError(f"config.task = {config.task!r} is not one of {', '.join(TASKS)}")
  return TASKS[config.task](config, workdir)
