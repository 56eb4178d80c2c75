"""Which parameters of a run to take, and reading them while others train and average there."""

import logging
import re
from typing import NamedTuple

from etils import epath

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training import checksums, storage
from attention_zoo.training.arrays import ITEMS, read_items
from attention_zoo.training.checkpoints import check_identity, read_metadata, steps

logger = logging.getLogger(__name__)
ATTEMPTS = 20


class Loaded(NamedTuple):
  """checkpoint: "average", "latest" or a step. steps: those whose mean it is, ascending, or the one. params and
  variables: nested dicts of numpy arrays; the second {} where the model has none."""

  checkpoint: str
  steps: list[int]
  params: dict
  variables: dict = {}


class _Damaged(UserError):
  pass


def load(workdir, checkpoint=None, run=None, read=None) -> Loaded:
  """The parameters that "average", "latest" or a step means; None: the average where it is the better choice.

  It is that where no checkpoint is newer than the newest in it, and where its dev loss is not the higher one; else the
  log says what was taken and why. run: the "config" and "text" they have to be of. read: reads a directory of arrays,
  .../params or .../variables; by default `arrays.read_params`.
  No mesh, no optimizer state, no devices of the past. Raises UserError for what is missing, damaged, unreadable or of
  another run, and for a step that is deleted meanwhile (`storage.Gone`); in its place the latest or the new average is
  taken where that was asked for.
  """
  for left in reversed(range(ATTEMPTS)):
    try:
      return _load(epath.Path(workdir), checkpoint, run or {}, read)
    except storage.Gone:
      if not left or checkpoint not in (None, "average", "latest"):
        raise


def load_params(workdir, checkpoint="average") -> dict:
  """`load` for those who know what they want."""
  return load(workdir, checkpoint).params


def _load(workdir, checkpoint, run, read):
  average = average_directory(workdir)
  found = steps(workdir)
  if checkpoint is None:
    reason = _against(average, found) if average else ""
    checkpoint = "average" if average and not reason else "latest"
    if reason:
      logger.warning("%s: taking the newest checkpoint, not the average, because %s", workdir, reason)
  if checkpoint == "average":
    if not average:
      raise UserError(f"{workdir} has no averaged checkpoint; it has the steps {found}: average first, or name one")
    with storage.reading(average):
      _refuse_damage(average)
      record = read_record(average)
      check_identity(average, record, run)
      return Loaded("average", record["steps"], **read_items(average, read))
  if checkpoint != "latest" and not re.fullmatch("[0-9]{1,18}", str(checkpoint)):
    raise UserError(f"checkpoint must be 'average', 'latest' or a step, not {checkpoint!r}")
  if checkpoint != "latest" and int(checkpoint) not in found:
    raise storage.Gone(f"{workdir} has no checkpoint of step {checkpoint}; it has {found}")
  if not found:
    raise UserError(f"{workdir} has no checkpoints")
  for step in reversed(found) if checkpoint == "latest" else [int(checkpoint)]:
    directory = workdir / "checkpoints" / str(step)
    try:
      with storage.reading(directory):
        _refuse_damage(directory)
        check_identity(directory, read_metadata(workdir, step), run)
        return Loaded(str(checkpoint), [step], **read_items(directory, read))
    except _Damaged as error:
      if checkpoint != "latest":
        raise
      logger.warning("%s: trying the one before", error)
  raise UserError(f"every checkpoint in {workdir} is damaged")


def _refuse_damage(directory):
  if problem := checksums.damage(directory, ITEMS):
    raise _Damaged(f"the checkpoint {directory} is damaged: {problem}")


def _against(average, found) -> str:
  """Why not to take the average, or ''."""
  try:
    with storage.reading(average):
      record = read_record(average)
      newest, loss = record["steps"][-1], record.get("dev_loss")
      if found and found[-1] > newest:
        return f"it is of the steps {record['steps']} and step {found[-1]} is newer: average again"
      if loss and not loss["average"] <= loss["newest"]:
        return f"its dev loss is {loss['average']:.4f}, that of step {newest} is {loss['newest']:.4f}"
      _refuse_damage(average)
  except storage.Gone:
    raise
  except UserError as error:
    return str(error)
  return ""


def average_directory(workdir):
  """Where the average of a run lies, or None.

  While it is replaced, and after a kill in between, it is average.TOKEN.old, beside what a link leads to.
  """
  average = storage.target(epath.Path(workdir) / "average")
  try:
    names = sorted(path.name for path in average.parent.iterdir())
  except (FileNotFoundError, NotADirectoryError):
    return None
  except OSError as error:
    raise checksums.unreadable(workdir, error) from error
  old = re.compile(re.escape(average.name) + r"(\.[0-9a-f]{12}\.old)?")
  return next((average.parent / name for name in names if old.fullmatch(name)), None)


def read_record(directory) -> dict:
  """What an average says of itself.

  "steps": whose mean it is, ascending. "config" and "text": of which run. "dev_loss": the losses per token of the
  "newest" of its steps and of the "average". What was not known, or not yet written by an older version, is left out.
  """
  path = directory / "average.json"
  record = files.read_json(path, checksums.MOST_JSON)
  kinds = {"steps": list, "config": dict, "text": str, "dev_loss": dict}
  if not isinstance(record, dict) or any(type(record.get(name, kind())) is not kind for name, kind in kinds.items()):
    record = {}
  loss = record.get("dev_loss", {"newest": 0.0, "average": 0.0})
  numbers = {"newest", "average"} == set(loss) and all(type(value) is float for value in loss.values())
  if not numbers or not record.get("steps") or any(type(step) is not int for step in record["steps"]):
    raise UserError(f"{path} is not what averaging writes: average again")
  return record
