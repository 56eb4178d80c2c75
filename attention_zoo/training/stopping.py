"""What tells a run to stop, and the exit code that it then ends with.

SIGTERM announces that a TPU host, Slurm or Kubernetes will take the machine away (75, EX_TEMPFAIL: start again); Ctrl-C
is SIGINT (130) and a closed terminal SIGHUP (129): the user stopped it.
The first signal saves; a second Ctrl-C does not.
"""

import contextlib
import os
import signal
import sys
import threading

EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGHUP: 129}
SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it


class Told:
  """code: the exit code to end with, 0 while nobody has told the run to stop.

  Before `begun`, while there is nothing to save, a signal ends the process at once.
  """

  code = 0
  begun = False


class Stopped(SystemExit):
  """The run was told to stop; the state is saved."""


@contextlib.contextmanager
def listen():
  """Yields a Told. Only the main thread can listen; elsewhere nobody tells it anything.

  Signals that are ignored stay so: nohup, and the background of a shell. In an interactive Python a Ctrl-C that saves
  nothing is a KeyboardInterrupt and does not end the process.
  """
  told = Told()
  if threading.current_thread() is not threading.main_thread():
    yield told
    return
  interactive = hasattr(sys, "ps1")
  heard = [number for number in EXIT_CODES if signal.getsignal(number) != signal.SIG_IGN]
  reader, writer = os.pipe()
  os.set_blocking(writer, False)

  def handle(number, _):
    """Raises nothing in a program: an exception in the middle of a callback of XLA would be swallowed there."""
    pressed, told.code = told.code == 130, EXIT_CODES[number]
    if interactive and number == signal.SIGINT and (pressed or not told.begun):
      raise KeyboardInterrupt

  def watch():
    # Python calls its handlers between two of its own instructions, and there are long ones: waiting for other
    # processes, learning a vocabulary, compiling. Schedulers kill after about 30 s.
    pressed = 0
    while data := os.read(reader, 1):
      if (number := data[0]) not in heard:
        continue
      pressed += number == signal.SIGINT
      if interactive and number == signal.SIGINT:
        continue
      if not told.begun:
        _end(number, b"told to stop before the first step: there is nothing new to save")
      if number == signal.SIGINT and pressed > 1:
        _end(number, b"stopped at once: what came after the last checkpoint is not saved")
      if number == signal.SIGINT and os.isatty(2):
        _say(b"saving; Ctrl-C once more ends at once, without saving")
    os.close(reader)

  previous = {number: signal.signal(number, handle) for number in heard}
  previous_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  threading.Thread(target=watch, daemon=True).start()
  try:
    yield told
  finally:
    signal.set_wakeup_fd(previous_writer, warn_on_full_buffer=False)
    for number, handler in previous.items():
      signal.signal(number, handler)
    os.close(writer)


def _say(line: bytes):
  with contextlib.suppress(OSError):
    os.write(2, line + b"\n")


def _end(number, line: bytes):
  _say((SHOW_CURSOR + b"\n" if os.isatty(2) else b"") + line)
  os._exit(EXIT_CODES[number])
