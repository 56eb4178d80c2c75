"""A state worth saving, and what can happen to its files."""

import json

import jax
import numpy as np

from attention_zoo.training import checksums, sharding
from attention_zoo.training.optimizer import make_optimizer
from attention_zoo.training.step import abstract_state
from tests.training import toy_task

CONFIG = toy_task.make_config()
TASK = toy_task.ToyTask(CONFIG)
OPTIMIZER = make_optimizer(CONFIG.optimizer)


def placed(rules, devices=8, fsdp=1, tensor=1):
  """The abstract state under a rule set on the first devices."""
  config = toy_task.make_config(**{"mesh.rules": rules, "mesh.fsdp": fsdp, "mesh.tensor": tensor})
  return abstract_state(TASK, OPTIMIZER, config, sharding.make_mesh(config.mesh, jax.devices()[:devices]))


def at(state, abstract, add=0):
  return jax.tree.map(lambda x, a: jax.device_put(np.asarray(x + add, x.dtype), a.sharding), state, abstract)


def assert_same(got, want):
  jax.tree.map(np.testing.assert_array_equal, got, want)


def data_file(workdir, step, item="params"):
  """The largest file of an item."""
  files = (workdir / "checkpoints" / str(step) / item).rglob("*")
  return max((path for path in files if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_one_bit(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 4
  path.write_bytes(data)


def edit_metadata(workdir, step, change):
  """Changes what a checkpoint says of itself, as if it had been written so."""
  directory = workdir / "checkpoints" / str(step)
  path = directory / checksums.METADATA
  value = json.loads(path.read_text())
  change(value["custom_metadata"])
  path.write_text(json.dumps(value))
  checksums.write(directory)
