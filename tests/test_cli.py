"""Lines in and lines out, as the entry points read and write them."""

import io
import pathlib
import subprocess
import sys
import types

import pytest

import attention_zoo
from attention_zoo import cli
from attention_zoo.errors import UserError

ENTRY_POINTS = [
  path for path in pathlib.Path(attention_zoo.__file__).parent.glob("*.py") if "cli.run(main" in path.read_text()
]


@pytest.mark.parametrize(
  ("content", "lines"),
  [
    (b"", []),
    (b"\n", [""]),
    (b"a\n\n b \n", ["a", "", " b "]),
    (b"a\r\nb", ["a", "b"]),
    ("ä\u2028b\x0cc\n".encode(), ["ä\u2028b\x0cc"]),
  ],
)
def test_lines_end_where_the_file_says(tmp_path, monkeypatch, content, lines):
  (tmp_path / "in").write_bytes(content)
  assert cli.read_lines(tmp_path / "in") == lines
  monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(content)))
  assert cli.read_lines() == lines


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
  with pytest.raises(UserError, match="cannot read .*nowhere: No such file"):
    cli.read_lines(tmp_path / "nowhere")
  with pytest.raises(UserError, match="cannot read .*: Is a directory"):
    cli.read_lines(tmp_path)
  monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(b"a\nb\xe4\n")))
  with pytest.raises(UserError, match="standard input, line 2: not valid UTF-8"):
    cli.read_lines()


@pytest.mark.parametrize("name", ["train", "translate", "compile"])
def test_help_names_every_flag(name):
  done = subprocess.run([sys.executable, "-m", f"attention_zoo.{name}", "--help"], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  for flag in {"train": ["config", "workdir"], "translate": ["workdir", "n_best"], "compile": ["config", "topology"]}[name]:
    assert f"  --{flag}: " in done.stdout


@pytest.mark.parametrize("path", sorted(ENTRY_POINTS), ids=lambda path: path.stem)
def test_every_entry_point_says_its_version(path):
  """Whatever it requires otherwise; --help names the flag."""
  command = [sys.executable, "-m", f"attention_zoo.{path.stem}", "--version"]
  done = subprocess.run(command, capture_output=True, text=True)
  assert (done.returncode, done.stdout, done.stderr) == (0, f"attention_zoo {attention_zoo.__version__}\n", "")


def test_every_item_is_one_line(tmp_path, capsys):
  cli.write_lines(["a", "", "b\nc"], tmp_path / "new" / "out")
  assert (tmp_path / "new" / "out").read_text() == "a\n\nb c\n"
  cli.write_lines(["a", "b\nc"])
  assert capsys.readouterr().out == "a\nb c\n"


def test_what_cannot_be_written_is_told(tmp_path, monkeypatch):
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match="cannot write .*file/out: "):
    cli.write_lines(["a"], tmp_path / "file" / "out")
  (tmp_path / "out").mkdir()
  with pytest.raises(UserError, match="cannot write .*/out: Is a directory"):
    cli.write_lines(["a"], tmp_path / "out")
  assert not (tmp_path / "out.tmp").exists()
  with open("/dev/full", "w") as full:
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(UserError, match="cannot write standard output: No space left on device"):
      cli.write_lines(["a"])


def test_numbers_in_lists():
  assert cli.whole("12", "steps") == 12
  with pytest.raises(UserError, match="--steps: 'x' is not a whole number"):
    cli.whole("x", "steps")


def test_an_error_does_not_wait_for_threads():
  """Those of Orbax wait ten minutes for a directory that could not be made."""
  program = (
    "import threading, time\n"
    "from attention_zoo import cli, errors\n"
    "def main():\n"
    "  threading.Thread(target=time.sleep, args=(50,)).start()\n"
    "  raise errors.UserError('no room')\n"
    "cli.run(main, required=())\n"
  )
  out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=40)
  assert (out.returncode, out.stderr) == (2, "error: no room\n")
