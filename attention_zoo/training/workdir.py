"""The work directory of a run: it belongs to one config, and one training at a time writes there."""

import contextlib
import importlib.metadata
import json
import os
import platform

from etils import epath

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training import checkpoints, distributed, exported, untrusted
from attention_zoo.training import config as config_lib
from attention_zoo.training.lock import Lock

PACKAGES = (
  "attention_zoo",
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "grain",
  "sentencepiece",
  "numpy",
)
FOLDERS = ("checkpoints", "damaged", "data", "eval", "tensorboard")
FILES = (
  "config.json", "versions.json", "text.json", "tokenizer.model",
  "metrics.jsonl", "best.json", "lock.json", "error.txt",
)  # fmt: skip


@contextlib.contextmanager
def claimed(workdir, config, told, defaults):
  """Holds a work directory for this training and config during the block; yields the `Lock`.

  Process 0 does, and the others take its word. told: a `stopping.Told`. defaults: as for `prepare_workdir`.
  Raises UserError where another process trains there, as `check_names` and `prepare_workdir` do, and where the
  processes do not all have the same config.
  """
  lock = Lock(workdir, told)
  try:
    problem = None
    if distributed.is_first():
      try:
        check_names(workdir)
        lock.acquire()
        clean(workdir)
        prepare_workdir(workdir, config, defaults)
      except UserError as error:
        problem = error
    if text := distributed.from_first(str(problem or "")):
      raise problem or UserError(text)
    first = config_lib.from_json(distributed.from_first(config_lib.to_json(config)))
    if difference := config_lib.diff(first, config):
      raise UserError(f"process 0 has another config than this process (there -> here):\n{difference}")
    yield lock
  finally:
    lock.release()


def clean(workdir) -> None:
  """Deletes what killed processes of this run have left half written; call it with the lock held."""
  if files.is_local(workdir):
    for folder in (files.expand(workdir), files.expand(workdir) / "data", files.expand(workdir) / "eval"):
      files.remove_remains(folder)


def check_names(workdir) -> None:
  """Raises UserError where something else is in the way of what a run writes.

  For example a pipe in the place of a file, which would be waited for. Links to files are fine.
  """
  workdir = epath.Path(workdir)
  if exported.is_exported(workdir):
    raise UserError(f"{workdir} is an exported model: train elsewhere")
  for name in FOLDERS:
    if (folder := workdir / name).exists() and not folder.is_dir():
      raise UserError(f"{folder} is in the way of a folder of that name: move it elsewhere")
  for name in FILES if files.is_local(workdir) else ():
    if (file := workdir / name).exists() and not os.path.isfile(file):
      raise UserError(f"{file} is in the way of a file of that name: move it elsewhere")


def prepare_workdir(workdir, config, defaults=None) -> None:
  """Gives a work directory to this config, or checks that it is this config's.

  Writes config.json and versions.json, unless there is nothing to train: checkpoints beyond config.train.steps.
  Raises UserError that shows the difference when config.json is of another config; what is in `config.MAY_CHANGE` may
  differ. A directory without a checkpoint is free. defaults: "group.field" -> value of the fields that a config.json
  from before there was such a field lacks.
  """
  workdir = epath.Path(workdir)
  path = workdir / "config.json"
  trained = checkpoints.steps(workdir)
  if path.exists() and (trained or checkpoints.set_aside(workdir)):
    old = read_config(workdir)
    if difference := config_lib.diff((defaults or {}) | config_lib.flat(old), config, ignore=config_lib.MAY_CHANGE):
      raise UserError(
        f"{workdir} belongs to a run with another config (there -> here):\n{difference}\n"
        "Choose another workdir, or the config that the run was started with"
      )
  if trained and trained[-1] > config.train.steps and path.exists():
    return  # what the checkpoints were trained with stays on record
  text = config_lib.to_json(config)
  files.write_text(path, text)
  notes = versions() | {"config.json": untrusted.digest(text.encode())}
  files.write_text(workdir / "versions.json", json.dumps(notes, indent=2) + "\n")


def read_config(workdir):
  """The config that a run was started with, from its config.json.
  Raises UserError where there is none, or no config in it."""
  path = epath.Path(workdir) / "config.json"
  if not path.exists():
    raise UserError(f"{workdir} is not the work directory of a run: it has no config.json")
  return config_lib.from_json(files.read_bytes(path, most=1 << 20), str(path))


def read_text(workdir) -> dict[str, str]:
  """{"text": the digest of the training text} that the run was begun with; {} where it is not noted."""
  path = epath.Path(workdir) / "text.json"
  found = files.read_json(path) if path.exists() else {}
  return {"text": found["train"]} if isinstance(found, dict) and isinstance(found.get("train"), str) else {}


def versions() -> dict[str, str]:
  """Python and package versions, as far as they are installed."""
  found = {"python": platform.python_version()}
  for package in PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found
