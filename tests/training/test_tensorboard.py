import math
import struct

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from attention_zoo.training import metrics as metrics_lib
from attention_zoo.training import tensorboard


def test_tensorboard_reads_the_events(tmp_path):
  metrics = metrics_lib.Metrics(tmp_path, 0, 4, quiet=True)
  for step in (1, 2, 300):
    metrics.write(step, "train", {"loss": 1.0 / step, "perplexity": math.inf})
  metrics.close()
  metrics = metrics_lib.Metrics(tmp_path, 2, 4, quiet=True)
  metrics.write(3, "train", {"loss": 0.25})
  metrics.close()
  assert len(list((tmp_path / "tensorboard").iterdir())) == 2
  events = EventAccumulator(str(tmp_path / "tensorboard"))
  events.Reload()
  assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1.0), (2, 0.5), (3, 0.25)]
  assert events.Scalars("train/perplexity")[0].value == math.inf


def test_values_that_tensorboard_cannot_hold(tmp_path):
  log = metrics_lib.Metrics(tmp_path, 0, 9, quiet=True)
  log.write(1, "dev", {"perplexity": math.exp(100), "low": -1e300})
  log.close()
  assert metrics_lib.read_metrics(tmp_path)[0]["perplexity"] == math.exp(100)
  (path,) = (tmp_path / "tensorboard").iterdir()
  assert all(struct.pack("<f", value) in path.read_bytes() for value in (math.inf, -math.inf))


def test_a_clock_set_back_keeps_the_order(tmp_path, monkeypatch):
  monkeypatch.setattr(tensorboard.time, "time", lambda: 2000.0)
  tensorboard.EventFile(tmp_path, 0).close()
  monkeypatch.setattr(tensorboard.time, "time", lambda: 1000.0)
  tensorboard.EventFile(tmp_path, 5).close()
  names = sorted(path.name for path in tmp_path.iterdir())
  assert [name.split(".")[3] for name in names] == ["0000002000", "0000002001"]
