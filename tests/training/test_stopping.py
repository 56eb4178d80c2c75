import os
import signal
import subprocess
import sys
import threading

import pytest

from attention_zoo.training import stopping


def press(number):
  os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), stopping.EXIT_CODES.items())
def test_a_signal_names_the_exit_code(number, code):
  before = signal.getsignal(number)
  with stopping.listen() as told:
    told.begun = True
    assert told.code == 0
    press(number)
    assert told.code == code
  assert signal.getsignal(number) == before


def test_what_is_ignored_stays_ignored(monkeypatch):
  """nohup, and the background of a shell."""
  for number in (signal.SIGHUP, signal.SIGINT):
    before = signal.signal(number, signal.SIG_IGN)
    try:
      with stopping.listen() as told:
        press(number)
        assert told.code == 0
    finally:
      signal.signal(number, before)


def test_an_interactive_python_lives_on(monkeypatch):
  monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
  with stopping.listen() as told:
    with pytest.raises(KeyboardInterrupt):
      press(signal.SIGINT)  # nothing to save yet
  with stopping.listen() as told:
    told.begun = True
    press(signal.SIGINT)
    assert told.code == 130
    with pytest.raises(KeyboardInterrupt):
      press(signal.SIGINT)


def test_another_thread_is_told_nothing():
  found = []

  def inside():
    with stopping.listen() as told:
      found.append(told.code)

  thread = threading.Thread(target=inside)
  thread.start()
  thread.join()
  assert found == [0]


@pytest.mark.parametrize(("begun", "presses"), [(False, 1), (True, 2)])
def test_a_ctrl_c_that_does_not_save_ends_at_once(begun, presses):
  """Also where Python cannot act: here it waits for a lock."""
  code = (
    "import os, signal, threading, time\n"
    "from attention_zoo.training import stopping\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "def press():\n"
    f"  for _ in range({presses}):\n"
    "    time.sleep(0.2)\n"
    "    os.kill(os.getpid(), signal.SIGINT)\n"
    "with stopping.listen() as told:\n"
    f"  told.begun = {begun}\n"
    "  threading.Thread(target=press).start()\n"
    "  while True: time.sleep(30)\n"
  )
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
  assert result.returncode == 130 and len(result.stderr.splitlines()) == 1, result
