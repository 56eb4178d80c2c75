"""A progress line for what takes longer than ten seconds."""

import time
from collections.abc import Iterable, Iterator

_AFTER = 10  # seconds
_EVERY = 20_000  # items


def counted(items: Iterable, title: str) -> Iterator:
  """Passes `items` on; from the tenth second on, shows on standard error how many there have been."""
  start, bar = time.monotonic(), None
  try:
    for count, item in enumerate(items):
      if count % _EVERY == 0 and time.monotonic() - start > _AFTER:
        if bar is None:
          bar = _bar()
          task = bar.add_task(title, total=None)
          bar.start()
        bar.update(task, completed=count)
      yield item
  finally:
    if bar is not None:
      bar.stop()


def _bar():
  from rich import console, progress

  text = progress.TextColumn("{task.description}: {task.completed:,}")
  columns = (progress.SpinnerColumn(), text, progress.TimeElapsedColumn())
  return progress.Progress(*columns, console=console.Console(stderr=True), transient=True)
