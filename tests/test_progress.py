"""Bars, phases and tables of the entry points."""

import re
import sys
import time

import pytest

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
  start, clock = 0.0, []
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


def test_no_line_of_a_table_is_broken(monkeypatch):
  monkeypatch.setenv("COLUMNS", "30")
  signature = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0|hyp:detokenised" * 3
  lines = progress.table("test [bold]", [("perplexity per subword", "1.2345", ""), ("sacreBLEU", "97.70", signature)])
  assert lines.splitlines() == [
    "test [bold]",
    "perplexity per subword  1.2345",
    f"sacreBLEU               97.70   {signature}",
  ]


def test_a_full_standard_error_does_not_cost_the_work(monkeypatch):
  monkeypatch.setenv("TTY_COMPATIBLE", "1")
  full = open("/dev/full", "w")
  monkeypatch.setattr(sys, "stderr", full)
  with progress.bar("decoding") as report:
    report(1, 2)
    report(1, 2)
  with pytest.raises(OSError):
    full.close()


def test_a_log_gets_nothing_of_a_bar(capsys):
  with progress.bar("decoding") as report:
    report(1, 2)
  captured = capsys.readouterr()
  assert captured.out == captured.err == ""


def test_the_bar_knows_the_total(capsys, monkeypatch):
  monkeypatch.setenv("TTY_COMPATIBLE", "1")
  with progress.bar("decoding") as report:
    report(3, 20)
  assert "3/20" in capsys.readouterr().err
