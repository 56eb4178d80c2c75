import json
import os
import subprocess
import sys
import threading
import time
import types

import pytest

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training import lock as lock_lib


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(lock_lib, "HEARTBEAT", 0.1)
  monkeypatch.setattr(lock_lib, "STALE", 0.6)
  monkeypatch.setattr(lock_lib, "SETTLE", 0.1)


def make(workdir, stopping=0):
  return lock_lib.Lock(workdir, types.SimpleNamespace(code=stopping))


def held(workdir):
  lock = make(workdir)
  lock.acquire()
  return lock


def record(workdir, **fields):
  """A lock of another machine that gives no sign of life."""
  old = {"host": "node7", "pid": 12, "machine": "another", "born": "1", "token": "abc", "heartbeat": 3}
  (workdir / "lock.json").write_text(json.dumps(old | fields))


def take(workdir):
  """Seconds until the lock is held; it is released."""
  start = time.monotonic()
  held(workdir).release()
  return time.monotonic() - start


def test_one_holder_at_a_time(tmp_path):
  first = held(tmp_path)
  with pytest.raises(UserError, match=rf"in use: process {os.getpid()} on \S+ trains there.* \(kill {os.getpid()}\)"):
    held(tmp_path)
  first.check(now=True)
  first.release()
  assert take(tmp_path) < 0.5


def test_who_lives_elsewhere_is_known_by_its_heartbeats(tmp_path, monkeypatch):
  first = held(tmp_path)
  monkeypatch.setattr(lock_lib, "STALE", 10)
  monkeypatch.setattr(lock_lib, "_machine", lambda: "another")
  with pytest.raises(UserError, match="trains there"):
    held(tmp_path)
  first.release()


@pytest.mark.parametrize("content", ["", "{}", None])
def test_a_lock_of_nobody_is_free(tmp_path, content):
  if content is not None:
    (tmp_path / "lock.json").write_text(content)
  assert take(tmp_path / "new" if content is None else tmp_path) < 0.5


@pytest.mark.parametrize(
  "content",
  [b"\x00\xff", b'{"token": ', b"[1]", b"[" * 10_000, b'{"token": 1, "pid": "x"}', b'{"token": [], "pid": 1e99}'],
)
def test_a_lock_that_cannot_be_read_is_taken_over_when_nothing_changes(tmp_path, content):
  (tmp_path / "lock.json").write_bytes(content)
  assert take(tmp_path) > 0.6


def test_the_death_of_a_node_costs_a_wait_and_no_more(tmp_path):
  record(tmp_path)
  assert 0.6 < take(tmp_path) < 5


def test_the_death_of_a_process_of_this_machine_costs_nothing(tmp_path):
  process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
  this = {"pid": process.pid, "machine": lock_lib._machine(), "born": lock_lib._born(process.pid)}
  process.kill()
  deadline = time.monotonic() + 10
  while lock_lib._born(process.pid) and time.monotonic() < deadline:
    time.sleep(0.01)
  record(tmp_path, **this)
  assert this["born"] and take(tmp_path) < 0.5  # a zombie: nobody has asked for its exit code yet
  process.communicate()
  record(tmp_path, **this)
  assert take(tmp_path) < 0.5
  record(tmp_path, **this | {"pid": os.getpid()})  # the number is another process's now
  assert take(tmp_path) < 0.5


def test_a_process_that_hangs_is_named(tmp_path):
  """It may wake up: somebody has to end it."""
  path = os.path.realpath(tmp_path / "lock.json")
  this = {"pid": os.getpid(), "machine": lock_lib._machine(), "born": lock_lib._born(os.getpid())}
  record(tmp_path, **this, path=path)
  with pytest.raises(UserError, match=rf"does not answer, but has not ended.*kill {os.getpid()}"):
    held(tmp_path)
  record(tmp_path, **this, path="/where/it/was/copied/from")
  assert take(tmp_path) > 0.6


def test_a_process_that_is_ending_is_waited_for(tmp_path, capsys):
  first = make(tmp_path, stopping=75)
  first.acquire()
  threading.Timer(1.0, first.release).start()
  assert take(tmp_path) > 0.9
  assert capsys.readouterr().err == ""


def test_the_wait_is_told(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(lock_lib, "HEARTBEAT", -1.9)
  record(tmp_path)
  lock = make(tmp_path)
  monkeypatch.setattr(lock, "_beat", lambda: None)
  lock.acquire()
  lock.release()
  assert capsys.readouterr().err == f"waiting for process 12 on node7, which holds {tmp_path}/lock.json\n"


def test_who_was_taken_over_from_ends(tmp_path):
  first = held(tmp_path)
  record(tmp_path, token="another")
  with pytest.raises(UserError, match="was taken over by process 12 on node7.*without saving"):
    first.check(now=True)
  second = held(tmp_path)
  with pytest.raises(UserError, match="taken over"):
    first.check()
  first.release()  # which is no longer its own
  second.check(now=True)
  second.release()
  first = held(tmp_path)
  (tmp_path / "lock.json").write_text('{"released": "another"}')  # taken over and done with since
  time.sleep(0.3)
  with pytest.raises(UserError, match="taken over"):
    first.check()


def test_a_lock_that_was_deleted_comes_back(tmp_path):
  first = held(tmp_path)
  (tmp_path / "lock.json").unlink()
  first.check(now=True)
  with pytest.raises(UserError, match="in use"):
    held(tmp_path)
  first.release()


@pytest.mark.parametrize("begin", ["free", "stale"])
def test_of_many_starts_one_wins(tmp_path, begin):
  if begin == "stale":
    record(tmp_path)
  locks, results = [make(tmp_path) for _ in range(12)], []

  def start(lock):
    try:
      lock.acquire()
      results.append("held")
    except UserError:
      results.append("refused")

  threads = [threading.Thread(target=start, args=(lock,)) for lock in locks]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  for lock in locks:
    lock.release()
  assert sorted(results) == ["held"] + ["refused"] * 11


def test_without_flock_the_last_to_write_wins_and_the_first_finds_out(tmp_path, monkeypatch):
  """As on an object store: here it is a folder that is said to be one."""
  monkeypatch.setattr(files, "is_local", lambda path: False)
  monkeypatch.setattr(files, "expand", lambda path: path)
  beats = iter(range(99))

  def another_writes(seconds):
    record(tmp_path, token="another", heartbeat=next(beats))

  with monkeypatch.context() as patch:
    patch.setattr(lock_lib.time, "sleep", another_writes)
    with pytest.raises(UserError, match="process 12 on node7 trains there"):
      held(tmp_path)
  (tmp_path / "lock.json").unlink()
  first = held(tmp_path)
  record(tmp_path, token="slower")
  with pytest.raises(UserError, match="taken over by process 12 on node7"):
    first.check(now=True)
  first.release()
  assert json.loads((tmp_path / "lock.json").read_text())["token"] == "slower"


@pytest.mark.parametrize("make_odd", [lambda path: path.mkdir(), lambda path: os.mkfifo(path)], ids=["folder", "pipe"])
def test_what_is_no_file_is_told(tmp_path, make_odd):
  make_odd(tmp_path / "lock.json")
  with pytest.raises(UserError, match="cannot write .*lock.json: "):
    held(tmp_path)
