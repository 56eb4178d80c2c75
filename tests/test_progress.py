"""What stands on standard error while something takes long."""

import re
import time

from attention_zoo import progress


def test_a_phase_says_what_goes_on_and_for_how_long(capsys):
  with progress.phase("tracing"):
    pass
  assert capsys.readouterr().err == "tracing: 0:00\n"
  with progress.phase("compiling", 90, every=0.05):
    time.sleep(0.3)
  first, *moving, last = capsys.readouterr().err.splitlines()
  assert first == "compiling may take 1:30 of one processor" and last == "compiling: 0:00"
  assert moving and set(moving) == {"compiling: 0:00"}  # too early to tell


def test_what_is_left_is_told_by_the_work_done(capsys, monkeypatch):
  """A machine that gives this process half its time needs twice as long."""
  start, clock = time.process_time(), []
  monkeypatch.setattr(progress.time, "process_time", lambda: start + (5.0 if clock else 0.0))
  monkeypatch.setattr(progress.time, "monotonic", lambda: 10.0 if clock else 0.0)
  with progress.phase("compiling", 20, every=0.05):
    clock.append(1)
    time.sleep(0.3)
  lines = capsys.readouterr().err.splitlines()
  assert "compiling: 0:10, about 0:30 left" in lines and re.fullmatch(r"compiling: 0:10", lines[-1])
  with progress.phase("compiling", 0.001, every=0.05):
    monkeypatch.setattr(progress.time, "process_time", lambda: start + 9.0)
    time.sleep(0.3)
  assert "longer than expected" in capsys.readouterr().err
