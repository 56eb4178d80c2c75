"""What a run says while it runs: metrics.jsonl, TensorBoard event files, a progress line. Process 0 only."""

import contextlib
import json
import math
import struct
import sys
import time

import jax
import numpy as np
import rich.console
import rich.progress
from etils import epath
from jax.experimental import multihost_utils

from attention_zoo import files
from attention_zoo.errors import UserError


def summarize(sums: dict) -> dict:
  """Means over the weight: sums loss, nll, correct, weight -> loss, nll, perplexity, accuracy, weight.

  perplexity is exp(nll), or exp(loss) where no nll is given; other sums become means under their own name.
  """
  weight = float(sums["weight"])
  means = {
    name: float(value) / weight if weight else math.nan for name, value in sums.items() if name != "weight"
  }
  if "correct" in means:
    means["accuracy"] = means.pop("correct")
  entropy = means.get("nll", means.get("loss", math.nan))
  means["perplexity"] = math.exp(entropy) if entropy < 700 else math.inf if entropy >= 700 else math.nan
  return means | {"weight": weight}


class Meter:
  """Adds up the sums of steps and their time; the clock starts after the first step, which compiles."""

  def __init__(self):
    self._sums, self._timed_weight, self._seconds, self._start = {}, 0.0, 0.0, None

  def add(self, sums: dict) -> None:
    for name, value in sums.items():
      self._sums[name] = self._sums.get(name, 0.0) + float(value)
    now = time.perf_counter()
    if self._start is not None:
      self._timed_weight += float(sums["weight"])
      self._seconds += now - self._start
    self._start = now

  def pause(self) -> None:
    """Leaves the time until the next `add` out, and the weight of that step with it."""
    self._start = None

  def take(self) -> dict:
    """The summary since the last take, with tokens_per_second where time was measured; starts anew."""
    summary = summarize(self._sums) if self._sums else {}
    if self._seconds:
      summary["tokens_per_second"] = self._timed_weight / self._seconds
    self._sums, self._timed_weight, self._seconds = {}, 0.0, 0.0
    return summary


class Metrics:
  """Writes records of a run to WORKDIR/metrics.jsonl and WORKDIR/tensorboard/, and shows them.

  Lines of steps after `step`, where the run resumes, are dropped, so that the curve has each step once. With
  enabled=False (every process but the first) nothing is written or shown.
  """

  def __init__(self, workdir, step: int, total_steps: int, enabled=True, quiet=False):
    self._enabled = enabled
    if not enabled:
      return
    workdir = epath.Path(workdir)
    before = _lines_until(workdir / "metrics.jsonl", step)
    self._known = {(line["step"], line["split"]) for line in map(json.loads, before.splitlines())}
    self._lines = _Appender(workdir / "metrics.jsonl", before)
    self._events = EventFile(workdir / "tensorboard", step)
    self._progress = _Progress(step, total_steps, quiet)

  def write(self, step: int, split: str, values: dict) -> None:
    """One record: {'step', 'split', ...values} in the file, `split/name` in TensorBoard, a line on screen."""
    if not self._enabled:
      return
    record = {"step": step, "split": split, "time": time.time(), **values}
    finite = {name: v if math.isfinite(v) else str(v) for name, v in record.items() if isinstance(v, float)}
    self._lines.append((json.dumps(record | finite) + "\n").encode())
    self._events.scalars(step, {f"{split}/{name}": value for name, value in values.items()})
    self._progress.show(step, split, values)

  def has(self, step: int, split: str) -> bool:
    """Whether there was such a record when the run resumed. All processes must ask: the first one knows."""
    found = self._enabled and (step, split) in self._known
    return bool(multihost_utils.broadcast_one_to_all(np.int32(found))) if jax.process_count() > 1 else found

  def advance(self, step: int) -> None:
    """Moves the progress bar on; cheap."""
    if self._enabled:
      self._progress.advance(step)

  def say(self, text: str) -> None:
    if self._enabled:
      self._progress.print(text)

  def close(self) -> None:
    if self._enabled:
      self._progress.close()
      self._lines.close()
      self._events.close()


@contextlib.contextmanager
def _writing(path):
  try:
    yield
  except OSError as error:
    if "://" in str(path) and error.errno is None:
      raise  # a bucket out of reach, perhaps not for long
    raise UserError(f"cannot write {path}: {error.strerror or error}") from error


class _Appender:
  """A file that grows. Object stores cannot append: there the whole, which is small, is written again."""

  def __init__(self, path, start=b""):
    self._path, self._remote = epath.Path(path), "://" in str(path)
    self._bytes = start
    with _writing(path):
      self._path.parent.mkdir(parents=True, exist_ok=True)
      if not self._remote:
        files.write_bytes(self._path, start)
        self._file = open(self._path, "ab")

  def append(self, data: bytes) -> None:
    with _writing(self._path):
      if self._remote:
        self._bytes += data
        self._path.write_bytes(self._bytes)
      else:
        self._file.write(data)
        self._file.flush()

  def close(self) -> None:
    if not self._remote:
      with contextlib.suppress(OSError):  # of what could not be written, which `append` has told
        self._file.close()


def _lines_until(path, step: int) -> bytes:
  """The file's whole lines up to and including this step; a line that a crash cut short is left out."""
  if not path.exists():
    return b""
  kept = []
  for line in path.read_bytes().splitlines(keepends=True):
    try:
      if line.endswith(b"\n") and json.loads(line)["step"] <= step:
        kept.append(line)
    except (ValueError, KeyError):
      continue
  return b"".join(kept)


def read_metrics(workdir) -> list[dict]:
  """The records of WORKDIR/metrics.jsonl, in order; non-finite values come back as floats."""
  path = epath.Path(workdir) / "metrics.jsonl"
  records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
  special = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
  return [
    {name: special.get(v, v) if isinstance(v, str) else v for name, v in record.items()} for record in records
  ]


# TensorBoard's file format is a TFRecord file of Event protocol buffers. Scalars need five fields of it.


def _crc_table() -> list[int]:
  table = []
  for byte in range(256):
    for _ in range(8):
      byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    table.append(byte)
  return table


_CRC_TABLE = _crc_table()


def _masked_crc32c(data: bytes) -> bytes:
  crc = 0xFFFFFFFF
  for byte in data:
    crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
  crc ^= 0xFFFFFFFF
  return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(number: int) -> bytes:
  number &= (1 << 64) - 1
  digits = []
  while number >= 128:
    digits.append(number & 127 | 128)
    number >>= 7
  return bytes((*digits, number))


def _message(number: int, content: bytes) -> bytes:
  """A length-delimited field: a string or a message inside a message."""
  return _varint(number << 3 | 2) + _varint(len(content)) + content


def _float32(value: float) -> bytes:
  try:
    return struct.pack("<f", value)
  except OverflowError:  # the perplexity of a loss above 88.7
    return struct.pack("<f", math.copysign(math.inf, value))


class EventFile:
  """A TensorBoard event file of scalars, written without TensorFlow.

  step: where the run resumes; TensorBoard then drops what older files say about later steps.
  """

  def __init__(self, directory, step: int):
    directory = epath.Path(directory)
    with _writing(directory):
      directory.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads files in the order of their names: the next number, even if the clock was set back.
    numbers = [int(path.name.split(".")[3]) for path in directory.glob("events.out.tfevents.*.*")]
    number = max([int(time.time()), *(n + 1 for n in numbers)])
    self._file = _Appender(directory / f"events.out.tfevents.{number:010d}.attention_zoo")
    self._event(0, _message(3, b"brain.Event:2"))
    self._event(step + 1, _message(7, b"\x08\x01"))  # SessionLog.START

  def _event(self, step: int, content: bytes) -> None:
    data = b"\x09" + struct.pack("<d", time.time()) + b"\x10" + _varint(step) + content
    length = struct.pack("<Q", len(data))
    self._file.append(length + _masked_crc32c(length) + data + _masked_crc32c(data))

  def scalars(self, step: int, values: dict) -> None:
    summary = b"".join(
      _message(1, _message(1, name.encode()) + b"\x15" + _float32(value))
      for name, value in values.items()
    )
    self._event(step, _message(5, summary))

  def close(self) -> None:
    self._file.close()


def describe(values: dict) -> str:
  """'loss 3.21  perplexity 20.4  ...' in the order in which it is read."""
  formats = {
    "loss": "loss {:.4f}",
    "perplexity": "perplexity {:.5g}",
    "accuracy": "accuracy {:.3f}",
    "tokens_per_second": "{:,.0f} tokens/s",
    "nonfinite": "{:.0f} non-finite steps skipped",
  }
  shown = (name for name in formats if name in values and not (name == "nonfinite" and not values[name]))
  return "  ".join(formats[name].format(values[name]) for name in shown)


class _Progress:
  """One live line on a terminal; elsewhere a plain line for each record."""

  def __init__(self, step: int, total_steps: int, quiet: bool):
    self._console = rich.console.Console(file=sys.stderr, quiet=quiet)
    self._total, self._first = total_steps, None
    self._bar = None
    if self._console.is_terminal and not quiet:
      self._bar = rich.progress.Progress(
        rich.progress.TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.description}"),
        rich.progress.TimeRemainingColumn(elapsed_when_finished=True),
        console=self._console,
      )
      self._bar.start()
      self._task = self._bar.add_task("compiling", total=total_steps, completed=step)

  def print(self, text: str) -> None:
    with _writing("standard error"):  # a log on a disk that is full
      self._console.print(text, markup=False, highlight=False, soft_wrap=True)

  def advance(self, step: int) -> None:
    # The first step took compilation along: time left is measured from its end.
    self._first = self._first or (step, time.perf_counter())
    if self._bar:
      self._bar.update(self._task, completed=step)

  def show(self, step: int, split: str, values: dict) -> None:
    if self._bar and split == "train":
      self._bar.update(self._task, description=describe(values))
      return
    left = ""
    if split == "train" and self._first and step > self._first[0]:
      seconds = (time.perf_counter() - self._first[1]) / (step - self._first[0]) * (self._total - step)
      left = f"  {int(seconds // 3600)}:{int(seconds // 60) % 60:02d}:{int(seconds) % 60:02d} left"
    self.print(
      f"step {step}/{self._total}  {'' if split == 'train' else split + '  '}{describe(values)}{left}"
    )

  def close(self) -> None:
    if self._bar:
      self._bar.stop()
