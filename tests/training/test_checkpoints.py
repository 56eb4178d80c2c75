import errno
import json
import pathlib
import shutil
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_task

from attention_zoo.errors import UserError
from attention_zoo.training import average as average_lib
from attention_zoo.training import checkpoints as checkpoints_lib
from attention_zoo.training import sharding
from attention_zoo.training.loop import abstract_state, init_state
from attention_zoo.training.optimizer import make_optimizer

CONFIG = toy_task.make_config()
TASK = toy_task.ToyTask(CONFIG)
OPTIMIZER = make_optimizer(CONFIG.optimizer)


def placed(rules, devices=8, fsdp=1, tensor=1):
  """The abstract state under a rule set on the first devices."""
  mesh_config = toy_task.make_config(**{"mesh.rules": rules, "mesh.fsdp": fsdp, "mesh.tensor": tensor}).mesh
  mesh = sharding.make_mesh(mesh_config, jax.devices()[:devices])
  return abstract_state(TASK, OPTIMIZER, sharding.RULES[rules], mesh)


@pytest.fixture(scope="module")
def start():
  """A state with no two leaves alike, on the host."""
  state = jax.device_get(init_state(TASK, OPTIMIZER, 0))
  leaves, tree = jax.tree.flatten(state)
  return tree.unflatten(np.asarray(leaf + index, leaf.dtype) for index, leaf in enumerate(leaves))


def at(state, abstract, add=0):
  return jax.tree.map(lambda x, a: jax.device_put(np.asarray(x + add, x.dtype), a.sharding), state, abstract)


@pytest.fixture(scope="module")
def run(start, tmp_path_factory):
  """A run with checkpoints of steps 10, 20 and 30, saved under fsdp + tensor parallelism on 8 devices."""
  workdir = tmp_path_factory.mktemp("run")
  checkpoints = checkpoints_lib.Checkpoints(workdir, keep=3, metadata={"config": CONFIG.to_dict()})
  abstract = placed("fsdp+tensor_parallel", fsdp=2, tensor=2)
  for step in (5, 10, 20, 30):
    checkpoints.save(step, at(start, abstract, step))
  checkpoints.close()
  return workdir


@pytest.fixture
def copy(run, tmp_path):
  return pathlib.Path(shutil.copytree(run, tmp_path / "copy"))


def assert_same(got, want):
  jax.tree.map(np.testing.assert_array_equal, got, want)


def test_keeps_the_newest(run):
  assert checkpoints_lib.steps(run) == [10, 20, 30]


@pytest.mark.parametrize(
  ("rules", "devices", "fsdp", "tensor"),
  [
    ("fsdp+tensor_parallel", 8, 2, 2),
    ("data_parallel", 4, 1, 1),
    ("fsdp", 8, 8, 1),
    ("tensor_parallel", 4, 1, 4),
    ("data_parallel", 1, 1, 1),
  ],
)
def test_opens_on_any_mesh(run, start, rules, devices, fsdp, tensor):
  checkpoints = checkpoints_lib.Checkpoints(run, keep=3)
  abstract = placed(rules, devices, fsdp, tensor)
  state, step = checkpoints.restore(abstract)
  checkpoints.close()
  assert step == 30 and type(state) is type(start)
  assert_same(state, jax.tree.map(lambda x: np.asarray(x + 30, x.dtype), start))
  jax.tree.map(
    lambda x, a: x.sharding.is_equivalent_to(a.sharding, x.ndim) or pytest.fail(str(x.sharding)),
    state,
    abstract,
  )


def test_a_step_that_is_asked_for(run, start):
  checkpoints = checkpoints_lib.Checkpoints(run, keep=3)
  state, step = checkpoints.restore(placed("data_parallel"), step=10)
  checkpoints.close()
  assert step == 10
  assert_same(state.params, jax.tree.map(lambda x: x + 10, start.params))


def test_nothing_to_restore(tmp_path):
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  assert checkpoints.restore(placed("data_parallel")) is None
  checkpoints.close()


class SmallState(NamedTuple):
  params: dict
  steps: jax.Array


def test_a_donated_state_does_not_change_what_is_being_saved(tmp_path):
  step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  state = SmallState({"w": jnp.zeros((512, 1024))}, jnp.int32(0))
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  for index in range(6):
    state = step(state)
    if index == 2:
      checkpoints.save(3, state)
  jax.block_until_ready(state)
  checkpoints.close()
  np.testing.assert_array_equal(checkpoints_lib.load_params(tmp_path, 3)["w"], 3.0)


def test_load_params_reads_parameters_only(copy, start):
  shutil.rmtree(copy / "checkpoints" / "30" / "rest")
  (copy / "checkpoints" / "30" / "checksums.json").unlink()
  directory = copy / "checkpoints" / "30" / "params"
  params = checkpoints_lib.read_params(directory)
  assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(params))
  assert_same(params, jax.tree.map(lambda x: x + 30, start.params))


def test_load_params_names(run, start):
  assert_same(checkpoints_lib.load_params(run, "latest"), jax.tree.map(lambda x: x + 30, start.params))
  for step in (20, "20"):
    assert_same(checkpoints_lib.load_params(run, step), jax.tree.map(lambda x: x + 20, start.params))
  with pytest.raises(UserError, match=r"no checkpoint of step 7; it has \[10, 20, 30\]"):
    checkpoints_lib.load_params(run, 7)
  with pytest.raises(UserError, match="'average', 'latest' or a step, not 'newest'"):
    checkpoints_lib.load_params(run, "newest")
  with pytest.raises(UserError, match="no averaged checkpoint"):
    checkpoints_lib.load_params(run)


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


@pytest.mark.parametrize("harm", [truncate, flip_one_bit, pathlib.Path.unlink])
@pytest.mark.parametrize("item", ["params", "rest"])
def test_a_damaged_newest_checkpoint(copy, start, harm, item, caplog):
  harm(data_file(copy, 30, item))
  checkpoints = checkpoints_lib.Checkpoints(copy, keep=3)
  abstract = placed("data_parallel")
  state, step = checkpoints.restore(abstract)
  assert step == 20
  assert_same(state.params, jax.tree.map(lambda x: x + 20, start.params))
  assert "the checkpoint of step 30 is damaged" in caplog.text
  assert (copy / "damaged" / "30").exists() and checkpoints.steps() == [10, 20]
  checkpoints.save(30, state)  # and training can save that step again
  checkpoints.close()
  assert checkpoints_lib.steps(copy) == [10, 20, 30]


def test_a_whole_checkpoint_of_another_model_is_left_alone(copy):
  checkpoints = checkpoints_lib.Checkpoints(copy, keep=3)
  abstract = placed("data_parallel")
  for params in (
    {**abstract.params, "more": abstract.params["embedding"]},
    {"embedding": {"table": abstract.opt_state[0].count}},
  ):
    with pytest.raises(UserError, match="30 is not damaged, but it is not of this model"):
      checkpoints.restore(abstract._replace(params=params))
  checkpoints.close()
  assert checkpoints_lib.steps(copy) == [10, 20, 30]


def test_damage_to_all_and_to_the_one_asked_for(copy):
  truncate(data_file(copy, 20))
  checkpoints = checkpoints_lib.Checkpoints(copy, keep=3)
  with pytest.raises(UserError, match="20 is damaged"):
    checkpoints.restore(placed("data_parallel"), step=20)
  with pytest.raises(UserError, match="20 is damaged"):
    checkpoints_lib.load_params(copy, 20)
  for step in (10, 30):
    truncate(data_file(copy, step))
  with pytest.raises(UserError, match="every checkpoint"):
    checkpoints_lib.load_params(copy, "latest")
  with pytest.raises(UserError, match="every checkpoint in .* is damaged"):
    checkpoints.restore(placed("data_parallel"))
  checkpoints.close()


def test_an_unfinished_checkpoint_is_none(copy):
  # What a process leaves that is killed while it saves; "30" is saved anew over such remains.
  for step in (30, 40):
    shutil.copytree(copy / "checkpoints" / "20", copy / "checkpoints" / f"{step}.orbax-checkpoint-tmp")
  shutil.rmtree(copy / "checkpoints" / "30")
  assert checkpoints_lib.steps(copy) == [10, 20]
  checkpoints = checkpoints_lib.Checkpoints(copy)
  state, step = checkpoints.restore(placed("data_parallel"))
  assert step == 20
  checkpoints.save(30, state)
  checkpoints.close()
  assert sorted(path.name for path in (copy / "checkpoints").iterdir()) == ["10", "20", "30"]
  assert not checkpoints_lib.damage(copy / "checkpoints" / "30")


@pytest.mark.parametrize("group_bytes", [1 << 28, 1000])
def test_average_is_the_arithmetic_mean(copy, start, monkeypatch, group_bytes):
  monkeypatch.setattr(average_lib, "GROUP_BYTES", group_bytes)
  assert average_lib.average(copy, last=3) == [10, 20, 30]
  assert_mean(copy, start, 20)
  assert average_lib.average(copy, steps=[30, 10, 10]) == [10, 30]
  assert average_lib.read_parents(copy) == [10, 30]
  assert average_lib.average(copy, steps=[30]) == [30]
  assert_same(checkpoints_lib.load_params(copy), checkpoints_lib.load_params(copy, 30))


def assert_mean(workdir, start, offset):
  got = checkpoints_lib.load_params(workdir)
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(got))
  jax.tree.map(lambda g, x: np.testing.assert_allclose(g, x + offset, rtol=3e-7), got, start.params)


def test_average_refuses(copy):
  with pytest.raises(UserError, match="has 3 checkpoints .*fewer than the 5"):
    average_lib.average(copy)
  with pytest.raises(UserError, match="no checkpoint of step 15"):
    average_lib.average(copy, steps=[10, 15])
  path = copy / "checkpoints" / "20" / "_CHECKPOINT_METADATA"
  metadata = json.loads(path.read_text())
  metadata["custom_metadata"]["config"]["train"]["steps"] = 77  # may change
  path.write_text(json.dumps(metadata))
  average_lib.average(copy, last=2)
  metadata["custom_metadata"]["config"]["model"]["d_model"] = 99
  path.write_text(json.dumps(metadata))
  with pytest.raises(UserError, match=r"different configs.*\n  model.d_model: 99 -> 16"):
    average_lib.average(copy, last=2)
  assert average_lib.read_parents(copy) == [20, 30]  # the average from before is still there
  truncate(data_file(copy, 30))
  with pytest.raises(UserError, match="30 is damaged"):
    average_lib.average(copy, steps=[10, 30])


def test_an_average_that_finds_no_room_leaves_the_one_before(copy, monkeypatch):
  average_lib.average(copy, last=2)
  before = checkpoints_lib.load_params(copy)
  code = f"""
import resource
from attention_zoo.training.average import average
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
average({str(copy)!r}, last=3)"""
  done = subprocess.run([sys.executable, "-c", code], cwd=toy_task.ROOT, capture_output=True, text=True)
  assert f"UserError: cannot write {copy}/average: File too large" in done.stderr, done.stderr
  assert_same(checkpoints_lib.load_params(copy), before)
  usage = shutil.disk_usage(copy)._replace(free=1000)
  monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
  (copy / "average.tmp" / "params").mkdir(parents=True, exist_ok=True)  # as a killed process leaves it
  with pytest.raises(UserError, match=r"cannot write .*/average: it takes [\d,]+ bytes and 1,000 are free"):
    average_lib.average(copy, last=3)
  assert_same(checkpoints_lib.load_params(copy), before)
  assert not (copy / "average.tmp").exists()


def test_an_average_that_was_killed_while_renaming(copy):
  average_lib.average(copy, last=2)
  (copy / "average").rename(copy / "average.old")
  with pytest.raises(UserError, match="No such file"):  # it fails, but has put back what there was
    checkpoints_lib.write_params(copy / "average", {"x": np.zeros(2)}, {"nowhere/x": ""})
  assert average_lib.read_parents(copy) == [20, 30]
  shutil.copytree(copy / "average", copy / "average.old")
  average_lib.average(copy, last=3)
  assert average_lib.read_parents(copy) == [10, 20, 30] and not (copy / "average.old").exists()


def test_damaged_metadata(copy):
  path = copy / "checkpoints" / "20" / "_CHECKPOINT_METADATA"
  for content in (b"", b"\xff", b"[]", path.read_bytes()[:-5]):
    path.write_bytes(content)
    with pytest.raises(UserError, match="checkpoints/20 is damaged: _CHECKPOINT_METADATA cannot be read"):
      average_lib.average(copy, last=2)


def test_damaged_average(copy):
  average_lib.average(copy, last=2)
  path = max((p for p in (copy / "average").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
  flip_one_bit(path)
  with pytest.raises(UserError, match="average is damaged"):
    checkpoints_lib.load_params(copy)


def test_what_cannot_be_tidied_hides_no_message(tmp_path, monkeypatch):
  """A directory that became read-only: the save fails, and so does removing what is left of it."""
  checkpoints = checkpoints_lib.Checkpoints(tmp_path, keep=2)

  def read_only(*args, **options):
    raise OSError(errno.EROFS, "Read-only file system")

  (checkpoints.directory / "3.orbax-checkpoint-tmp").mkdir(parents=True)
  checkpoints._saving = 3
  monkeypatch.setattr(checkpoints._manager, "wait_until_finished", read_only)
  monkeypatch.setattr(shutil, "rmtree", read_only)
  with pytest.raises(UserError, match="step 3 could not be written .*Read-only"):
    checkpoints.wait()


def test_only_the_disk_is_bad_input(tmp_path, monkeypatch):
  """What another process or the network did may be gone at the next try: exit code 2 would end all tries."""
  kept = checkpoints_lib.Checkpoints(tmp_path)

  def fails_with(error):
    def wait():
      raise error

    monkeypatch.setattr(kept._manager, "wait_until_finished", wait)
    with pytest.raises(Exception) as raised:
      kept.wait()
    return raised.type

  lost, full = RuntimeError("UNAVAILABLE: connection closed by peer"), OSError(errno.ENOSPC, "no space")
  assert fails_with(lost) is fails_with(full) is UserError  # alone, on a local disk
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  assert fails_with(lost) is RuntimeError and fails_with(full) is UserError
