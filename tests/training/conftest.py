import pathlib
import shutil

import jax
import numpy as np
import pytest

from attention_zoo.training import checkpoints as checkpoints_lib
from attention_zoo.training.step import init_state
from tests.training.saved import CONFIG, OPTIMIZER, TASK, at, placed


@pytest.fixture(scope="session")
def start():
  """A state with no two leaves alike, on the host."""
  state = jax.device_get(init_state(TASK, OPTIMIZER, CONFIG))
  leaves, tree = jax.tree.flatten(state)
  return tree.unflatten(np.asarray(leaf + index, leaf.dtype) for index, leaf in enumerate(leaves))


@pytest.fixture(scope="session")
def run(start, tmp_path_factory):
  """A run with checkpoints of steps 10, 20 and 30, saved under fsdp + tensor parallelism on 8 devices."""
  workdir = tmp_path_factory.mktemp("run")
  checkpoints = checkpoints_lib.Checkpoints(workdir, keep=3, metadata={"config": CONFIG.to_dict(), "text": "toy 0"})
  abstract = placed("fsdp+tensor_parallel", fsdp=2, tensor=2)
  for step in (5, 10, 20, 30):
    checkpoints.save(step, at(start, abstract, step))
  checkpoints.close()
  return workdir


@pytest.fixture
def copy(run, tmp_path):
  return pathlib.Path(shutil.copytree(run, tmp_path / "copy"))
