"""SIGTERM, by which TPU hosts, Slurm and Kubernetes announce that they will take a machine away."""

import contextlib
import os
import signal
import threading


class Terminated(threading.Event):
  """Set by SIGTERM. Before `begun`, while there is nothing to save, SIGTERM ends the process at once."""

  begun = False


@contextlib.contextmanager
def listen():
  """Yields a Terminated. Only the main thread can listen; elsewhere it stays unset."""
  event = Terminated()
  if threading.current_thread() is not threading.main_thread():
    yield event
    return
  reader, writer = os.pipe()
  os.set_blocking(writer, False)

  def watch():
    # Python calls its handlers between two of its own instructions, and before the first step there are long ones:
    # waiting for other processes, learning a vocabulary, compiling. Those who ask give half a minute.
    while number := os.read(reader, 1):
      if number[0] == signal.SIGTERM and not event.begun:
        os.write(2, b"told to stop before the first step: there is nothing new to save\n")
        os._exit(75)
    os.close(reader)

  previous = signal.signal(signal.SIGTERM, lambda *_: event.set())
  previous_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  threading.Thread(target=watch, daemon=True).start()
  try:
    yield event
  finally:
    signal.set_wakeup_fd(previous_writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, previous)
    os.close(writer)
