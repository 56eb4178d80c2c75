"""Runs rows: each a training and an evaluation in processes of their own, as many side by side as there are slots."""

import collections
import contextlib
import errno
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

from attention_zoo.errors import UserError
from launch import ablation_grid, ablation_rows, restart

FAILURES = 3  # deaths by a signal in a row, without a newer checkpoint
FULL = re.compile(r"No space left on device|Disk quota exceeded|it takes [\d,]+ bytes and [\d,]+ are free")
FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)


def commands(row, seed, grid, directory, cache):
  """[training, evaluation] as lists of arguments."""
  config = ablation_rows.file_of(row)
  with contextlib.suppress(ValueError):
    config = config.relative_to(pathlib.Path.cwd())  # shorter to read
  python = [sys.executable, "-m"]
  flags = ablation_rows.flags(row, grid.fields, seed, cache)
  return [
    [*python, "attention_zoo.train", f"--config={config}", f"--workdir={directory}", *flags],
    [*python, "attention_zoo.evaluate", f"--workdir={directory}", "--checkpoint=latest", "--split=dev"],
  ]


class Job:
  """One row with one seed: its processes, one after the other. hardware: what this machine is."""

  def __init__(self, grid, row, seed, hardware=""):
    self.grid, self.row, self.seed = grid, row, seed
    self.directory = grid.directory(row, seed)
    self.train, self.evaluate = commands(row, seed, grid, self.directory, grid.cache)
    self.steps = ablation_rows.row_fields(row, grid.fields)["train.steps"]
    self.process = self.slot = None
    self.state = "waiting"
    self.here = hardware
    self.hardware = (ablation_grid.read_json(self.directory / "row.json") or {}).get("hardware", [])
    newest = restart.newest_checkpoint(str(self.directory))
    self.attempts = restart.Attempts(FAILURES, newest)

  @property
  def name(self):
    return self.row if self.seed == 0 else f"{self.row} seed {self.seed}"

  @property
  def result(self):
    return ablation_grid.result(self.directory, self.steps)

  @property
  def log(self):
    return self.directory / "log.txt"

  @property
  def has_begun(self):
    """Whether vocabulary and tokenised text are there for others to use."""
    cached = self.grid.cache.is_dir() and any(not p.name.startswith(".") for p in self.grid.cache.iterdir())
    return cached and (self.directory / "text.json").exists()

  def note(self, status, message=""):
    self.state = status
    pid = self.process.pid if self.process else None
    value = {"status": status, "message": message, "pid": pid, "since": time.time()}
    ablation_grid.write_json(self.directory / "row.json", value | {"hardware": self.hardware})

  def start(self, command, status, lock):
    """May raise OSError or UserError (a full disk)."""
    self.directory.mkdir(parents=True, exist_ok=True)
    with open(self.log, "ab", buffering=0) as log:
      log.write(os.fsencode(f"$ {shlex.join(command)}\n"))
      self.log_start = log.tell()
      self.process = subprocess.Popen(
        command,
        stdout=log,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": "110"} | self.slot.env,
        start_new_session=True,  # Ctrl-C reaches it through the runner, once
        pass_fds=[lock.fileno()],
      )
    if self.slot.cores and hasattr(os, "sched_setaffinity"):
      with contextlib.suppress(ProcessLookupError):
        os.sched_setaffinity(self.process.pid, self.slot.cores)  # before it makes threads
    self.note(status)

  def begin(self, slot, lock):
    self.slot = slot
    self.hardware = [*(name for name in self.hardware if name != self.here), self.here]  # that it was trained on
    ablation_grid.share(self.grid.workdir, self.directory)
    self.start(self.train, "training", lock)

  def share(self):
    """Keeps the vocabulary that this row has made for the others."""
    ablation_grid.share(self.directory, self.grid.workdir)

  def last_words(self):
    """What the last process said when it ended: its error, or its last line."""
    try:
      with open(self.log, "rb") as log:
        log.seek(self.log_start)
        text = log.read()[-20_000:].decode(errors="replace")
    except OSError:
      return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    return " ".join(lines[errors[-1] :]) if errors else (lines or [""])[-1]

  def send(self, number):
    if self.process and self.process.poll() is None:
      with contextlib.suppress(ProcessLookupError):
        if number == signal.SIGKILL:
          os.killpg(self.process.pid, number)
        else:
          self.process.send_signal(number)


class Runner:
  """Starts jobs in slots until all have ended; `view` is told what happens.

  view: an object with `say(text)` and `update(jobs)`.
  """

  def __init__(self, jobs, slots, lock, view):
    self.jobs, self.free, self.lock, self.view = jobs, list(slots), lock, view
    self.waiting = collections.deque(job for job in jobs if job.state == "waiting")
    self.running = []
    self.signals = 0
    self.full = ""

  def run(self):
    """Returns the exit code: 0; 1 with failed or stopped rows or a full disk; 128 + the signal that stopped it."""
    caught = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # nohup stays nohup
    previous = {number: signal.signal(number, lambda number, _: caught.append(number)) for number in heard}
    try:
      while self.running or (self.waiting and not self.stopping):
        with self._a_full_disk_stops():
          self._signals(caught)
          self._start()
          self._collect()
          self.view.update(self.jobs)
        time.sleep(0.1)
    finally:
      for job in self.running:  # only after an error of the runner itself
        job.send(signal.SIGTERM)
      for number, handler in previous.items():
        signal.signal(number, handler)
    if caught:
      return 128 + caught[0]
    return int(bool(self.full) or any(job.state in ("failed", "stopped") for job in self.jobs))

  @property
  def stopping(self):
    return bool(self.signals or self.full)

  def _signals(self, caught):
    if len(caught) == self.signals:
      return
    self.signals = len(caught)
    again = "" if self.signals > 1 else " (once more: kill them; their last checkpoints stay)"
    self.view.say(f"stopping: rows save what they have{again}")
    for job in self.running:
      job.send(signal.SIGTERM if self.signals == 1 else signal.SIGKILL)

  def _start(self):
    while self.free and self.waiting and not self.stopping:
      # The first row makes the vocabulary and tokenises the text; the others wait for that.
      if self.running and not any(job.has_begun or job.state != "training" for job in self.running):
        for job in self.running:
          job.share()
        return
      for job in self.running:
        job.share()
      job = self.waiting.popleft()
      slot = self.free.pop()
      self.running.append(job)
      job.begin(slot, self.lock)
      self.view.say(f"{job.name}: training, log in {job.log}")

  def _collect(self):
    for job in list(self.running):
      code = job.process.poll() if job.process else 1
      if code is None:
        continue
      with self._a_full_disk_stops():
        job.share()
      if code and not self.stopping and _no_room(job):
        self._disk_is_full(f"{job.name}: {job.last_words()}")
      if code == 0 and job.state == "evaluating":
        self._end(job, "done") if job.result else self._fail(job, f"wrote no result of step {job.steps}")
      elif self.stopping:
        self._end(job, "stopped")
      elif code == 0:
        job.start(job.evaluate, "evaluating", self.lock)
      elif (128 - code if code < 0 else code) in restart.STOPPED:
        self._end(job, "stopped", "by a Ctrl-C or a closed terminal of its own; the same command goes on")
      elif code == restart.PREEMPTED or code < 0:
        self._again(job, code)
      else:
        self._fail(job, f"{_how(code)}: {job.last_words()}")

  def _again(self, job, code):
    """After an end that is no fault of the row's; deaths are counted, preemptions are not."""
    newest = restart.newest_checkpoint(str(job.directory))
    verdict, _ = job.attempts.after(128 - code if code < 0 else code, newest)
    if verdict is not None:
      self._fail(job, f"{_how(code)}, {job.attempts.failures} times without a newer checkpoint")
      return
    self.view.say(f"{job.name}: {_how(code)} while {job.state}; once more")
    job.start(job.train if job.state == "training" else job.evaluate, job.state, self.lock)

  def _fail(self, job, why):
    self._end(job, "failed", f"{job.state}: {why} (see {job.log})")

  def _end(self, job, state, message=""):
    self.running.remove(job)
    self.free.append(job.slot)
    job.process = None
    job.note(state, message)
    self.view.say(f"{job.name}: {state}" + (f", {message}" if message else ""))

  @contextlib.contextmanager
  def _a_full_disk_stops(self):
    try:
      yield
    except (OSError, UserError) as error:
      cause = error.__cause__ if isinstance(error, UserError) else error
      if getattr(cause, "errno", None) not in FULL_ERRORS:
        raise
      self._disk_is_full(str(error))

  def _disk_is_full(self, why):
    """Every further row would fail as well: stop, with all that was saved."""
    if not self.full:
      self.full = why
      for job in self.running:
        job.send(signal.SIGTERM)
      self.view.say(
        f"no room on the disk: {why}\nMake room and run the same command again; it goes on from here"
      )


def _no_room(job):
  return FULL.search(job.last_words()) or shutil.disk_usage(job.grid.workdir).free < 1 << 20


def _how(code):
  if code == restart.PREEMPTED:
    return "preempted"
  return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
