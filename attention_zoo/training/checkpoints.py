"""Checkpoints by Orbax: asynchronous, atomic, keep-last-n, opened on any number of devices.

WORKDIR/checkpoints/STEP/ holds the items `params` and `rest` (all else of the training state), WORKDIR/average/
holds `params`. On a local disk each has a `checksums.json` with size and CRC-32 of every file, written before
the directory gets its final name: what is truncated, changed or incomplete is found out before it is used.
"""

import contextlib
import json
import logging
import os
import pathlib
import re
import shutil
import zlib

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from etils import epath
from jax.experimental import multihost_utils

from attention_zoo.errors import UserError

logger = logging.getLogger(__name__)
# Orbax reports file operations at INFO, expected conditions at WARNING, and at ERROR what it raises anyway.
absl_logging.get_absl_logger().addFilter(lambda record: "/orbax/" not in record.pathname)

CHECKSUMS = "checksums.json"


class Checkpoints:
  """The checkpoints of one run. Every process must make the same calls in the same order.

  workdir: local or gs:// path. keep: how many of the newest stay. metadata: a JSON value stored with each.
  """

  def __init__(self, workdir, keep=5, metadata=None):
    self.directory = epath.Path(workdir) / "checkpoints"
    self._aside = epath.Path(workdir) / "damaged"
    self._metadata = metadata
    self._saving, self._keep = None, keep
    self.best = None  # the step of a checkpoint that stays beside the newest
    options = ocp.CheckpointManagerOptions(
      preservation_policy=self,
      cleanup_tmp_directories=True,
      async_options=ocp.AsyncOptions(timeout_secs=1800, post_finalization_callback=self._seal),
    )
    try:
      self._manager = ocp.CheckpointManager(
        _absolute(self.directory), options=options, item_names=("params", "rest")
      )
    except OSError as error:
      raise UserError(f"cannot use {self.directory}: {error}") from error

  def save(self, step: int, state) -> None:
    """Copies the state (a NamedTuple with a field params) off the devices and writes it in the background.

    Raises UserError when there is no room for this save or the one before could not be written; older
    checkpoints stay as they are.
    """
    rest = {name: getattr(state, name) for name in state._fields if name != "params"}
    items = ocp.args.Composite(params=ocp.args.PyTreeSave(state.params), rest=ocp.args.PyTreeSave(rest))
    self.wait()
    self._saving = step
    self._check_room(state)
    with self._writing():
      self._manager.save(step, args=items, force=True, custom_metadata=self._metadata)

  def should_preserve(self, checkpoints, *, context):
    """Which checkpoints stay, of those given in order: Orbax's PreservationPolicy."""
    newest = len(checkpoints) - self._keep
    return [index >= newest or found.step == self.best for index, found in enumerate(checkpoints)]

  def _check_room(self, state):
    shards = (shard for x in jax.tree.leaves(state) for shard in x.addressable_shards if not shard.replica_id)
    if problem := _no_room(self.directory, sum(shard.data.nbytes for shard in shards)):
      self._cannot_write(problem)

  def _cannot_write(self, reason, cause=None):
    raise UserError(
      f"the checkpoint of step {self._saving} could not be written to {self.directory}: {reason}. "
      f"Checkpoints on disk: {self.steps() or 'none'}. Make room or choose another workdir, and run the same "
      "command again: it resumes from the newest"
    ) from cause

  @contextlib.contextmanager
  def _writing(self):
    """Turns the many forms of 'cannot write' into one UserError that says what is still there.

    Not so what is no fault of the disk, and may be gone at the next try: a process that died, a bucket out of reach.
    """
    try:
      yield
    except UserError:
      raise
    except (OSError, ValueError, RuntimeError) as error:
      alone = jax.process_count() == 1 and _is_local(self.directory)
      if not alone and _error_number(error) is None:
        raise
      with contextlib.suppress(OSError):  # what became read-only cannot be tidied either
        for remains in self.directory.glob(f"{self._saving}.orbax-checkpoint-tmp") if jax.process_index() == 0 else ():
          remains.rmtree(missing_ok=True)
      self._cannot_write(_reason(error), error)

  def wait(self) -> None:
    """Returns when the last save is on disk under its final name."""
    with self._writing():
      self._manager.wait_until_finished()

  def close(self) -> None:
    self.wait()
    self._manager.close()

  def steps(self) -> list[int]:
    """The steps of all complete checkpoints, ascending."""
    return steps(self.directory.parent)

  def restore(self, abstract_state, step=None):
    """(state, step) of the newest checkpoint that is whole, or of the step asked for; None without one.

    abstract_state: the state's tree of ShapeDtypeStruct, with the shardings it shall have: these alone decide
    where it goes. A damaged checkpoint is reported, moved to WORKDIR/damaged/ and the one before is taken;
    UserError when the step asked for, or every checkpoint, is damaged.
    """
    found = self.steps() if step is None else [step]
    for candidate in reversed(found):
      problem = self._damage(candidate)
      if not problem:
        return self._restore(abstract_state, candidate), candidate
      if step is not None:
        raise UserError(f"the checkpoint {self.directory / str(step)} is damaged: {problem}")
      logger.warning("the checkpoint of step %d is damaged (%s): trying the one before", candidate, problem)
      self._set_aside(candidate)
    if found:
      raise UserError(f"every checkpoint in {self.directory} is damaged; they are now in {self._aside}")
    return None

  def _restore(self, abstract_state, step):
    rest = {name: getattr(abstract_state, name) for name in abstract_state._fields if name != "params"}

    def restore_args(tree):
      as_asked = ocp.checkpoint_utils.construct_restore_args(tree)
      return ocp.args.PyTreeRestore(tree, restore_args=as_asked)

    items = ocp.args.Composite(params=restore_args(abstract_state.params), rest=restore_args(rest))
    try:
      items = self._manager.restore(step, args=items)
    except (ValueError, KeyError) as error:
      raise UserError(
        f"the checkpoint {self.directory / str(step)} is not damaged, but it is not of this model and "
        f"optimizer: {str(error).strip()[:1000]}"
      ) from error
    return type(abstract_state)(params=items["params"], **items["rest"])

  def _damage(self, step) -> str:
    """Process 0 reads the files; the others take its word, so that all choose the same step."""
    problem = damage(self.directory / str(step)) if jax.process_index() == 0 else "process 0 says so"
    if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.int32(not problem)):
      return ""
    return problem

  def _set_aside(self, step):
    """Nothing is deleted, but the step can be saved anew."""
    if jax.process_index() == 0:
      target = self._aside / str(step)
      if target.exists():
        target.rmtree()
      self._aside.mkdir(parents=True, exist_ok=True)
      (self.directory / str(step)).rename(target)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(f"set aside {step}")
    self._manager.reload()

  def _seal(self):
    """Called on process 0 when all files are written and before the directory gets its final name."""
    if _is_local(self.directory):
      (directory,) = self.directory.glob(f"{self._saving}.orbax-checkpoint-tmp")
      _write_checksums(directory)


def _no_room(directory, needed) -> str:
  """Writers in many threads fail in many ways on a full disk: better not to begin. '' where there is room."""
  free = shutil.disk_usage(directory).free if _is_local(directory) else needed
  return f"it takes {needed:,} bytes and {free:,} are free" if free < needed else ""


def _error_number(error) -> int | None:
  """The system's error number, which TensorStore puts into its text."""
  number = error.errno if isinstance(error, OSError) else re.search(r"os_error_code='(\d+)'", str(error))
  return int(number[1]) if isinstance(number, re.Match) else number


def _reason(error) -> str:
  """What went wrong while writing, in a few words."""
  number = _error_number(error)
  return os.strerror(number) if number else str(error).strip().splitlines()[0][:300]


def _absolute(path) -> epath.Path:
  return epath.Path(path) if "://" in str(path) else epath.Path(pathlib.Path(path).absolute())


def _is_local(path) -> bool:
  return "://" not in str(path)


def _files(directory):
  """All files but those that are still to change when the checksums are taken."""
  files = (path for path in pathlib.Path(directory).rglob("*") if path.is_file())
  return sorted(path for path in files if path.name not in (CHECKSUMS, "_CHECKPOINT_METADATA"))


def _checksum(path) -> list[int]:
  """[bytes, CRC-32]."""
  size = total = 0
  with open(path, "rb") as file:
    while block := file.read(1 << 20):
      size += len(block)
      total = zlib.crc32(block, total)
  return [size, total]


def _write_checksums(directory) -> None:
  sums = {str(path.relative_to(directory)): _checksum(path) for path in _files(directory)}
  (pathlib.Path(directory) / CHECKSUMS).write_text(json.dumps(sums))


def damage(directory) -> str:
  """What is wrong with a checkpoint's files, or ''; always '' on remote storage, which checks itself."""
  if not _is_local(directory):
    return ""
  directory = pathlib.Path(directory)
  try:
    sums = json.loads((directory / CHECKSUMS).read_text())
    for name, expected in sums.items():
      if _checksum(directory / name) != expected:
        return f"{name} is not as it was written"
  except (OSError, ValueError) as error:
    return str(error)
  return ""


def steps(workdir) -> list[int]:
  """The steps of all complete checkpoints of a run, ascending."""
  directory = epath.Path(workdir) / "checkpoints"
  return sorted(ocp.utils.checkpoint_steps(directory)) if directory.exists() else []


def read_metadata(workdir, step: int):
  """The JSON value that was stored with a checkpoint. Raises UserError where it cannot be read."""
  path = epath.Path(workdir) / "checkpoints" / str(step) / "_CHECKPOINT_METADATA"
  try:
    return json.loads(path.read_text())["custom_metadata"]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"the checkpoint {path.parent} is damaged: {path.name} cannot be read ({error})") from error


def params_directory(workdir, checkpoint="average") -> epath.Path:
  """The directory of the parameters that 'average', 'latest' or a step means; UserError without one."""
  workdir = epath.Path(workdir)
  found = steps(workdir)
  if checkpoint == "average":
    directory = workdir / "average"
    if not (directory / "params").exists():
      raise UserError(
        f"{workdir} has no averaged checkpoint; it has the steps {found}: average first, or name one"
      )
  elif checkpoint == "latest":
    if not found:
      raise UserError(f"{workdir} has no checkpoints")
    for step in reversed(found):
      directory = workdir / "checkpoints" / str(step)
      if not (problem := damage(directory)):
        break
      logger.warning("the checkpoint of step %d is damaged (%s): trying the one before", step, problem)
    else:
      raise UserError(f"every checkpoint in {workdir} is damaged: {problem}")
    return directory / "params"
  elif str(checkpoint).isdigit():
    if int(checkpoint) not in found:
      raise UserError(f"{workdir} has no checkpoint of step {checkpoint}; it has {found}")
    directory = workdir / "checkpoints" / str(checkpoint)
  else:
    raise UserError(f"checkpoint must be 'average', 'latest' or a step, not {checkpoint!r}")
  if problem := damage(directory):
    raise UserError(f"the checkpoint {directory} is damaged: {problem}")
  return directory / "params"


def load_params(workdir, checkpoint="average") -> dict:
  """The parameters, as nested dicts of numpy arrays: no mesh, no optimizer state, no devices of the past.

  workdir: local or gs:// path. checkpoint: 'average', 'latest' or a step; UserError if missing or damaged.
  """
  return read_params(params_directory(workdir, checkpoint))


def abstract_params(directory) -> dict:
  """The nested dict of a params directory with an object for each array that has `.shape` and `.dtype`."""
  with ocp.PyTreeCheckpointer() as checkpointer:
    return checkpointer.metadata(_absolute(directory)).item_metadata.tree


def read_params(directory, part=None) -> dict:
  """Nested dict of numpy arrays from a params directory. part: what to read of `abstract_params`, or all."""
  part = abstract_params(directory) if part is None else part
  as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), part)
  with ocp.PyTreeCheckpointer() as checkpointer:
    return checkpointer.restore(
      _absolute(directory), args=ocp.args.PyTreeRestore(part, restore_args=as_numpy, partial_restore=True)
    )


def write_params(directory, params, files: dict[str, str]) -> None:
  """Replaces `directory` with one of `params` and text files, with checksums; on a local disk whole or not at all."""
  directory = _absolute(directory)
  temporary, old = (directory.parent / (directory.name + ending) for ending in (".tmp", ".old"))
  try:
    # A killed process leaves one, and so may a failed save: Orbax's threads go on writing while it is tidied away.
    if temporary.exists():
      temporary.rmtree()
    if old.exists():  # killed in the middle of the renaming below
      old.rmtree() if directory.exists() else old.rename(directory)
    if problem := _no_room(directory.parent, sum(leaf.nbytes for leaf in jax.tree.leaves(params))):
      raise ValueError(problem)
    temporary.mkdir(parents=True)
    with ocp.PyTreeCheckpointer() as checkpointer:
      checkpointer.save(temporary / "params", args=ocp.args.PyTreeSave(params))
    for name, text in files.items():
      (temporary / name).write_text(text)
    if _is_local(directory):
      _write_checksums(temporary)
    if directory.exists():
      directory.rename(old)
    temporary.rename(directory)
    if old.exists():
      old.rmtree()
  except (OSError, ValueError, RuntimeError) as error:
    with contextlib.suppress(OSError):
      temporary.rmtree(missing_ok=True)
    raise UserError(f"cannot write {directory}: {_reason(error)}") from error
