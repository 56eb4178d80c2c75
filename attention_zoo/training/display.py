"""What a run shows on standard error: one live line on a terminal, elsewhere a plain line for each record."""

import contextlib
import errno
import os
import sys
import time

import rich.console
import rich.progress

from attention_zoo import files

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def describe(values: dict) -> str:
  """'loss 3.21  perplexity 20.4  ...': what a summary says of quality, then the rate and what was skipped."""
  silent = ("weight", "gradient_norm", "learning_rate", "nonfinite", "nll")
  rates = [name for name in values if name.endswith("_per_second")]
  shown = [f"{name} {value:.5g}" for name, value in values.items() if name not in (*silent, *rates)]
  shown.sort(key=lambda text: not text.startswith("loss "))
  shown += [f"{values[name]:,.0f} {name.removesuffix('_per_second')}/s" for name in rates]
  if values.get("nonfinite"):
    shown.append(f"{values['nonfinite']:.0f} non-finite steps skipped")
  return "  ".join(shown)


class _Console(rich.console.Console):
  def on_broken_pipe(self):
    """Called while the error is being handled; Rich would end the program."""
    raise


class Display:
  """One live line on a terminal; elsewhere a plain line for each record.

  A reader that goes away (`train 2>&1 | head -1`, a terminal that is closed) does not stop the run:
  from then on nothing is shown. A log on a full disk is a UserError.
  """

  def __init__(self, step: int, total_steps: int, quiet: bool):
    quiet = quiet or sys.stderr is None  # closed by the caller
    self._console = _Console(file=sys.stderr, quiet=quiet)
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
    try:
      self._console.print(text, markup=False, highlight=False, soft_wrap=True)
    except BlockingIOError:
      pass  # a slow reader misses a line
    except OSError as error:
      if error.errno in _FULL:
        with files.writing("standard error"):
          raise
      self._console.quiet = True
      with contextlib.suppress(OSError, ValueError):  # what Python holds back would fail once more when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())

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
      with contextlib.suppress(OSError):
        self._bar.stop()
