"""Progress bars, on standard error so that output can be piped, and tables of the entry points."""

import contextlib
import io
import sys
import threading
import time

from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeElapsedColumn,
  TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text


class _Dispensable(io.TextIOBase):
  """A stream whose text may be lost: a log on a full disk must not cost the work."""

  def __init__(self, stream):
    self._stream = stream

  def isatty(self):
    return self._stream.isatty()

  def write(self, text):
    with contextlib.suppress(OSError):
      self._stream.write(text)
    return len(text)

  def flush(self):
    with contextlib.suppress(OSError):
      self._stream.flush()


@contextlib.contextmanager
def bar(title):
  """Yields a function to call with the number of items just done and of all items."""
  columns = (
    TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
    TimeElapsedColumn(), TimeRemainingColumn(),
  )  # fmt: skip
  console = Console(file=_Dispensable(sys.stderr))
  # Into a file nothing is drawn; Rich would leave an empty line there.
  with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
    task = progress.add_task(title, total=None, rate="")

    def report(count, total):
      progress.update(task, total=total)
      progress.advance(task, count)
      speed = progress.tasks[0].speed
      progress.update(task, rate=f"{speed:.1f}/s" if speed else "")

    yield report


@contextlib.contextmanager
def phase(name, estimate=None, every=30.0):
  """Says on standard error what goes on, and for how long: a moving line on a terminal, else one each `every` seconds.

  estimate: the processor's seconds that it may take, if anything is known of them; what is left of them is told as the
  time that it takes on a machine as busy as this one is.
  """
  console = Console(file=_Dispensable(sys.stderr), highlight=False)
  start, spent = time.monotonic(), time.process_time()

  def line():
    elapsed, used = time.monotonic() - start, time.process_time() - spent
    left = ""
    if estimate and used > 1:
      left = f", about {_clock(elapsed * (estimate / used - 1))} left" if used < estimate else ", longer than expected"
    return f"{name}: {_clock(elapsed)}{left}"

  def tell():
    if console.is_terminal:
      with console.status("") as status:
        while not ended.wait(1.0):
          status.update(line())
      return
    while not ended.wait(every):
      console.print(line())

  ended = threading.Event()
  teller = threading.Thread(target=tell, daemon=True)
  if estimate:
    console.print(f"{name} may take {_clock(estimate)} of one processor")
  teller.start()
  try:
    yield
  finally:
    ended.set()
    teller.join()
  console.print(f"{name}: {_clock(time.monotonic() - start)}")


def _clock(seconds):
  """1:05 for 65 seconds."""
  return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def table(title, rows) -> str:
  """(name, value, note) rows as lines under a title. No line is broken, so that what is in one can be copied."""
  out = Table(title=Text(title), title_justify="left", show_header=False, box=None, pad_edge=False)
  for column in ("name", "value", "note"):
    out.add_column(column, no_wrap=True)
  for row in rows:
    out.add_row(*map(Text, row))
  console = Console(file=io.StringIO(), width=10_000)
  console.width = max(Measurement.get(console, console.options, out).maximum, len(title))
  console.print(out)
  return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())
