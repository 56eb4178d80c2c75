"""What stands on standard error while something takes long."""

import re
import time

from attention_zoo import progress


def test_a_phase_says_what_goes_on_and_for_how_long(capsys):
  with progress.phase("compiling", 90, every=0.05):
    time.sleep(0.3)
  with progress.phase("tracing", 2.0):  # no estimate is needed for so little
    pass
  captured = capsys.readouterr()
  first, *moving, last, tracing = captured.err.splitlines()
  assert captured.out == "" and first == "compiling, about 1:30" and last == "compiling: 0:00" and tracing == "tracing: 0:00"
  assert moving and all(re.fullmatch(r"compiling: 0:00 of about 1:30", line) for line in moving)
