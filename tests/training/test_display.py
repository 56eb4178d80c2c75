import errno
import io
import os

import pytest

from attention_zoo.errors import UserError
from attention_zoo.training.display import Display


def test_lines_where_there_is_no_terminal(capsys):
  display = Display(0, 4, quiet=False)
  values = {"loss": 1.25, "perplexity": 3.0, "tokens_per_second": 12345.6, "nonfinite": 0.0}
  display.advance(1)
  display.show(2, "train", values)
  display.show(2, "dev", {"loss": 1.5, "nonfinite": 2.0})
  display.print("a [word]")
  display.close()
  lines = capsys.readouterr().err.splitlines()
  assert lines[0].startswith("step 2/4  loss 1.25  perplexity 3  12,346 tokens/s") and lines[0].endswith(
    " left"
  )
  assert lines[1:] == ["step 2/4  dev  loss 1.5  2 non-finite steps skipped", "a [word]"]


class Failing(io.StringIO):
  def __init__(self, number):
    super().__init__()
    self.number, self.calls = number, 0

  def write(self, text):
    self.calls += 1
    raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.EBADF])
def test_a_reader_that_has_gone_is_no_error(monkeypatch, number):
  stream = Failing(number)
  monkeypatch.setattr("sys.stderr", stream)
  display = Display(0, 4, quiet=False)
  display.print("a")
  display.print("b")
  display.show(2, "dev", {"loss": 1.0})
  display.close()
  assert stream.calls == 1


def test_a_slow_reader_misses_a_line(monkeypatch):
  stream = Failing(errno.EAGAIN)
  monkeypatch.setattr("sys.stderr", stream)
  display = Display(0, 4, quiet=False)
  display.print("a")
  display.print("b")
  assert stream.calls == 2


def test_a_log_on_a_full_disk_is_told(monkeypatch):
  monkeypatch.setattr("sys.stderr", Failing(errno.ENOSPC))
  with pytest.raises(UserError, match="cannot write standard error: No space left on device"):
    Display(0, 4, quiet=False).print("a")


def test_without_standard_error_nothing_is_shown(monkeypatch, capsys):
  monkeypatch.setattr("sys.stderr", None)
  Display(0, 4, quiet=False).print("a")
  assert capsys.readouterr().out == ""
