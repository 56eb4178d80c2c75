"""One training at a time in a work directory.

WORKDIR/lock.json says which process trains there and counts its heartbeats. Who finds a lock takes it over when its
process is known to be dead (same machine), or when no heartbeat comes for STALE seconds, counted by who waits:
clocks of machines are never compared. A process that is saving its last checkpoint says so, and is waited for.
So a start after the death of a node or a preemption waits at most STALE seconds, and only a holder that is alive
and training refuses it.

On a disk, starts take turns by flock: exactly one of them wins, also when several take over together. Where a network
disk has no flock, and on object stores (gs://), a start writes its name, waits SETTLE seconds and has the lock if
its name still stands there: two starts of which one takes longer than that between reading and writing may both
begin. The one that was overwritten finds out at its next heartbeat or checkpoint, whichever comes first, and ends
without saving. So does a process that was suspended for longer than STALE seconds and taken over from. What it
wrote in between may stay.
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import secrets
import socket
import sys
import threading
import time

from attention_zoo import files
from attention_zoo.errors import UserError

HEARTBEAT = 5  # seconds
STALE = 30
SETTLE = 2
PATIENCE = 600  # seconds that a process may take to save its last checkpoint
_ODD = {"token": "?"}  # a lock that cannot be read: somebody is writing it, or was cut off while doing so


class Lock:
  """The lock of one work directory. told: a `stopping.Told`; others learn whether this process is ending."""

  def __init__(self, workdir, told):
    self._workdir, self._told = workdir, told
    self._path = files.expand(workdir) / "lock.json"
    self._real = os.path.realpath(self._path) if files.is_local(self._path) else str(self._path)
    self._token, self._beats, self._loss = secrets.token_hex(8), 0, ""
    self._done, self._thread = threading.Event(), None

  def acquire(self) -> None:
    """Returns with the lock held. Raises UserError that names the holder where another process trains."""
    with files.writing(self._path):
      self._path.parent.mkdir(parents=True, exist_ok=True)
      start = changed = time.monotonic()
      seen, said = None, False
      while not self._try(seen_before := seen, changed):
        now, seen = time.monotonic(), self._seen
        if seen != seen_before:
          changed = now
          beating = seen_before is not None and seen.get("token") == seen_before.get("token") != _ODD["token"]
          if beating and not seen.get("stopping"):
            raise self._held(seen, "trains there")
        if now - start > PATIENCE:
          raise self._held(seen, "has been saving its last checkpoint for ten minutes")
        if now - changed > STALE:
          raise self._held(seen, "does not answer, but has not ended")
        if now - start > HEARTBEAT + 2 and not said:
          said = True
          print(f"waiting for {_name(seen)}, which holds {self._path}", file=sys.stderr, flush=True)
        time.sleep(0.2 if files.is_local(self._path) else 1)
    self._thread = threading.Thread(target=self._beat, daemon=True)
    self._thread.start()

  def check(self, now=False) -> None:
    """Raises UserError where another process has taken over.
    now: reads the file, instead of relying on the last heartbeat."""
    if now and self._thread:
      self._write_beat()
    if self._loss:
      raise UserError(self._loss)

  def release(self) -> None:
    if self._thread:
      self._done.set()
      self._thread.join()
      with contextlib.suppress(OSError), _opened(self._path) as (content, write):
        if _parse(content).get("token") == self._token:
          write(json.dumps({"released": self._token}).encode() + b"\n")

  def _try(self, seen, changed) -> bool:
    """Takes the lock where it is free, or left behind; otherwise notes in `_seen` what it holds."""
    with _opened(self._path) as (content, write):
      self._seen = record = _parse(content)
      stale = record == seen and time.monotonic() - changed > STALE
      alive = _alive(record)
      copied = record.get("path") != self._real  # with the whole work directory, from one that is in use
      free = "token" not in record or alive is False or (stale and (alive is None or copied))
      if free:
        write(self._record())
    if free and not files.is_local(self._path):
      time.sleep(SETTLE)
      with _opened(self._path) as (content, _):
        self._seen = _parse(content)
      free = self._seen.get("token") == self._token
    return free

  def _record(self) -> bytes:
    self._beats += 1
    who = {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine(), "born": _born(os.getpid())}
    what = {"path": self._real, "token": self._token, "heartbeat": self._beats, "stopping": bool(self._told.code)}
    return (json.dumps(who | what) + "\n").encode()

  def _beat(self):
    while not self._done.wait(HEARTBEAT) and not self._loss:
      self._write_beat()

  def _write_beat(self):
    # A full disk will be told elsewhere; a bucket that is out of reach for a moment raises types of its own.
    passing = OSError if files.is_local(self._path) else Exception
    with contextlib.suppress(passing), _opened(self._path) as (content, write):
      record = _parse(content)
      if not record or record.get("token") == self._token:  # or somebody has deleted it
        write(self._record())
      elif record != _ODD:
        self._loss = (
          f"{self._workdir} was taken over by {_name(record)} while this process gave no sign of life: "
          "it ends without saving"
        )

  def _held(self, record, what):
    kill = f" (kill {record['pid']})" if _alive(record) else ""
    return UserError(
      f"{self._workdir} is in use: {_name(record)} {what}. Wait for it or end it{kill}, or choose another workdir"
    )


@contextlib.contextmanager
def _opened(path):
  """Yields the content and a function that replaces it. The file stays the same one, so that flock means something."""
  if not files.is_local(path):
    yield path.read_bytes() if path.exists() else b"", path.write_bytes
    return
  handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
  try:
    _flock(handle)

    def write(data):
      os.pwrite(handle, data, 0)
      os.ftruncate(handle, len(data))

    yield os.pread(handle, 1 << 16, 0), write
  finally:
    os.close(handle)


def _flock(handle, patience=5):
  """Waits for its turn. Nobody keeps it for long but a process that was suspended just then,
  or a dead node of a network disk."""
  deadline = time.monotonic() + patience
  while time.monotonic() < deadline:
    try:
      return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
        return  # a disk without flock
    time.sleep(0.02)


def _parse(content) -> dict:
  try:
    record = files.parse_json(content or b"{}", "lock.json")
  except UserError:
    return _ODD
  return record if isinstance(record, dict) else _ODD


def _name(record) -> str:
  return f"process {record.get('pid', '?')} on {record.get('host', 'another machine')}"


def _machine() -> str:
  """Names this machine since it was started, and within it the space of process numbers; '' where that is not known."""
  try:
    return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
  except OSError:
    return ""


def _born(pid) -> str:
  """When a process was started, to tell it from another of the same number; '' where it has ended,
  or that is not known."""
  try:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
  except OSError:
    return ""
  return "" if fields[0] in "ZX" else fields[19]


def _alive(record) -> bool | None:
  """Whether the holder of a lock lives; None where it cannot be known from here."""
  pid = record.get("pid")
  if not isinstance(pid, int) or pid < 1 or not record.get("machine") or record["machine"] != _machine():
    return None
  try:
    os.kill(pid, 0)
  except (ProcessLookupError, OverflowError):
    return False
  except PermissionError:  # another user's, which may be hidden
    return _born(pid) in ("", record.get("born"))
  return _born(pid) == record.get("born")
