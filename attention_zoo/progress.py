"""Progress bars and tables of the entry points; on standard error, so that output can be piped."""

import contextlib
import threading
import time

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeElapsedColumn,
  TimeRemainingColumn,
)
from rich.table import Table


@contextlib.contextmanager
def bar(title, total=None):
  """Yields a function that takes the number of items just done."""
  columns = (
    TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
    TimeElapsedColumn(), TimeRemainingColumn(),
  )  # fmt: skip
  with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
    task = progress.add_task(title, total=total, rate="")

    def report(count):
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
  console = Console(stderr=True, highlight=False)
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


def table(title, rows):
  """Prints (name, value, note) rows."""
  out = Table(title=title, title_justify="left", show_header=False)
  for column in ("name", "value", "note"):
    out.add_column(column, overflow="fold")
  for row in rows:
    out.add_row(*row)
  Console(soft_wrap=False).print(out)
