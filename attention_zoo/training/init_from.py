"""Fine-tuning: a run that begins with another run's parameters (config.train.init_from)."""

import logging
import re
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.protocols import Initial
from attention_zoo.training import config as config_lib
from attention_zoo.training import exported, loading, sharding, untrusted
from attention_zoo.training.step import on_first_device
from attention_zoo.training.workdir import read_config

logger = logging.getLogger(__name__)


class Taken(NamedTuple):
  """Names of parameters. taken: (here, there); new: here alone, as drawn; left: there alone."""

  taken: list[tuple[str, str]]
  new: list[str]
  left: list[str]

  def __str__(self):
    lines = [f"  taken  {here}" + (f" <- {there}" if there != here else "") for here, there in self.taken]
    lines += [f"  new    {name}" for name in self.new] + [f"  left   {name}" for name in self.left]
    counts = f"{len(self.taken)} taken, {len(self.new)} new, {len(self.left)} left"
    return "\n".join([f"parameters: {counts}", *lines])


def with_known(params, known, mesh):
  """The parameters with the values that `Task.known_params` has, placed as they were. Raises UserError for a path that
  there is not, and for another shape."""
  leaves, tree = jax.tree_util.tree_flatten_with_path(params)
  names = [sharding.path_name(path) for path, _ in leaves]
  if missing := set(known) - set(names):
    raise UserError(f"no parameter is called {', '.join(sorted(missing))}; they are {', '.join(names)}")
  values = []
  for name, (_, leaf) in zip(names, leaves, strict=True):
    if name in known:
      value = np.asarray(known[name](np.asarray(on_first_device(leaf, mesh))), leaf.dtype)
      if value.shape != leaf.shape:
        raise UserError(f"the parameter {name} has the shape {leaf.shape}, and what it begins with {value.shape}")
      leaf = jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda at, value=value: value[at])
    values.append(leaf)
  return tree.unflatten(values)


def init_from(initial: Initial, config, workdir=None, meanings=None) -> tuple[Initial, Taken]:
  """(params and variables with the values of the run config.train.init_from, what was taken).

  initial: what was drawn, placed. config.train.init_map, ((pattern, replacement), ...), makes the name there
  of each name here (re.sub, one after the other); what has no counterpart there stays as it was drawn. Raises
  UserError for shapes that differ (all of them are listed), and where nothing at all is taken. workdir: of this run;
  a vocabulary there that is not that of the other run is a warning, where what is taken has rows of tokens. meanings:
  `Task.MEANINGS`; a field of it that the other run has otherwise is a warning, where what is taken has the letter.
  """
  path = files.expand(config.train.init_from)
  untrusted.check_folder(path)
  stored = exported.read(path) if exported.is_exported(path) else loading.load(path, read=untrusted.read_params)
  stored = jax.tree_util.tree_leaves_with_path(Initial(stored.params, stored.variables))
  there = {sharding.path_name(p[1:]): value for p, value in stored}  # p[0] says which of the two
  leaves, tree = jax.tree_util.tree_flatten_with_path(initial)
  taken, new, wrong, values = [], [], [], []
  for key, leaf in leaves:
    name = source = sharding.path_name(key[1:])
    for entry in config.train.init_map:
      try:
        pattern, replacement = entry
        source = re.sub(pattern, replacement, source)
      except (TypeError, ValueError, re.error) as error:
        raise UserError(
          f"config.train.init_map: {entry!r} is not (pattern, replacement): {error}"
        ) from error
    if source not in there:
      new.append(name)
      values.append(leaf)
      continue
    taken.append((name, source))
    if there[source].shape != leaf.shape:
      wrong.append(f"  {name} {leaf.shape} <- {source} {there[source].shape}")
      continue
    value = np.asarray(there[source], leaf.dtype)
    values.append(jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda at, value=value: value[at]))
  # What has a row for each token. Rows of characters are those of bytes, the same in every run.
  by_token = [name for name, _ in taken if "V" in name.rpartition("_")[2] and "/characters/" not in f"/{name}"]
  vocabularies = [epath.Path(folder) / "tokenizer.model" for folder in (path, workdir or path)]
  differ = all(file.exists() for file in vocabularies) and len({file.read_bytes() for file in vocabularies}) > 1
  if differ and by_token:
    logger.warning(
      "config.train.init_from = %s has another vocabulary than this run: the rows of %s mean other tokens. To keep it, "
      "copy its tokenizer.model into the new workdir before training", path, ", ".join(by_token),
    )  # fmt: skip
  for letter, field in (meanings or {}).items():
    having = [name for name, _ in taken if letter in name.rpartition("_")[2]]
    own, others = config_lib.flat(config)[field], config_lib.flat(read_config(path)).get(field)
    if having and others and others != own:
      logger.warning(
        "config.train.init_from = %s has config.%s = %.200s, this run %.200s: the outputs of %s mean other things. "
        "Set the same in the same order, or draw these anew: have config.train.init_map make names of theirs that are "
        "not there", path, field, others, own, ", ".join(having),
      )  # fmt: skip
  if wrong:
    raise UserError(f"config.train.init_from = {path}: these shapes do not fit:\n" + "\n".join(wrong))
  if not taken:
    raise UserError(
      f"config.train.init_from = {path}: no parameter there has a name of this model; there are "
      f"{', '.join(sorted(there))}. Name the counterparts with config.train.init_map"
    )
  left = sorted(set(there) - {source for _, source in taken})
  return tree.unflatten(values), Taken(taken, new, left)
