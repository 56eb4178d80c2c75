"""The records of a run: metrics.jsonl, and whoever else is told: TensorBoard, the screen. Process 0 only."""

import contextlib
import json
import math
import time

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training.display import Display
from attention_zoo.training.tensorboard import EventFile, markdown_table
from attention_zoo.training.trackers import Trackers


class Meter:
  """Adds up the sums of steps and their time; the clock starts after the first step, which compiles.

  summarize: the task's. rate: the name of the loss's weight per second.
  """

  def __init__(self, summarize, rate: str):
    self._summarize, self._rate = summarize, rate
    self._sums, self._timed_weight, self._seconds, self._start = {}, 0.0, 0.0, None

  def add(self, sums: dict) -> None:
    for name, pair in sums.items():
      before = self._sums.get(name, (0.0, 0.0))
      self._sums[name] = tuple(old + float(new) for old, new in zip(before, pair, strict=True))
    now = time.perf_counter()
    if self._start is not None:
      self._timed_weight += float(sums["loss"][1])
      self._seconds += now - self._start
    self._start = now

  def pause(self) -> None:
    """Leaves the time until the next `add` out, and the weight of that step with it."""
    self._start = None

  def take(self) -> dict:
    """The summary since the last take, with the rate where time was measured; starts anew."""
    summary = self._summarize(self._sums) if self._sums else {}
    if self._seconds:
      summary[self._rate] = self._timed_weight / self._seconds
    self._sums, self._timed_weight, self._seconds = {}, 0.0, 0.0
    return summary


class Metrics:
  """Writes records of a run to WORKDIR/metrics.jsonl and WORKDIR/tensorboard/, and shows them.

  Lines of steps after `step`, where the run resumes, are dropped, so that the curve has each step once. With
  enabled=False (every process but the first) nothing is written or shown.

  trackers: functions of (step, split, values), see `trackers.py`.
  failure: a UserError once the screen is a log on a full disk. The run can still save what it has;
  WORKDIR/error.txt says what nobody may be able to read on the screen.
  """

  def __init__(self, workdir, step: int, total_steps: int, enabled=True, quiet=False, trackers=()):
    self._enabled = enabled
    self.failure = None
    if not enabled:
      return
    workdir = epath.Path(workdir)
    self._error = workdir / "error.txt"
    self._error.unlink(missing_ok=True)
    before = _lines_until(workdir / "metrics.jsonl", step)
    self._known = {(line["step"], line["split"]) for line in map(json.loads, before.splitlines())}
    self._lines = files.Appender(workdir / "metrics.jsonl", before)
    self._events = EventFile(workdir / "tensorboard", step)
    self._display = Display(step, total_steps, quiet)
    self._trackers = Trackers(trackers, self.say)

  def write(self, step: int, split: str, values: dict) -> None:
    """One record: {'step', 'split', ...values} in the file, `split/name` in TensorBoard, a line on screen."""
    if not self._enabled:
      return
    record = {"step": step, "split": split, "time": time.time(), **values}
    finite = {name: v if math.isfinite(v) else str(v) for name, v in record.items() if isinstance(v, float)}
    self._lines.append((json.dumps(record | finite) + "\n").encode())
    self._events.scalars(step, {f"{split}/{name}": value for name, value in values.items()})
    self._show(self._display.show, step, split, values)
    self._trackers.send(step, split, values)

  def show(self, step: int, split: str, make) -> None:
    """What make() -> protocols.Examples returns, for TensorBoard: `split/samples` as text, `split/name` as images.

    Every process makes them, so that none waits for another. Where that fails, a line says so, and the run goes on.
    """
    try:
      examples = make()
    except (UserError, ValueError) as error:
      return self.say(f"no examples at step {step}: {error}")
    if self._enabled:
      if examples.samples:
        self._events.text(step, f"{split}/samples", markdown_table(examples.samples))
      for name, png_bytes in examples.figures.items():
        self._events.image(step, f"{split}/{name}", png_bytes)

  def has(self, step: int, split: str) -> bool:
    """Whether there was such a record when the run resumed. All processes must ask: the first one knows."""
    found = self._enabled and (step, split) in self._known
    return bool(multihost_utils.broadcast_one_to_all(np.int32(found))) if jax.process_count() > 1 else found

  def advance(self, step: int) -> None:
    """Moves the progress bar on; cheap."""
    if self._enabled:
      self._display.advance(step)

  def say(self, text: str) -> None:
    if self._enabled:
      self._show(self._display.print, text)

  def _show(self, show, *what) -> None:
    try:
      show(*what)
    except UserError as error:
      self.failure = error
      with contextlib.suppress(UserError):  # the same disk, perhaps
        files.write_text(self._error, f"{error}\n")

  def close(self) -> None:
    if self._enabled:
      self._display.close()
      self._lines.close()
      self._events.close()


_MOST = 1 << 30  # bytes of metrics.jsonl that are read


def _lines_until(path, step: int) -> bytes:
  """The file's whole lines up to and including this step; a line that a crash cut short is left out."""
  if not path.exists():
    return b""
  lines = files.read_bytes(path, _MOST).splitlines(keepends=True)
  kept = [line for line in lines if line.endswith(b"\n") and (record := _record(line)) and record["step"] <= step]
  return b"".join(kept)


def _record(line: bytes) -> dict | None:
  """The record that a line holds, or None."""
  try:
    record = json.loads(line)
  except (ValueError, RecursionError):
    return None
  good = isinstance(record, dict) and type(record.get("step")) is int and isinstance(record.get("split"), str)
  return record if good else None


def read_metrics(workdir) -> list[dict]:
  """The records of WORKDIR/metrics.jsonl, in order; non-finite values come back as floats.

  A last line without an end is still being written, and left out. Raises UserError for a line that is no record.
  """
  path = epath.Path(workdir) / "metrics.jsonl"
  lines = files.read_bytes(path, _MOST).splitlines(keepends=True) if path.exists() else []
  special = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
  records = []
  for number, line in enumerate(lines, 1):
    if not line.endswith(b"\n"):
      break
    if (record := _record(line)) is None:
      raise UserError(f"{path}, line {number}: not a record of a run; delete the line")
    records.append({name: special.get(v, v) if isinstance(v, str) else v for name, v in record.items()})
  return records
