"""Checkpoint averaging (Vaswani et al. 2017, section 6.1: the last 5 of base, the last 20 of big)."""

import contextlib
import fcntl
import json
import os
import re
import secrets

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training import arrays, checkpoints, checksums, loading, storage
from attention_zoo.training import config as config_lib

GROUP_BYTES = 1 << 28
ATTEMPTS = 20


def average(workdir, steps=None, last=5, run=None, dev_loss=None) -> list[int]:
  """Writes the arithmetic mean of several checkpoints' parameters to WORKDIR/average; returns their steps.

  What is learnt without gradients is averaged too; whole numbers in it are those of the newest.

  steps: which ones; None takes the `last` newest, and others where training deletes one of them meanwhile. run: the
  "config" and "text" that they have to be of. dev_loss: (params, variables) -> loss per token, or None where there is
  none; it is asked of the newest checkpoint and of the mean. Sums are float32; the mean has the parameters' own type.
  In memory are the mean and one group of leaves of one checkpoint, or one checkpoint for its dev loss.
  WORKDIR/average/average.json records all this (`loading.read_record`). Raises UserError for steps that are not there,
  damaged or not finite, and for parents of different configs, texts or shapes.
  """
  if steps is None and last < 1:
    raise UserError(f"the number of checkpoints to average must be at least 1, not {last}")
  for left in reversed(range(ATTEMPTS)):
    try:
      chosen = sorted(set(_newest(workdir, last) if steps is None else steps))
      items, record = _mean(workdir, chosen, run or {})
      if dev_loss:
        newest = loading.load(workdir, chosen[-1])
        if (loss := dev_loss(newest.params, newest.variables)) is not None:
          record["dev_loss"] = {"newest": float(loss), "average": float(dev_loss(items["params"], items["variables"]))}
      break
    except storage.Gone:
      if steps is not None or not left:
        raise
  _write(epath.Path(workdir) / "average", items, {"average.json": json.dumps(record, indent=2) + "\n"})
  return chosen


def _newest(workdir, last):
  found = checkpoints.steps(workdir)
  if len(found) < last:
    raise UserError(f"{workdir} has {len(found)} checkpoints {found}, fewer than the {last} to average")
  return found[-last:]


def _mean(workdir, steps, run):
  """(the mean, what there is to say of its parents)."""
  if not steps:
    raise UserError("name at least one step to average")
  found = checkpoints.steps(workdir)
  for step in steps:
    if step not in found:
      raise storage.Gone(f"{workdir} has no checkpoint of step {step}; it has {found}")
  directories = [epath.Path(workdir) / "checkpoints" / str(step) for step in steps]
  for directory in directories:
    with storage.reading(directory):
      if problem := checksums.damage(directory, arrays.ITEMS):
        raise UserError(f"the checkpoint {directory} is damaged: {problem}")
  record = {"steps": steps} | _same_run(workdir, steps, directories, run)
  items = {"params": _mean_of("params", directories, steps), "variables": {}}
  with storage.reading(directories[0]):
    if (directories[0] / "variables").exists():
      items["variables"] = _mean_of("variables", directories, steps)
  return items, record


def _mean_of(item, directories, steps):
  with storage.reading(directories[0]):
    abstract = arrays.abstract_params(directories[0] / item)
  for step, directory in zip(steps, directories, strict=True):
    with storage.reading(directory):
      _same_shapes(abstract, arrays.abstract_params(directory / item), steps[0], step)
  leaves, tree = jax.tree.flatten(abstract)
  names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(abstract)]
  means = []
  for group in _groups(leaves):
    part = _drop(tree.unflatten(leaf if index in group else ... for index, leaf in enumerate(leaves)))
    total = None
    for directory in directories:
      with storage.reading(directory):
        read = jax.tree.leaves(arrays.read_params(directory / item, part))
      values = [x.astype(np.float32) for x in read]
      for index, x in zip(group, values, strict=True):
        if not np.isfinite(x).all():
          raise UserError(f"the checkpoint {directory} cannot be averaged: {names[index]} is not finite")
      total = values if total is None else [a + b for a, b in zip(total, values, strict=True)]
    for x, newest in zip(total, read, strict=True):
      whole = not jax.numpy.issubdtype(newest.dtype, jax.numpy.floating)
      means.append(newest if whole else (x / np.float32(len(steps))).astype(newest.dtype))
  return tree.unflatten(means)


def _same_run(workdir, steps, directories, run):
  """The config and text stored with the checkpoints; UserError with the difference where there are several."""
  found = [checkpoints.read_metadata(workdir, step) for step in steps]
  for step, directory, metadata in zip(steps, directories, found, strict=True):
    checkpoints.check_identity(directory, metadata, run)
    if difference := config_lib.diff(
      found[0].get("config", {}), metadata.get("config", {}), ignore=config_lib.MAY_CHANGE, common=True
    ):
      raise UserError(
        f"the checkpoints of steps {steps[0]} and {step} are of different configs and cannot be averaged "
        f"(step {steps[0]} -> step {step}):\n{difference}"
      )
    if found[0].get("text") != metadata.get("text"):
      raise UserError(
        f"the checkpoints of steps {steps[0]} and {step} were trained on different texts and cannot be averaged"
      )
  return {"config": {}} | {name: value for name, value in found[-1].items() if name in ("config", "text")}


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


@contextlib.contextmanager
def _alone(directory):
  """One at a time, where the file system can lock directories; elsewhere the later one fails in one line."""
  if not files.is_local(directory):
    yield
    return
  handle = os.open(directory, os.O_RDONLY)
  try:
    with contextlib.suppress(OSError):
      fcntl.flock(handle, fcntl.LOCK_EX)
    yield
  finally:
    os.close(handle)


def _write(directory, items, texts: dict[str, str]) -> None:
  """Replaces `directory` with one of `items`, name -> tree, and text files, with checksums;
  on a local disk whole or not at all. A link stays one: the average, or empty folder, that it leads to is replaced."""
  link, directory = directory, storage.absolute(storage.target(directory))
  token = secrets.token_hex(6)
  temporary, old = (directory.parent / f"{directory.name}.{token}{ending}" for ending in (".tmp", ".old"))
  try:
    with _alone(directory.parent):
      try:
        # A killed process leaves some, and so may a failed save: Orbax's threads go on writing while it is tidied away.
        remains = re.compile(re.escape(directory.name) + r"\.[0-9a-f]{12}\.(tmp|old)")
        for path in [path for path in directory.parent.iterdir() if remains.fullmatch(path.name)]:
          if path.name.endswith(".old") and not directory.exists():  # killed in the middle of the renaming below
            path.rename(directory)
          else:
            path.rmtree()
        kept = os.path.islink(link) and directory.exists() and not (directory / "average.json").exists()
        if kept and any(directory.iterdir()):  # a link may lead to anything, and what is replaced is lost
          raise ValueError(f"it is no average, and {link} is a link to it: delete the link, or let it lead elsewhere")
        if problem := storage.no_room(directory.parent, sum(leaf.nbytes for leaf in jax.tree.leaves(items))):
          raise ValueError(problem)
        temporary.mkdir(parents=True)
        with ocp.PyTreeCheckpointer() as checkpointer:
          for name, tree in items.items():
            if tree:
              checkpointer.save(temporary / name, args=ocp.args.PyTreeSave(tree))
        for name, text in texts.items():
          (temporary / name).write_text(text)
        checksums.write(temporary)
        if directory.exists():
          directory.rename(old)
        temporary.rename(directory)
        if old.exists():
          old.rmtree()
      finally:
        with contextlib.suppress(OSError):
          temporary.rmtree(missing_ok=True)
  except (OSError, ValueError, RuntimeError) as error:
    raise UserError(f"cannot write {directory}: {storage.reason(error)}") from error
