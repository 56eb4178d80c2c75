import json
import logging
import shutil
import time

import jax
import numpy as np
import pytest

from attention_zoo.errors import UserError
from attention_zoo.training import arrays, checksums, loading, storage
from attention_zoo.training import average as average_lib
from attention_zoo.training import checkpoints as checkpoints_lib
from tests.training.saved import CONFIG, assert_same, at, flip_one_bit, placed


def test_load_params_reads_parameters_only(copy, start):
  shutil.rmtree(copy / "checkpoints" / "30" / "rest")
  (copy / "checkpoints" / "30" / "checksums.json").unlink()
  directory = copy / "checkpoints" / "30" / "params"
  params = arrays.read_params(directory)
  assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(params))
  assert_same(params, jax.tree.map(lambda x: x + 30, start.params))


def test_load_params_names(run, start):
  assert_same(loading.load_params(run, "latest"), jax.tree.map(lambda x: x + 30, start.params))
  for step in (20, "20"):
    assert_same(loading.load_params(run, step), jax.tree.map(lambda x: x + 20, start.params))
  with pytest.raises(UserError, match=r"no checkpoint of step 7; it has \[10, 20, 30\]"):
    loading.load_params(run, 7)
  with pytest.raises(UserError, match="'average', 'latest' or a step, not 'newest'"):
    loading.load_params(run, "newest")
  with pytest.raises(UserError, match="no averaged checkpoint"):
    loading.load_params(run)


def chosen(workdir, caplog):
  """(checkpoint, steps, what the log said)."""
  caplog.clear()
  with caplog.at_level(logging.WARNING):
    found = loading.load(workdir)
  return found.checkpoint, found.steps, caplog.text


def test_the_average_is_taken_where_it_is_the_better_choice(copy, start, caplog):
  assert chosen(copy, caplog) == ("latest", [30], "")  # there is none
  average_lib.average(copy, last=2)
  assert chosen(copy, caplog) == ("average", [20, 30], "")
  average_lib.average(copy, last=2, dev_loss=lambda params, _: -params["embedding"]["table_VD"].mean())
  assert chosen(copy, caplog)[:2] == ("latest", [30])
  assert "taking the newest checkpoint, not the average, because its dev loss is -" in caplog.text
  average_lib.average(copy, last=2, dev_loss=lambda params, _: params["embedding"]["table_VD"].mean())
  assert chosen(copy, caplog) == ("average", [20, 30], "")
  shutil.rmtree(copy / "checkpoints" / "30")  # to save room: what is left is not newer
  assert chosen(copy, caplog) == ("average", [20, 30], "")
  checkpoints = checkpoints_lib.Checkpoints(copy, keep=3)
  checkpoints.save(40, at(start, placed("data_parallel"), 40))
  checkpoints.close()
  assert chosen(copy, caplog)[:2] == ("latest", [40])
  assert "it is of the steps [20, 30] and step 40 is newer: average again" in caplog.text
  assert loading.load(copy, "average").steps == [20, 30]  # asked for


def test_a_damaged_average(copy, caplog):
  average_lib.average(copy, last=2)
  flip_one_bit(max((copy / "average").rglob("d/*"), key=lambda path: path.stat().st_size))
  assert chosen(copy, caplog)[:2] == ("latest", [30]) and "average is damaged: params/" in caplog.text
  with pytest.raises(UserError, match="average is damaged: params/"):
    loading.load(copy, "average")


@pytest.mark.parametrize(
  "record",
  [[], {}, {"steps": 3}, {"steps": ["3"]}, {"steps": [3], "dev_loss": {"newest": 1.0}}, {"steps": [3], "config": 1}],
)
def test_an_average_with_a_record_of_another_type(copy, record):
  average_lib.average(copy, last=2)
  (copy / "average" / "average.json").write_text(json.dumps(record))
  checksums.write(copy / "average")
  with pytest.raises(UserError, match="average.json is not what averaging writes"):
    loading.load(copy, "average")
  assert loading.load(copy).checkpoint == "latest"


def test_an_average_of_another_run(copy):
  average_lib.average(copy, last=2)
  other = json.loads(json.dumps(CONFIG.to_dict()))
  other["train"]["label_smoothing"] = 0.3
  with pytest.raises(UserError, match="average is of a run with another config .*label_smoothing: 0.1 -> 0.3"):
    loading.load(copy, run={"config": other})
  with pytest.raises(UserError, match="average was trained on another text"):
    loading.load(copy, run={"text": "toy 9"})


def test_steps_that_training_deletes_while_they_are_read(copy, start):
  def read(directory):
    if directory.parent.name == "30":
      shutil.rmtree(copy / "checkpoints" / "30")
    return arrays.read_params(directory)

  with pytest.raises(storage.Gone, match="checkpoints/30 is gone.*config.train.keep"):
    loading.load(copy, 30, read=read)
  with pytest.raises(UserError, match=r"no checkpoint of step 30; it has \[10, 20\]"):
    loading.load(copy, 30, read=read)


def test_the_latest_is_another_one_when_training_deletes_it(copy):
  def read(directory):
    if directory.parent.name == "30":
      shutil.rmtree(copy / "checkpoints" / "30")
    return arrays.read_params(directory)

  assert loading.load(copy, "latest", read=read).steps == [20]


@pytest.mark.parametrize("name", ["²", "-1", "1e3", "", "9" * 5000, "20 "])
def test_what_is_no_step(run, name):
  with pytest.raises(UserError, match="'average', 'latest' or a step, not '"):
    loading.load(run, name)


def test_no_read_is_left_behind_when_another_fails():
  """It would print a traceback when it ends."""
  awaited = []

  class Read:
    def __init__(self, error=None):
      self.error = error

    def exception(self):
      awaited.append(self)
      return self.error

    def result(self):
      if self.error:
        raise self.error
      return 1

  reads = [Read(ValueError("gone")), Read(), Read()]
  with pytest.raises(ValueError, match="gone"):
    arrays._all(reads)
  assert awaited == reads and arrays._all(reads[1:]) == [1, 1]


def test_files_that_go_while_they_are_read_are_told_in_one_line(copy, capfd):
  """Orbax leaves its other reads behind, which print tracebacks when they end."""

  def read(directory):
    for path in (directory / "d").iterdir():
      path.unlink()
    return arrays.read_params(directory)

  with pytest.raises(UserError, match="checkpoints/30 is damaged: params/d/[0-9a-f]+ is missing"):
    loading.load(copy, 30, read=read)
  time.sleep(0.2)
  assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
  "entries", [{}, {"a": 3}, {"a": {"key_metadata": []}}, {"a": {"key_metadata": [{"key": "b"}]}}, 5]
)
def test_a_list_of_arrays_that_is_none(copy, entries):
  directory = copy / "checkpoints" / "30"
  (directory / "params" / "_METADATA").write_text(json.dumps({"tree_metadata": entries} if entries else entries))
  checksums.write(directory)
  with pytest.raises(UserError, match="_METADATA is not a list of arrays|checkpoints/30 cannot be read: NOT_FOUND"):
    loading.load(copy, 30)
