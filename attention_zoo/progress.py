"""Progress bars and tables of the entry points; on standard error, so that output can be piped."""

import contextlib

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


def table(title, rows):
  """Prints (name, value, note) rows."""
  out = Table(title=title, title_justify="left", show_header=False)
  for column in ("name", "value", "note"):
    out.add_column(column, overflow="fold")
  for row in rows:
    out.add_row(*row)
  Console(soft_wrap=False).print(out)
