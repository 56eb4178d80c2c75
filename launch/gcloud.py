"""The gcloud command: run it, run a remote command on all workers, end it properly, or only print it.

Every command is a list of arguments and reaches gcloud without a shell.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time

_live = set()  # processes that must not outlive this one


class GcloudError(RuntimeError):
  """A gcloud command failed or took too long; the message has the command and its last words."""


class Unreachable(GcloudError):
  """The service did not say what exists: an outage, mostly on this side. What exists goes on without us."""


@contextlib.contextmanager
def signals_wait():
  """Signals that Python code handles wait for the end of the block. In other threads none interrupts it."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  came, before = [], {}
  try:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
      if callable(signal.getsignal(number)):
        before[number] = signal.signal(number, lambda number, _: came.append(number))
    yield
  finally:
    for number, handler in reversed(before.items()):  # Ctrl-C last: it could come before the others are restored
      signal.signal(number, handler)
    if came:
      signal.raise_signal(max(came))  # SIGTERM before Ctrl-C


def start(command, **options):
  """Starts a command in its own session: Ctrl-C does not reach it, `stop` ends it with all its children."""
  with signals_wait():  # between the child's birth and `_live`, an interrupt would leave it to live on unknown
    try:
      process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, text=True, errors="replace", start_new_session=True, **options
      )
    except OSError as error:
      raise GcloudError(f"cannot start {command[0]}: {error}") from error
    _live.add(process)
  return process


def stop(process):
  """Ends a process from `start` with everything it started."""
  for number in (signal.SIGTERM, signal.SIGKILL):
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, number)
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(5)
      break
  _live.discard(process)


def stop_all():
  """Ends every process from `start` that still runs, also where an interrupt has skipped its `stop`."""
  for process in list(_live):
    stop(process)


class Gcloud:
  """gcloud compute tpus ... in one zone. A dry run prints commands instead, and messages as comments."""

  def __init__(self, zone, project=None, *, dry_run=False):
    self.zone, self.dry_run = zone, dry_run
    self.place = [f"--zone={zone}"] + ([f"--project={project}"] if project else [])
    self._lock = threading.Lock()

  def say(self, text):
    with self._lock:
      print("\n".join("# " + line for line in text.splitlines()) if self.dry_run else text, flush=True)

  def command(self, *arguments):
    return ["gcloud", "compute", "tpus", *arguments, *self.place]

  def show(self, command):
    with self._lock:
      print(shlex.join(command), flush=True)

  def run(self, *arguments, timeout=600):
    """Runs a command to its end and returns what it printed; raises GcloudError. Prints it in a dry run."""
    command = self.command(*arguments)
    if self.dry_run:
      self.show(command)
      return ""
    return run(command, timeout)


def run(command, timeout):
  """Runs a command to its end and returns its standard output; raises GcloudError."""
  process = start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  try:
    output, error = process.communicate(timeout=timeout)
  except subprocess.TimeoutExpired:
    raise GcloudError(f"no answer in {timeout} s from: {shlex.join(command)}") from None
  finally:
    stop(process)
  if process.returncode:
    raise GcloudError(f"exit code {process.returncode} from: {shlex.join(command)}\n{error.strip()[-2000:]}")
  return output


class Everywhere:
  """One remote command on all workers: one gcloud process per slice; lines are collected, shown if wished."""

  def __init__(self, gcloud, nodes, remote, *, show):
    self.lines = []
    self._gcloud, self._show, self._processes = gcloud, show, {}
    for node in nodes:
      command = gcloud.command("tpu-vm", "ssh", node, "--worker=all", "--quiet", f"--command={remote}")
      if gcloud.dry_run:
        gcloud.show(command)
        continue
      process = start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
      reader = threading.Thread(target=self._read, args=(node, process), daemon=True)
      reader.start()
      self._processes[node] = process, reader, command

  def _read(self, node, process):
    for line in process.stdout:
      self.lines.append((node, line.rstrip("\n")))
      if self._show:
        self._gcloud.say(f"{node} {line.rstrip()}")

  def running(self):
    """Whether the connections to all slices hold."""
    return all(process.poll() is None for process, _, _ in self._processes.values())

  def drain(self, timeout):
    """Gives all slices up to `timeout` seconds to end by themselves."""
    deadline = time.monotonic() + timeout
    for process, _, _ in self._processes.values():
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0, deadline - time.monotonic()))

  def wait(self, timeout):
    """Waits for all slices; raises GcloudError if one failed or `timeout` seconds passed."""
    deadline = time.monotonic() + timeout
    try:
      for node, (process, reader, command) in self._processes.items():
        try:
          code = process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
          raise GcloudError(f"no answer in {timeout} s from: {shlex.join(command)}") from None
        reader.join(5)
        if code:
          last = "\n".join([line for at, line in self.lines if at == node][-10:])
          raise GcloudError(f"exit code {code} from: {shlex.join(command)}\n{last}")
    finally:
      self.stop()
    return self.lines

  def stop(self):
    for process, reader, _ in self._processes.values():
      stop(process)
      reader.join(5)
