import json
import math

import pytest

from attention_zoo.errors import UserError
from attention_zoo.training import metrics as metrics_lib


def test_meter_leaves_compilation_and_pauses_out(monkeypatch):
  clock = iter([100.0, 101.0, 500.0, 502.0])
  monkeypatch.setattr(metrics_lib.time, "perf_counter", lambda: next(clock))
  summarize = lambda sums: {name: sum / weight for name, (sum, weight) in sums.items()}
  meter = metrics_lib.Meter(summarize, "pixels_per_second")
  sums = {"loss": (2.0, 4.0), "hits": (1.0, 1.0)}
  meter.add(sums)  # the clock starts
  meter.add(sums)  # 1 second for 4
  meter.pause()
  meter.add(sums)
  meter.add({"loss": (10.0, 8.0), "hits": (0.0, 1.0)})  # 2 seconds for 8
  assert meter.take() == {"loss": 0.8, "hits": 0.75, "pixels_per_second": 4.0}
  assert meter.take() == {}


def test_records_and_resume(tmp_path):
  metrics = metrics_lib.Metrics(tmp_path, 0, 4, quiet=True)
  for step in (1, 2, 3):
    metrics.write(step, "train", {"loss": 1.0 / step})
  metrics.write(3, "dev", {"loss": math.nan})
  metrics.close()
  with open(tmp_path / "metrics.jsonl", "a") as file:
    file.write('{"step": 1, "spl')  # a crash in the middle of a line
  metrics = metrics_lib.Metrics(tmp_path, 2, 4, quiet=True)
  metrics.write(3, "train", {"loss": 0.5})
  metrics.write(3, "dev", {"loss": math.nan})
  metrics.close()
  records = metrics_lib.read_metrics(tmp_path)
  assert [(r["step"], r["split"]) for r in records] == [(1, "train"), (2, "train"), (3, "train"), (3, "dev")]
  assert records[2]["loss"] == 0.5 and math.isnan(records[3]["loss"])
  for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
    json.loads(line, parse_constant=pytest.fail)  # strict JSON: no NaN


def test_a_full_disk_is_told_and_not_raised_again(tmp_path):
  metrics = metrics_lib.Metrics(tmp_path, 0, 4, quiet=True)
  metrics._lines._file.close()
  metrics._lines._file = open("/dev/full", "ab")
  with pytest.raises(UserError, match="cannot write .*/metrics.jsonl: No space left on device"):
    metrics.write(1, "train", {"loss": 1.0})
  metrics.close()


@pytest.mark.parametrize(
  "line", [b"\xff", b"{", b"[1]", b"7", b'{"step": "1", "split": "dev"}', b'{"step": 1}', b"[" * 10**5]
)
def test_lines_that_are_no_records(tmp_path, line):
  """They are named to who reads them; a run that resumes writes its file anew without them."""
  path = tmp_path / "metrics.jsonl"
  good = b'{"step": 1, "split": "dev", "loss": "nan"}\n'
  path.write_bytes(good + line + b"\n" + good)
  with pytest.raises(UserError, match=r"metrics.jsonl, line 2: not a record"):
    metrics_lib.read_metrics(tmp_path)
  metrics_lib.Metrics(tmp_path, 1, 4, quiet=True).close()
  assert path.read_bytes() == good * 2
  path.write_bytes(good + line)  # still being written
  assert len(metrics_lib.read_metrics(tmp_path)) == 1


def test_what_is_no_file_is_told(tmp_path):
  (tmp_path / "metrics.jsonl").mkdir()
  with pytest.raises(UserError, match="metrics.jsonl"):
    metrics_lib.Metrics(tmp_path, 0, 4, quiet=True)


def test_other_processes_write_nothing(tmp_path):
  metrics = metrics_lib.Metrics(tmp_path, 0, 4, enabled=False)
  metrics.write(1, "train", {"loss": 1.0})
  metrics.advance(1)
  metrics.say("hello")
  metrics.close()
  assert list(tmp_path.iterdir()) == []


def test_examples_that_cannot_be_made_do_not_stop_a_run(tmp_path, capsys):
  def fail():
    raise UserError("the model's logits are not finite")

  metrics = metrics_lib.Metrics(tmp_path, 0, 4)
  metrics.show(2, "dev", fail)
  metrics.close()
  assert "no examples at step 2: the model's logits are not finite" in capsys.readouterr().err
