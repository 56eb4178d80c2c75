import json
import shutil
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from attention_zoo.errors import UserError
from attention_zoo.training import arrays, checksums, loading, storage
from attention_zoo.training import average as average_lib
from attention_zoo.training import checkpoints as checkpoints_lib
from tests.test_entry_points import command
from tests.training import toy_task
from tests.training.saved import assert_same, at, data_file, edit_metadata, flip_one_bit, placed, truncate

TMP, OLD = (f"average.0123456789ab.{ending}" for ending in ("tmp", "old"))  # of a killed process


@pytest.mark.parametrize("group_bytes", [1 << 28, 1000])
def test_average_is_the_arithmetic_mean(copy, start, monkeypatch, group_bytes):
  monkeypatch.setattr(average_lib, "GROUP_BYTES", group_bytes)
  assert average_lib.average(copy, last=3) == [10, 20, 30]
  assert_mean(copy, start, 20)
  assert average_lib.average(copy, steps=[30, 10, 10]) == [10, 30]
  assert loading.read_record(copy / "average")["steps"] == [10, 30]
  assert average_lib.average(copy, steps=[30]) == [30]
  assert_same(loading.load_params(copy), loading.load_params(copy, 30))


def assert_mean(workdir, start, offset):
  got = loading.load_params(workdir)
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(got))
  jax.tree.map(lambda g, x: np.testing.assert_allclose(g, x + offset, rtol=3e-7), got, start.params)


def test_average_refuses(copy):
  with pytest.raises(UserError, match="has 3 checkpoints .*fewer than the 5"):
    average_lib.average(copy)
  with pytest.raises(UserError, match="no checkpoint of step 15"):
    average_lib.average(copy, steps=[10, 15])
  edit_metadata(copy, 20, lambda value: value["config"]["train"].update(steps=77))  # may change
  average_lib.average(copy, last=2)
  edit_metadata(copy, 20, lambda value: value["config"]["model"].update(d_model=99))
  with pytest.raises(UserError, match=r"different configs.*\n  model.d_model: 99 -> 16"):
    average_lib.average(copy, last=2)
  assert loading.read_record(copy / "average")["steps"] == [20, 30]  # the average from before is still there
  truncate(data_file(copy, 30))
  with pytest.raises(UserError, match="30 is damaged"):
    average_lib.average(copy, steps=[10, 30])


def test_an_average_that_finds_no_room_leaves_the_one_before(copy, monkeypatch):
  average_lib.average(copy, last=2)
  before = loading.load_params(copy)
  code = f"""
import resource
from attention_zoo.training.average import average
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
average({str(copy)!r}, last=3)"""
  done = subprocess.run([sys.executable, "-c", code], cwd=toy_task.ROOT, capture_output=True, text=True)
  assert f"UserError: cannot write {copy}/average: File too large" in done.stderr, done.stderr
  assert_same(loading.load_params(copy), before)
  usage = shutil.disk_usage(copy)._replace(free=1000)
  monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
  (copy / TMP / "params").mkdir(parents=True, exist_ok=True)  # as a killed process leaves it
  with pytest.raises(UserError, match=r"cannot write .*/average: it takes [\d,]+ bytes and 1,000 are free"):
    average_lib.average(copy, last=3)
  assert_same(loading.load_params(copy), before)
  assert not list(copy.glob("average.*"))


def test_an_average_that_was_killed_while_renaming(copy):
  average_lib.average(copy, last=2)
  (copy / "average").rename(copy / OLD)
  with pytest.raises(UserError, match="No such file"):  # it fails, but has put back what there was
    average_lib._write(copy / "average", {"params": {"x": np.zeros(2)}}, {"nowhere/x": ""})
  assert loading.read_record(copy / "average")["steps"] == [20, 30]
  shutil.copytree(copy / "average", copy / OLD)
  average_lib.average(copy, last=3)
  assert loading.read_record(copy / "average")["steps"] == [10, 20, 30] and not (copy / OLD).exists()


def test_damaged_metadata(copy):
  path = copy / "checkpoints" / "20" / "_CHECKPOINT_METADATA"
  for content in (b"", b"\xff", b"[]", path.read_bytes()[:-5]):
    path.write_bytes(content)
    with pytest.raises(
      UserError, match="checkpoints/20 is damaged: _CHECKPOINT_METADATA (cannot be read|is not as it was written)"
    ):
      average_lib.average(copy, last=2)


def test_damaged_average(copy):
  average_lib.average(copy, last=2)
  path = max((p for p in (copy / "average").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
  flip_one_bit(path)
  with pytest.raises(UserError, match="average is damaged"):
    loading.load_params(copy)


def test_a_checkpoint_that_is_not_finite_is_refused(copy, start):
  checkpoints = checkpoints_lib.Checkpoints(copy, keep=3, metadata=checkpoints_lib.read_metadata(copy, 30))
  bad = jax.tree.map(np.copy, start)
  bad.params["embedding"]["table_VD"][3, 4] = np.nan
  checkpoints.save(40, at(bad, placed("data_parallel")))
  checkpoints.close()
  with pytest.raises(UserError, match="checkpoints/40 cannot be averaged: embedding/table_VD is not finite"):
    average_lib.average(copy, last=2)
  assert not (copy / "average").exists()


def test_checkpoints_of_different_texts_are_refused(copy):
  edit_metadata(copy, 20, lambda value: value.update(text="toy 1"))
  with pytest.raises(UserError, match="steps 10 and 20 were trained on different texts"):
    average_lib.average(copy, last=3)


def test_the_dev_losses_are_recorded(copy, start):
  average_lib.average(copy, last=3, dev_loss=lambda params, variables: float(params["embedding"]["table_VD"].mean()))
  record = loading.read_record(copy / "average")
  mean = float(start.params["embedding"]["table_VD"].mean())
  assert record["dev_loss"] == {
    "newest": pytest.approx(mean + 30, rel=1e-6),
    "average": pytest.approx(mean + 20, rel=1e-6),
  }
  assert record["steps"] == [10, 20, 30] and record["text"] == "toy 0" and record["config"]["train"]["seed"] == 0
  average_lib.average(copy, last=2, dev_loss=lambda params, variables: None)  # there is no dev text
  assert "dev_loss" not in loading.read_record(copy / "average")


def deleting(monkeypatch, copy, step):
  """Training deletes a step between the checks of an average and its reading."""
  real = arrays.read_params

  def read(directory, part=None):
    shutil.rmtree(copy / "checkpoints" / str(step), ignore_errors=True)
    return real(directory, part)

  monkeypatch.setattr(arrays, "read_params", read)


def test_a_parent_that_is_deleted_meanwhile(copy, monkeypatch):
  deleting(monkeypatch, copy, 20)
  assert average_lib.average(copy, last=2) == [10, 30]
  assert loading.read_record(copy / "average")["steps"] == [10, 30]


def test_a_parent_that_was_asked_for_and_is_deleted_meanwhile(copy, monkeypatch):
  deleting(monkeypatch, copy, 20)
  with pytest.raises(storage.Gone, match="checkpoints/20 is gone.*config.train.keep"):
    average_lib.average(copy, steps=[20, 30])
  with pytest.raises(UserError, match=r"no checkpoint of step 20; it has \[10, 30\]"):
    average_lib.average(copy, steps=[20, 30])


def test_averages_at_the_same_time(copy):
  errors = []

  def work(last):
    try:
      for _ in range(3):
        average_lib.average(copy, last=last)
        assert loading.load(copy, "average").steps in ([10, 20, 30], [20, 30])
    except BaseException as error:
      errors.append(error)

  threads = [threading.Thread(target=work, args=(last,)) for last in (2, 3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not errors
  assert not checksums.damage(copy / "average")
  assert not list(copy.glob("average.*"))


def test_a_kill_between_the_renames_loses_nothing(copy, monkeypatch):
  average_lib.average(copy, last=2)
  (copy / "average").rename(copy / OLD)
  shutil.copytree(copy / OLD, copy / TMP)
  assert loading.load(copy, "average").steps == loading.load(copy).steps == [20, 30]
  assert average_lib.average(copy, last=3) == [10, 20, 30]
  assert loading.load(copy).steps == [10, 20, 30] and not list(copy.glob("average.*"))


def test_an_average_that_lies_elsewhere(copy, tmp_path):
  """The link stays, and of what lies beside its end only what a killed average left there is touched."""
  disk = tmp_path / "disk"
  (disk / "here").mkdir(parents=True)
  (copy / "average").symlink_to(disk / "here")
  for name in ("here.old", "here.tmp", "average.0123456789ab.tmp"):
    (disk / name).mkdir()
  for last in (2, 3):
    average_lib.average(copy, last=last)
    assert (copy / "average").is_symlink() and loading.load(copy, "average").steps == [10, 20, 30][-last:]
  (disk / "here").rename(disk / "here.0123456789ab.old")  # killed between the renames
  assert loading.load(copy, "average").steps == [10, 20, 30]
  assert average_lib.average(copy, last=1) == loading.load(copy, "average").steps == [30]
  assert {path.name for path in disk.iterdir()} == {"here", "here.old", "here.tmp", "average.0123456789ab.tmp"}


def test_what_is_no_average_is_not_replaced(copy, tmp_path):
  (tmp_path / "letters").mkdir()
  (tmp_path / "letters" / "1.txt").write_text("mine")
  (copy / "average").symlink_to("../letters")
  with pytest.raises(UserError, match="cannot write .*letters: it is no average, and .*/average is a link to it"):
    average_lib.average(copy, last=2)
  assert (tmp_path / "letters" / "1.txt").read_text() == "mine" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("text", ["{}", '{"task": "translation", "model": {"name": "transformer"}}'])
def test_a_config_that_is_none(tmp_path, text):
  (tmp_path / "config.json").write_text(text)
  errors = command("attention_zoo.average", f"--workdir={tmp_path}", check=2).stderr.decode()
  assert errors.startswith("error: config") and errors.count("\n") == 1


def test_a_config_that_was_changed(tiny_run, tmp_path):
  run = shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("data", "tensorboard"))
  config = (run / "config.json").read_text()
  (run / "config.json").write_text(config.replace('"alpha": 0.6', '"alpha": 0.7'))
  errors = command("attention_zoo.average", f"--workdir={run}", check=2).stderr.decode()
  assert "config.json is not as training wrote it" in errors and errors.count("\n") == 1


def test_the_text_has_moved(tiny_run, number_files, tmp_path):
  run = shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("data", "tensorboard"))
  config = json.loads((run / "config.json").read_text())
  config["data"]["dir"] = str(tmp_path / "nowhere")
  (run / "config.json").write_text(json.dumps(config))
  (run / "versions.json").unlink()
  done = command("attention_zoo.average", f"--workdir={run}", "--last=2", f"--data_dir={number_files}", check=0)
  assert set(loading.read_record(run / "average")["dev_loss"]) == {"newest", "average"} and not done.stderr
