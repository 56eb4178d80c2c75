"""The work directory of a run: what may be in the way, what lies elsewhere, what was left behind or edited."""

import os

import pytest

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training import checkpoints
from attention_zoo.training import workdir as workdir_lib
from attention_zoo.training.loop import train
from tests.training import toy_task


def run(workdir, task=None, **changes):
  config = toy_task.make_config(**changes)
  return train(task or toy_task.ToyTask(config), config, workdir, quiet=True)


def test_a_run_that_was_taken_over_from_saves_nothing_more(tmp_path):
  class Suspended(toy_task.ToyTask):
    def batch(self, step):
      if step == 7:
        (tmp_path / "lock.json").write_text('{"token": "another", "pid": 12, "host": "node7"}')
      return super().batch(step)

  config = toy_task.make_config(**{"train.steps": 20, "train.checkpoint_every": 5})
  with pytest.raises(UserError, match="taken over by process 12 on node7"):
    train(Suspended(config), config, tmp_path, quiet=True)
  assert checkpoints.steps(tmp_path) == [5]


@pytest.mark.parametrize("steps", [4, 2])
def test_where_nothing_is_left_to_do_that_is_told_and_nothing_changes(tmp_path, capsys, steps):
  run(tmp_path, **{"train.steps": 4})
  config = (tmp_path / "config.json").read_text()
  changed = toy_task.make_config(**{"train.steps": steps})
  train(toy_task.ToyTask(changed), changed, tmp_path)
  assert (tmp_path / "config.json").read_text() == config
  told = capsys.readouterr().err
  assert told == f"nothing to do: step 4 is trained already, and config.train.steps = {steps}\n"


@pytest.mark.parametrize("name", ["checkpoints", "damaged", "data", "eval", "tensorboard"])
def test_a_file_where_a_folder_is_to_be(tmp_path, name):
  (tmp_path / name).write_text("mine")
  with pytest.raises(UserError, match=f"{name} is in the way of a folder"):
    run(tmp_path)
  assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")])
@pytest.mark.parametrize("name", workdir_lib.FILES)
def test_something_else_where_a_file_is_to_be(tmp_path, name, make):
  """Whoever opens a pipe waits for its other end."""
  make(tmp_path / name)
  with pytest.raises(UserError, match=f"{name} is in the way of a file of that name: move it elsewhere"):
    run(tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == [name]


def test_files_that_lie_elsewhere(tmp_path):
  (tmp_path / "run").mkdir()
  for name in ("config.json", "metrics.jsonl"):
    (tmp_path / "run" / name).symlink_to(tmp_path / name)
  for steps in (1, 2):
    run(tmp_path / "run", **{"train.steps": steps})
  assert (tmp_path / "run" / "config.json").is_symlink() and (tmp_path / "metrics.jsonl").read_text()


def test_what_a_killed_process_left_is_cleared(tmp_path):
  for name in (".config.json", ".tokenizer.model", "data/.a", "eval/.dev-latest.json"):
    files.write_text(tmp_path / f"{name}.0123456789ab.tmp", "half")
  run(tmp_path, **{"train.steps": 1})
  assert not list(tmp_path.glob("**/.*.tmp"))


def test_a_config_json_that_was_edited(tmp_path):
  """The checkpoint knows with which seed it was trained."""
  run(tmp_path, **{"train.steps": 2})
  path = tmp_path / "config.json"
  path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
  with pytest.raises(UserError, match="checkpoints/2 is of a run with another config .*train.seed: 0 -> 1"):
    run(tmp_path, **{"train.steps": 3, "train.seed": 1, "data.seed": 1})
  assert checkpoints.steps(tmp_path) == [2]
