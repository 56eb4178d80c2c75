"""Checkpoint averaging (Vaswani et al. 2017, section 6.1: the last 5 of base, the last 20 of big)."""

import json

import jax
import numpy as np
from etils import epath

from attention_zoo.errors import UserError
from attention_zoo.training import checkpoints
from attention_zoo.training import config as config_lib

GROUP_BYTES = 1 << 28


def average(workdir, steps=None, last=5) -> list[int]:
  """Writes the arithmetic mean of several checkpoints' parameters to WORKDIR/average; returns their steps.

  steps: which ones; None takes the `last` newest. Sums are float32; the mean has the parameters' own type. In
  memory are the mean and one group of leaves of one checkpoint, never two whole checkpoints.
  WORKDIR/average/average.json records the parents. Raises UserError for steps that are not there or damaged,
  and for parents of different configs.
  """
  found = checkpoints.steps(workdir)
  if steps is None:
    if last < 1:
      raise UserError(f"the number of checkpoints to average must be at least 1, not {last}")
    steps = found[-last:]
    if len(steps) < last:
      raise UserError(f"{workdir} has {len(steps)} checkpoints {found}, fewer than the {last} to average")
  steps = sorted(set(steps))
  if not steps:
    raise UserError("name at least one step to average")
  directories = [checkpoints.params_directory(workdir, step) for step in steps]
  config = _same_config(workdir, steps)

  abstract = checkpoints.abstract_params(directories[0])
  for step, directory in zip(steps, directories, strict=True):
    _same_shapes(abstract, checkpoints.abstract_params(directory), steps[0], step)
  leaves, tree = jax.tree.flatten(abstract)
  means = []
  for group in _groups(leaves):
    part = tree.unflatten(leaf if index in group else ... for index, leaf in enumerate(leaves))
    total = None
    for directory in directories:
      values = [
        x.astype(np.float32) for x in jax.tree.leaves(checkpoints.read_params(directory, _drop(part)))
      ]
      total = values if total is None else [a + b for a, b in zip(total, values, strict=True)]
    means += [
      (x / np.float32(len(steps))).astype(leaves[index].dtype) for index, x in zip(group, total, strict=True)
    ]
  record = {"steps": steps, "config": config}
  checkpoints.write_params(
    epath.Path(workdir) / "average",
    tree.unflatten(means),
    {"average.json": json.dumps(record, indent=2) + "\n"},
  )
  return steps


def read_parents(workdir) -> list[int]:
  """The steps that WORKDIR/average was made of."""
  path = epath.Path(workdir) / "average" / "average.json"
  if not path.exists():
    raise UserError(f"{workdir} has no averaged checkpoint")
  return json.loads(path.read_text())["steps"]


def _same_config(workdir, steps):
  """The config stored with the checkpoints; UserError with the difference where there are several."""
  configs = [(checkpoints.read_metadata(workdir, step) or {}).get("config", {}) for step in steps]
  for step, config in zip(steps, configs, strict=True):
    if difference := config_lib.diff(configs[0], config, ignore=config_lib.MAY_CHANGE):
      raise UserError(
        f"the checkpoints of steps {steps[0]} and {step} are of different configs and cannot be averaged "
        f"(step {steps[0]} -> step {step}):\n{difference}"
      )
  return configs[-1]


def _same_shapes(first, other, first_step, step):
  shapes = [
    {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
    for leaves in map(jax.tree_util.tree_leaves_with_path, (first, other))
  ]
  for name in sorted(shapes[0] | shapes[1]):
    if shapes[0].get(name) != shapes[1].get(name):
      raise UserError(
        f"the parameter {name} is {shapes[0].get(name)} at step {first_step} "
        f"and {shapes[1].get(name)} at step {step}"
      )


def _groups(leaves):
  """Runs of leaf indices with at most GROUP_BYTES together, or a single larger leaf."""
  group, size = [], 0
  for index, leaf in enumerate(leaves):
    bytes_ = 4 * int(np.prod(leaf.shape))
    if group and size + bytes_ > GROUP_BYTES:
      yield group
      group, size = [], 0
    group.append(index)
    size += bytes_
  if group:
    yield group


def _drop(tree):
  """The nested dict without its `...` leaves and the branches that only held such."""
  kept = {name: _drop(child) if isinstance(child, dict) else child for name, child in tree.items()}
  return {name: child for name, child in kept.items() if child is not ... and child != {}}
