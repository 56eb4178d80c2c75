"""The work directory of a run: it belongs to one config."""

import importlib.metadata
import json
import platform

import jax
from etils import epath

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training import checkpoints
from attention_zoo.training import config as config_lib

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


def prepare_workdir(workdir, config) -> None:
  """Claims a work directory for this config, or checks that it is this config's.

  Writes config.json and versions.json (process 0 only). Call it before anything else writes there.
  Raises UserError that shows the difference when config.json is of another config; what is in
  `config.MAY_CHANGE` may differ. A directory where a run got no further than config.json is free.
  """
  workdir = epath.Path(workdir)
  path = workdir / "config.json"
  trained = bool(checkpoints.steps(workdir))
  if path.exists() and (trained or (workdir / "tokenizer.model").exists()):
    old = read_config(workdir)
    if difference := config_lib.diff(old, config, ignore=config_lib.MAY_CHANGE):
      raise UserError(
        f"{workdir} belongs to a run with another config (there -> here):\n{difference}\n"
        "Choose another workdir, or the config that the run was started with"
        + ("" if trained else "; or delete it: it has no checkpoint yet")
      )
  if jax.process_index() == 0:
    files.write_text(path, config_lib.to_json(config))
    files.write_text(workdir / "versions.json", json.dumps(versions(), indent=2) + "\n")


def read_config(workdir):
  """The config that a run was started with, from its config.json. Raises UserError where there is none."""
  path = epath.Path(workdir) / "config.json"
  if not path.exists():
    raise UserError(f"{workdir} is not the work directory of a run: it has no config.json")
  return config_lib.from_json(path.read_text(), str(path))


def versions() -> dict[str, str]:
  """Python and package versions, as far as they are installed."""
  found = {"python": platform.python_version()}
  for package in PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found
