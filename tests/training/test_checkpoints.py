import errno
import json
import os
import pathlib
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.errors import UserError
from attention_zoo.training import average as average_lib
from attention_zoo.training import checkpoints as checkpoints_lib
from attention_zoo.training import checksums, loading
from tests.training.saved import (
  CONFIG,
  assert_same,
  at,
  data_file,
  edit_metadata,
  flip_one_bit,
  placed,
  truncate,
)


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
  np.testing.assert_array_equal(loading.load_params(tmp_path, 3)["w"], 3.0)


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
    loading.load_params(copy, 20)
  for step in (10, 30):
    truncate(data_file(copy, step))
  with pytest.raises(UserError, match="every checkpoint"):
    loading.load_params(copy, "latest")
  with pytest.raises(UserError, match="no checkpoint that is whole; the damaged ones are in .*/damaged"):
    checkpoints.restore(placed("data_parallel"))
  checkpoints.close()


def test_a_run_that_lost_all_does_not_begin_anew_untold(copy):
  """The same command, given again, would else throw away what can be mended by hand."""
  for step in (10, 20, 30):
    truncate(data_file(copy, step))
  for _ in range(2):
    checkpoints = checkpoints_lib.Checkpoints(copy, keep=3)
    with pytest.raises(UserError, match="To begin again from step 0, delete that folder"):
      checkpoints.restore(placed("data_parallel"))
    checkpoints.close()
  assert checkpoints_lib.set_aside(copy) == ["10", "20", "30"]
  (copy / "damaged").rename(copy / "kept")
  checkpoints = checkpoints_lib.Checkpoints(copy, keep=3)
  assert checkpoints.restore(placed("data_parallel")) is None
  checkpoints.close()


def test_what_is_set_aside_stays(copy):
  (copy / "damaged" / "30").mkdir(parents=True)
  (copy / "damaged" / "30" / "before").touch()
  truncate(data_file(copy, 30))
  checkpoints = checkpoints_lib.Checkpoints(copy, keep=3)
  assert checkpoints.restore(placed("data_parallel"))[1] == 20
  checkpoints.close()
  assert checkpoints_lib.set_aside(copy) == ["30", "30.1"] and (copy / "damaged" / "30" / "before").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_what_cannot_be_read_is_not_damaged(copy, monkeypatch, number):
  real = checksums._Folder.open

  def fails(folder, name):
    if name.startswith("params/d/"):
      raise OSError(number, os.strerror(number), f"{folder._root}/{name}")
    return real(folder, name)

  monkeypatch.setattr(checksums._Folder, "open", fails)
  message = f"cannot read .*/params/d/.*: {os.strerror(number)}"
  checkpoints = checkpoints_lib.Checkpoints(copy, keep=3)
  with pytest.raises(UserError, match=message):
    checkpoints.restore(placed("data_parallel"))
  checkpoints.close()
  for read in (lambda: loading.load(copy, "latest"), lambda: average_lib.average(copy, last=2)):
    with pytest.raises(UserError, match=message):
      read()
  assert checkpoints_lib.steps(copy) == [10, 20, 30] and not (copy / "damaged").exists()


def test_a_read_error_of_tensorstore_is_no_damage(copy, monkeypatch):
  """The checksums were right, and the disk fails now."""
  checkpoints = checkpoints_lib.Checkpoints(copy, keep=3)

  def fails(*args, **options):
    raise ValueError(f"DATA_LOSS: Error reading local file [os_error_code='{errno.EIO}']")

  monkeypatch.setattr(checkpoints._manager, "restore", fails)
  with pytest.raises(UserError, match="cannot read .*checkpoints/30: Input/output error$"):
    checkpoints.restore(placed("data_parallel"))
  checkpoints.close()
  assert checkpoints_lib.steps(copy) == [10, 20, 30] and not (copy / "damaged").exists()


def test_a_list_of_checkpoints_that_cannot_be_read_is_not_empty(copy, monkeypatch):
  def fails(path):
    raise PermissionError(errno.EACCES, "Permission denied", str(path))

  monkeypatch.setattr(os, "listdir", fails)
  with pytest.raises(UserError, match="cannot read .*/checkpoints: Permission denied"):
    checkpoints_lib.steps(copy)


def restore(workdir, **metadata):
  checkpoints = checkpoints_lib.Checkpoints(workdir, keep=3, metadata=metadata)
  try:
    return checkpoints.restore(placed("data_parallel"))[1]
  finally:
    checkpoints.close()


def rename(copy):
  (copy / "checkpoints" / "30").rename(copy / "checkpoints" / "9000000")
  return "checkpoints/9000000 holds the checkpoint of step 30"


def swap(copy):
  for source, target in ((30, 31), (20, 30), (31, 20)):
    (copy / "checkpoints" / str(source)).rename(copy / "checkpoints" / str(target))
  return "checkpoints/(30 holds the checkpoint of step 20|20 holds the checkpoint of step 30)"


def copy_over(copy):
  shutil.rmtree(copy / "checkpoints" / "30")
  shutil.copytree(copy / "checkpoints" / "10", copy / "checkpoints" / "30")
  return "checkpoints/30 holds the checkpoint of step 10"


@pytest.mark.parametrize("harm", [rename, swap, copy_over])
def test_a_step_under_another_name_is_refused(copy, harm):
  message = harm(copy)
  before = checkpoints_lib.steps(copy)
  for read in (restore, lambda path: loading.load(path, "latest"), lambda path: average_lib.average(path, last=2)):
    with pytest.raises(UserError, match=message):
      read(copy)
  assert checkpoints_lib.steps(copy) == before and not (copy / "damaged").exists()


def test_a_checkpoint_of_another_run_is_refused(copy):
  """Of the same shapes: copied in, or config.json was edited."""
  here = {"config": CONFIG.to_dict(), "text": "toy 0"}
  assert restore(copy, **here) == 30
  edit_metadata(copy, 30, lambda value: value["config"]["train"].update(seed=7, steps=99))
  with pytest.raises(
    UserError, match=r"30 is of a run with another config \(there -> here\): train.seed: 7 -> 0\. Bring"
  ):
    restore(copy, **here)
  with pytest.raises(UserError, match="train.seed: 7 -> 0"):
    loading.load(copy, "latest", here)
  with pytest.raises(UserError, match="train.seed: 7 -> 0"):
    average_lib.average(copy, steps=[30], run=here)
  edit_metadata(copy, 30, lambda value: value["config"]["train"].update(seed=0))
  assert restore(copy, **here) == 30
  edit_metadata(copy, 30, lambda value: value.update(text="another"))
  with pytest.raises(UserError, match="30 was trained on another text"):
    restore(copy, **here)
  assert checkpoints_lib.steps(copy) == [10, 20, 30]


def test_a_checkpoint_of_an_earlier_version_says_less(copy):
  def forget(value):
    del value["step"], value["text"]

  edit_metadata(copy, 30, forget)
  assert restore(copy, config=CONFIG.to_dict(), text="toy 0") == 30


@pytest.mark.parametrize("value", [5, [1], "text", {"config": 3}, {"step": "30"}, {"text": {}}])
def test_metadata_of_another_type(copy, value):
  path = copy / "checkpoints" / "30" / checksums.METADATA
  path.write_text(json.dumps(json.loads(path.read_text()) | {"custom_metadata": value}))
  checksums.write(path.parent)
  for read in (restore, lambda path: average_lib.average(path, last=2)):
    with pytest.raises(UserError, match="30 is damaged: _CHECKPOINT_METADATA does not hold what training writes"):
      read(copy)


def test_damaged_metadata_counts_as_damage(copy):
  path = copy / "checkpoints" / "30" / checksums.METADATA
  path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
  assert restore(copy) == 20
  assert checkpoints_lib.set_aside(copy) == ["30"]


def test_pattern_characters_in_a_path(tmp_path, start):
  """Orbax looks for what it wrote with glob; where it finds nothing, it leaves a checkpoint that cannot be read."""
  workdir = tmp_path / "layers=[2,2] *?{a}%20#é[!x]"
  checkpoints = checkpoints_lib.Checkpoints(workdir, keep=2)
  abstract = placed("data_parallel")
  for step in (1, 2):
    checkpoints.save(step, at(start, abstract, step))
  checkpoints.wait()
  state, step = checkpoints.restore(abstract)
  checkpoints.close()
  assert step == 2
  assert_same(state, jax.tree.map(lambda x: np.asarray(x + 2, x.dtype), start))
  average_lib.average(workdir, last=1)
  assert_same(loading.load(workdir, "average").params, jax.tree.map(lambda x: x + 2, start.params))
  with pytest.raises(UserError, match=r"gs://bucket/\[2\]/checkpoints: Cloud Storage takes \[ \] for a pattern"):
    checkpoints_lib.Checkpoints("gs://bucket/[2]")


def test_folders_that_only_look_like_steps(copy):
  for name in ("²", "007", "x_40", "40.orbax-checkpoint-tmp", "9" * 30):
    (copy / "checkpoints" / name).mkdir()
  (copy / "checkpoints" / "50").touch()
  assert checkpoints_lib.steps(copy) == [10, 20, 30]
  assert loading.load(copy, "latest").steps == [30]
  assert restore(copy) == 30


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
  assert not checksums.damage(copy / "checkpoints" / "30")


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


def test_complete_checkpoints_of_a_bucket_are_listed_anew_each_time(tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoints_lib.files, "is_local", lambda path: False)
  assert checkpoints_lib.steps(tmp_path) == []
  for step in ("10", "20", "030"):
    (tmp_path / "checkpoints" / step).mkdir(parents=True)
    (tmp_path / "checkpoints" / step / "params").write_text("")
  (tmp_path / "checkpoints/10/commit_success.txt").write_text("")
  assert checkpoints_lib.steps(tmp_path) == [10]
  (tmp_path / "checkpoints/20/commit_success.txt").write_text("")
  assert checkpoints_lib.steps(tmp_path) == [10, 20]


def test_a_bucket_that_refuses_is_told_with_the_roles_that_are_needed(tmp_path, monkeypatch):
  class Forbidden(Exception):
    code = 403

  def refuse(*_, **__):
    raise Forbidden("no storage.buckets.get")

  monkeypatch.setattr(checkpoints_lib.ocp, "CheckpointManager", refuse)
  with pytest.raises(UserError, match=r"no storage.buckets.get.*roles/storage.legacyBucketReader"):
    checkpoints_lib.Checkpoints(tmp_path)
