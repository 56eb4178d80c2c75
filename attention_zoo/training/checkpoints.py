"""Checkpoints by Orbax: asynchronous, atomic, keep-last-n, opened on any number of devices.

WORKDIR/checkpoints/STEP/ holds the items `params`, `variables` where the model has such, and `rest` (all else of the
training state); WORKDIR/average/ holds the first two. Each has checksums (`checksums.py`), and says of which run and
step it is: a checkpoint is used only where that is what was asked for. What is proven to be damaged goes to
WORKDIR/damaged/; nothing else is ever moved.
"""

import contextlib
import json
import logging
import os
import re

import jax
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from etils import epath
from jax.experimental import multihost_utils

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training import checksums, distributed, storage
from attention_zoo.training import config as config_lib
from attention_zoo.training.arrays import ITEMS

_STEP = "0|[1-9][0-9]{0,17}"

logger = logging.getLogger(__name__)
# Orbax reports file operations at INFO, expected conditions at WARNING, and at ERROR what it raises anyway.
absl_logging.get_absl_logger().addFilter(lambda record: "/orbax/" not in record.pathname)


class Checkpoints:
  """The checkpoints of one run. Every process must make the same calls in the same order.

  workdir: local or gs:// path. keep: how many of the newest stay. metadata: what the run is, a JSON object with
  "config" and "text" (the digest of the training text): stored with each checkpoint, and compared when it is restored.
  """

  def __init__(self, workdir, keep=5, metadata=None):
    self.directory = epath.Path(workdir) / "checkpoints"
    self._aside = epath.Path(workdir) / "damaged"
    self._metadata = metadata or {}
    self._saving, self._keep = None, keep
    self.best = None  # the step of a checkpoint that stays beside the newest
    self._manager = self._open()

  def _open(self):
    options = ocp.CheckpointManagerOptions(
      preservation_policy=self,
      cleanup_tmp_directories=True,
      lightweight_initialize=True,  # else one checkpoint whose metadata is damaged keeps us from all others
      async_options=ocp.AsyncOptions(timeout_secs=1800, post_finalization_callback=self._seal),
    )
    try:
      return ocp.CheckpointManager(
        storage.absolute(self.directory), options=options, item_names=(*ITEMS, "rest")
      )
    except (OSError, ValueError) as error:  # ValueError: of folders whose names look like steps
      raise UserError(f"cannot use {self.directory}: {error}") from error
    except Exception as error:
      raise storage.forbidden(self.directory, error) or error from None

  def save(self, step: int, state) -> None:
    """Copies the state (a NamedTuple with a field params) off the devices and writes it in the background.

    What a trained model consists of, params and the variables beside them, are items of their own.

    Raises UserError when there is no room for this save or the one before could not be written; older
    checkpoints stay as they are.
    """
    items = {name: ocp.args.PyTreeSave(tree) for name, tree in _items(state).items()}
    self.wait()
    self._saving = step
    self._check_room(state)
    with self._writing():
      self._manager.save(
        step, args=ocp.args.Composite(**items), force=True, custom_metadata=self._metadata | {"step": step}
      )

  def should_preserve(self, checkpoints, *, context):
    """Which checkpoints stay, of those given in order: Orbax's PreservationPolicy."""
    newest = len(checkpoints) - self._keep
    return [index >= newest or found.step == self.best for index, found in enumerate(checkpoints)]

  def _check_room(self, state):
    shards = (shard for x in jax.tree.leaves(state) for shard in x.addressable_shards if not shard.replica_id)
    if problem := storage.no_room(self.directory, sum(shard.data.nbytes for shard in shards)):
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
    except Exception as error:
      if not isinstance(error, (OSError, ValueError, RuntimeError)):
        raise storage.forbidden(self.directory, error) or error from None
      alone = jax.process_count() == 1 and files.is_local(self.directory)
      if not alone and storage.error_number(error) is None:
        raise
      with contextlib.suppress(OSError):  # what became read-only cannot be tidied either
        if jax.process_index() == 0:
          self._temporary().rmtree(missing_ok=True)
      self._cannot_write(storage.reason(error), error)

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
    """(state, step) of the newest checkpoint that is whole, or of the step asked for; None in a run that has none yet.

    abstract_state: the state's tree of ShapeDtypeStruct, with the shardings it shall have: these alone decide
    where it goes. A damaged checkpoint is reported, moved to WORKDIR/damaged/ and the one before is taken.
    UserError when the step asked for, or every checkpoint, is damaged; when one cannot be read; and when it is of
    another run or another step than its folder says.
    """
    found = json.loads(self._agreed(lambda: json.dumps(self.steps()))) if step is None else [step]
    for candidate in reversed(found):
      problem = self._agreed(lambda candidate=candidate: self._problem(candidate))
      if not problem:
        return self._restore(abstract_state, candidate), candidate
      if step is not None:
        raise UserError(f"the checkpoint {self.directory / str(step)} is damaged: {problem}")
      logger.warning("the checkpoint of step %d is damaged (%s): trying the one before", candidate, problem)
      self._set_aside(candidate)
    if found or self._agreed(lambda: "yes" if set_aside(self.directory.parent) else ""):
      raise UserError(
        f"{self.directory} has no checkpoint that is whole; the damaged ones are in {self._aside}. To begin again "
        "from step 0, delete that folder or give it another name, and run the same command again"
      )
    return None

  def _problem(self, step) -> str:
    """How the checkpoint is damaged, or ''. UserError where it is whole, but not what it should be."""
    directory = self.directory / str(step)
    if not (problem := checksums.damage(directory)):
      check_identity(directory, read_metadata(self.directory.parent, step), self._metadata)
    return problem

  def _agreed(self, look) -> str:
    """What look() returns on process 0: the others take its word, so that all do the same, or all end."""
    found, error = "", None
    if jax.process_index() == 0:
      try:
        found = look()
      except UserError as refusal:
        error = refusal
    found, refusal = json.loads(distributed.from_first(json.dumps([found, error and str(error)])))
    if refusal is not None:
      raise error or UserError(refusal)
    return found

  def _restore(self, abstract_state, step):
    def restore_args(tree):
      as_asked = ocp.checkpoint_utils.construct_restore_args(tree)
      return ocp.args.PyTreeRestore(tree, restore_args=as_asked)

    asked = {name: restore_args(tree) for name, tree in _items(abstract_state).items()}
    try:
      found = self._manager.restore(step, args=ocp.args.Composite(**asked))
    except (OSError, ValueError, KeyError) as error:
      if storage.error_number(error):
        raise UserError(f"cannot read {self.directory / str(step)}: {storage.reason(error)}") from error
      if isinstance(error, OSError):
        raise
      raise UserError(
        f"the checkpoint {self.directory / str(step)} is not damaged, but it is not of this model and "
        f"optimizer: {str(error).strip()[:1000]}"
      ) from error
    return abstract_state._replace(**{name: found[name] for name in asked if name != "rest"}, **found["rest"])

  def _set_aside(self, step):
    """Nothing is deleted, but the step can be saved anew."""
    if jax.process_index() == 0:
      self._aside.mkdir(parents=True, exist_ok=True)
      if not files.is_local(self._aside):  # a folder of a bucket is there when something is in it
        files.write_text(self._aside / "README", "Checkpoints that were not as they had been written.\n")
      taken = set(set_aside(self.directory.parent))
      names = (f"{step}.{count}" if count else str(step) for count in range(len(taken) + 1))
      target = self._aside / next(name for name in names if name not in taken)
      (self.directory / str(step)).rename(target)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(f"set aside {step}")
    self._manager.close()
    self._manager = self._open()  # it remembers which there are

  def _seal(self):
    """Called on process 0 when all files are written and before the directory counts as a checkpoint."""
    checksums.write(self._temporary())

  def _temporary(self):
    """Where Orbax writes: beside the final name, or in a bucket, where nothing can be renamed, there."""
    name = str(self._saving)
    return self.directory / (f"{name}.orbax-checkpoint-tmp" if files.is_local(self.directory) else name)


def _items(state) -> dict:
  """The parts of a state that are written apart, by name. Where the model has no variables there is no such part."""
  own = {name: getattr(state, name) for name in state._fields if name in ITEMS}
  rest = {name: getattr(state, name) for name in state._fields if name not in ITEMS}
  return {name: tree for name, tree in own.items() if tree} | {"rest": rest}


def steps(workdir) -> list[int]:
  """The steps of all complete checkpoints of a run, ascending. Raises UserError where that cannot be read."""
  directory = epath.Path(workdir) / "checkpoints"
  try:
    if not files.is_local(directory):  # whose listings epath would keep
      found = (re.fullmatch(f"({_STEP})/commit_success.txt", name) for name in checksums.list_files(directory))
      return sorted(int(match[1]) for match in found if match)
    paths = [path for path in directory.iterdir() if re.fullmatch(_STEP, path.name)]
    return sorted(int(path.name) for path in paths if path.stat().is_directory)
  except FileNotFoundError:  # also where one vanished on the way
    return steps(workdir) if files.is_local(directory) and os.path.lexists(directory) else []
  except OSError as error:
    raise checksums.unreadable(directory, error) from error


def set_aside(workdir) -> list[str]:
  """The names of the damaged checkpoints in WORKDIR/damaged/."""
  directory = epath.Path(workdir) / "damaged"
  try:
    return sorted(path.name for path in directory.iterdir() if path.name[:1].isdecimal())
  except FileNotFoundError:
    return []
  except OSError as error:
    raise checksums.unreadable(directory, error) from error


def read_metadata(workdir, step: int) -> dict:
  """What a checkpoint says of itself: "config", "text" and "step", as far as its version wrote them.

  Raises UserError where it cannot be read.
  """
  path = epath.Path(workdir) / "checkpoints" / str(step) / checksums.METADATA
  with storage.reading(path.parent):
    value = files.read_json(path, checksums.MOST_JSON)
  value = value.get("custom_metadata", {}) if isinstance(value, dict) else value
  kinds = {"config": dict, "text": str, "step": int}
  if value is None:
    return {}
  if not isinstance(value, dict) or any(type(value.get(name, kind())) is not kind for name, kind in kinds.items()):
    raise UserError(f"the checkpoint {path.parent} is damaged: {path.name} does not hold what training writes there")
  return value


def check_identity(directory, found: dict, run: dict) -> None:
  """Raises UserError where a checkpoint or average is not of this step's folder or of this run.

  found: its own metadata. run: the "config" and "text" that it should have; what either lacks is not compared, nor are
  fields of the config that one of them lacks: they came later, with a default that is what was done before.
  """
  if "step" in found and str(found["step"]) != directory.name:
    raise UserError(
      f"{directory} holds the checkpoint of step {found['step']}: it was renamed, or copied over another. Give it back "
      "its name, or move it away"
    )
  if "config" in found and "config" in run:
    if difference := config_lib.diff(found["config"], run["config"], ignore=config_lib.MAY_CHANGE, common=True):
      lines = "; ".join(line.strip() for line in difference.splitlines())
      raise UserError(
        f"{directory} is of a run with another config (there -> here): {lines}. Bring back the config that it was "
        "trained with, or move it away"
      )
  if "text" in found and "text" in run and found["text"] != run["text"]:
    raise UserError(f"{directory} was trained on another text than this run: bring that back, or move it away")
