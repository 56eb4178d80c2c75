"""Flags of the entry points, and how they end."""

import logging
import os
import pathlib
import subprocess
import sys

import pytest

import attention_zoo
from attention_zoo import cli
from attention_zoo.errors import UserError

ENTRY_POINTS = [
  path for path in pathlib.Path(attention_zoo.__file__).parent.glob("*.py") if "cli.run(main" in path.read_text()
]


@pytest.mark.parametrize("name", ["train", "translate", "compile"])
def test_help_names_every_flag(name):
  done = subprocess.run([sys.executable, "-m", f"attention_zoo.{name}", "--help"], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  for flag in {
    "train": ["config", "workdir"], "translate": ["workdir", "n_best"], "compile": ["config", "topology"],
  }[name]:  # fmt: skip
    assert f"  --{flag}: " in done.stdout


@pytest.mark.parametrize("path", sorted(ENTRY_POINTS), ids=lambda path: path.stem)
def test_every_entry_point_says_its_version(path):
  """Whatever it requires otherwise; --help names the flag."""
  command = [sys.executable, "-m", f"attention_zoo.{path.stem}", "--version"]
  done = subprocess.run(command, capture_output=True, text=True)
  assert (done.returncode, done.stdout, done.stderr) == (0, f"attention_zoo {attention_zoo.__version__}\n", "")


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


@pytest.mark.parametrize("early", ["", "cli.streams.prepare = main\n"])
def test_ctrl_c_is_one_line(early):
  program = f"from attention_zoo import cli\ndef main(): raise KeyboardInterrupt\n{early}cli.run(main, required=())\n"
  out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
  assert (out.returncode, out.stderr) == (130, "interrupted\n")


def parsed(*arguments):
  """A process that prints what it got for --workdir, --input and the task of --config."""
  program = (
    "from attention_zoo import cli\n"
    "WORKDIR, INPUT = cli.define_workdir(), cli.define_path('input', 'A file.')\n"
    "CONFIG = cli.define_config()\n"
    "cli.run(lambda: print(WORKDIR.value, INPUT.value, CONFIG.value and CONFIG.value.task), required=('workdir',))\n"
  )
  return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)


def test_a_leading_tilde_is_the_home_directory(monkeypatch, tmp_path):
  (tmp_path / "my.py").write_text(pathlib.Path("configs/quickstart.py").read_text(encoding="utf-8"))
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.setenv("PYTHONPATH", os.getcwd())
  out = parsed("--workdir=~/new", "--input=~/a~b", "--config=~/my.py")
  assert out.stdout == f"{tmp_path}/new {tmp_path}/a~b translation\n", out.stderr
  out = parsed("--workdir=~nobody-of-this-name/new")
  assert out.returncode == 2 and "there is no such user" in out.stderr and "Traceback" not in out.stderr
  out = parsed("--workdir=")
  assert out.returncode == 2 and "--workdir is missing" in out.stderr


def test_remote_paths_stay_as_they_are():
  assert cli._Path().parse("gs://bucket/run") == "gs://bucket/run"


def test_warnings_go_where_standard_error_is(capsys):
  logger = logging.Logger("test")
  logger.addHandler(cli._Warnings())
  logger.warning("%d of %d", 1, 2)
  assert capsys.readouterr().err == "WARNING: 1 of 2\n"


@pytest.mark.parametrize(
  ("shell", "code", "out", "err"),
  [
    (">&-", 0, "", ""),
    (">/dev/full", 2, "", "error: cannot write standard output: No space left on device\n"),
    ("<&- 2>&-", 0, "Ä\n", ""),
  ],
)
def test_streams_that_are_closed_or_full(shell, code, out, err):
  """What is printed to a full one is told when main returns."""
  program = (
    "import sys\n"
    "from attention_zoo import cli\n"
    "def main():\n"
    "  print('\\xc4')\n"
    "  assert open('/dev/null').fileno() > 2\n"
    "cli.run(main, required=())\n"
  )
  done = subprocess.run(
    ["bash", "-c", f'"$0" -c "$1" {shell}', sys.executable, program],
    capture_output=True, env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
  )  # fmt: skip
  assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (code, out, err)


def test_a_full_standard_error_costs_neither_the_output_nor_the_exit_code():
  program = (
    "import logging\n"
    "from attention_zoo import cli, errors\n"
    "def main():\n"
    "  logging.warning('nobody reads this')\n"
    "  print('done', flush=True)\n"
    "  raise errors.UserError('nor this')\n"
    "cli.run(main, required=())\n"
  )
  done = subprocess.run(["bash", "-c", '"$0" -c "$1" 2>/dev/full', sys.executable, program], capture_output=True)
  assert (done.returncode, done.stdout) == (2, b"done\n")


def test_a_config_is_found_by_its_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert cli._expanded("--config=language/quickstart").endswith("configs/language/quickstart.py")
  assert cli._expanded("--config=configs/quickstart.py").endswith("attention_zoo/configs/quickstart.py")
  (tmp_path / "mine.py").touch()
  assert cli._expanded("--config=mine.py") == "--config=mine.py" and cli._expanded("--config.a=b") == "--config.a=b"
  with pytest.raises(UserError, match="no config of that name .did you mean 'quickstart'"):
    cli._expanded("--config=quickstrat")
  with pytest.raises(UserError, match="--config=a+: there is no such file"):
    cli._expanded("--config=" + "a" * 300)


def test_folders_in_one_flag(tmp_path):
  (tmp_path / "a,b").mkdir()
  assert cli.paths(f"{tmp_path}/a,b") == [f"{tmp_path}/a,b"] and cli.paths("a,b") == ["a", "b"]
  assert cli.paths(",".join(["run"] * 100)) == ["run"] * 100  # together too long for a name
