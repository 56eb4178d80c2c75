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

  estimate: the seconds that it may take, if anything is known of them.
  """
  console = Console(stderr=True, highlight=False)
  start = time.monotonic()
  about = f" of about {_clock(estimate)}" if estimate and estimate >= 10 else ""

  def elapsed():
    return f"{name}: {_clock(time.monotonic() - start)}"

  def tell():
    if console.is_terminal:
      with console.status("") as status:
        while not ended.wait(1.0):
          status.update(elapsed() + about)
      return
    while not ended.wait(every):
      console.print(elapsed() + about)

  ended = threading.Event()
  teller = threading.Thread(target=tell, daemon=True)
  if about and not console.is_terminal:
    console.print(f"{name}, about {_clock(estimate)}")
  teller.start()
  try:
    yield
  finally:
    ended.set()
    teller.join()
  console.print(elapsed())


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
