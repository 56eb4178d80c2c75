import sys

import pytest

from attention_zoo.errors import UserError
from attention_zoo.training import metrics, trackers
from attention_zoo.training.loop import train
from tests.training import toy_task


def test_every_record_is_handed_on_and_an_error_is_told_once(tmp_path, capsys):
  seen = []

  def broken(step, split, values):
    values.clear()
    raise ConnectionError("no network")

  config = toy_task.make_config(**{"train.steps": 4, "train.eval_every": 4})
  train(toy_task.ToyTask(config), config, tmp_path, trackers=[broken, lambda *record: seen.append(record)])
  records = metrics.read_metrics(tmp_path)
  kept = [(r["step"], r["split"], {k: v for k, v in r.items() if k not in ("step", "split", "time")}) for r in records]
  assert seen == kept and [step for step, _, _ in seen] == [2, 4, 4]
  told = [line for line in capsys.readouterr().err.splitlines() if "tracker" in line]
  assert len(told) == 1 and "broken failed at step 2, and may again: ConnectionError: no network" in told[0]


def test_trackers_are_found_by_name(tmp_path, monkeypatch):
  (tmp_path / "my_tracker.py").write_text("def log(step, split, values): return step\nnumber = 3\n")
  (tmp_path / "my_broken_tracker.py").write_text("1 / 0\n")
  monkeypatch.syspath_prepend(tmp_path)
  assert trackers.load("my_tracker:log")(3, "dev", {}) == 3
  for name, reason in {
    "my_tracker": "AttributeError",
    "my_tracker:nothing": "AttributeError",
    "my_tracker:number": "number is not a function",
    "no_such_module:log": "ModuleNotFoundError",
    ":log": "ValueError",
    "my_broken_tracker:log": "ZeroDivisionError",
  }.items():
    with pytest.raises(UserError, match=f"--tracker={name}: .*{reason}"):
      trackers.load(name)
  sys.modules.pop("my_tracker")
