"""The restart launcher against stand-in trainers."""

import os
import signal
import subprocess
import sys

import pytest

from launch import restart
from tests.launch.launch_helpers import ROOT, launch, wait_for

# Does the attempts that `plan` lists, one per start: "CODE" or "CODE:STEP" (a checkpoint is written first).
PLANNED = """\
import os, pathlib, signal, sys
workdir = pathlib.Path(next(a for a in sys.argv if a.startswith("--workdir=")).partition("=")[2])
(workdir / "checkpoints").mkdir(parents=True, exist_ok=True)
plan = (workdir / "plan").read_text().split()
starts = workdir / "starts"
number = len(starts.read_text().splitlines()) if starts.exists() else 0
with open(starts, "a") as file:
  print(sys.argv[1:], file=file)
code, _, step = plan[number].partition(":")
if step:
  (workdir / "checkpoints" / step).mkdir(exist_ok=True)
if code == "KILL":
  os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(code))
"""


@pytest.fixture
def attempt(trainer):
  """Returns a function: plan of attempts -> (finished launcher, number of starts)."""
  cwd = trainer(PLANNED)
  (cwd / "run").mkdir()

  def run(plan, *flags, train=()):
    (cwd / "run/plan").write_text(plan)
    arguments = ("--pause=0", *flags, "--", "--config=configs/none.py", "--workdir=run", *train)
    result = launch("restart", *arguments, cwd=cwd)
    return result, (cwd / "run/starts").read_text().splitlines()

  return run


@pytest.mark.parametrize(
  ("plan", "code", "starts"),
  [
    ("0", 0, 1),
    ("2 0", 2, 1),  # bad input: trying again would not help
    ("3 0", 3, 1),  # loss not finite
    ("1 0", 0, 2),
    ("KILL 0", 0, 2),
    ("75 75 75 75 75 75 0", 0, 7),  # preemption is no failure
    ("1 1 1 0", 1, 3),  # no progress: gives up
    ("KILL KILL KILL 0", 137, 3),
    ("1:10 1 1 0", 0, 4),  # the newer checkpoint starts the count anew
    ("1:10 1 1 1 0", 1, 4),
    ("1 1:10 1 1:20 1 1 0", 0, 7),
    ("1:10 1:10 1:9 1 0", 1, 4),  # the same or an older checkpoint is no progress
    ("1:10.tmp 1:11.tmp 1:12.tmp 0", 1, 3),  # nor is a half-written one
    ("1 75 1 75 1 0", 1, 5),  # and preemption without a new checkpoint does not hide failures
    ("1:10 2", 2, 2),
    ("1 130 0", 130, 2),  # the user pressed Ctrl-C
    ("129 0", 129, 1),
  ],
)
def test_what_is_tried_again(attempt, plan, code, starts):
  result, started = attempt(plan)
  assert (result.returncode, len(started)) == (code, starts), result.stderr
  assert "Traceback" not in result.stderr and result.stderr.count("restart: ") == starts
  if code == 0:
    assert "training is done" in result.stderr
  elif code in restart.STOPPED:
    assert "stopped by the user" in result.stderr
  elif code not in (2, 3):
    assert "giving up" in result.stderr


def test_a_reader_that_goes_away_stops_nothing(trainer):
  """restart ... 2>&1 | head -1"""
  cwd = trainer(PLANNED)
  (cwd / "run").mkdir()
  (cwd / "run/plan").write_text("1 75 0")
  reader, writer = os.pipe()
  os.close(reader)
  command = [sys.executable, "-m", "launch.restart", "--pause=0", "--", "--config=c", "--workdir=run"]
  process = subprocess.run(command, cwd=cwd, env=dict(os.environ, PYTHONPATH=str(ROOT)), stderr=writer, timeout=120)
  os.close(writer)
  assert process.returncode == 0 and len((cwd / "run/starts").read_text().splitlines()) == 3


def test_a_lost_checkpoint_is_no_progress():
  attempts = restart.Attempts(2, newest=10)
  assert attempts.after(1, 5)[0] is None
  assert attempts.after(1, 6)[0] == 1


def test_max_failures(attempt):
  result, started = attempt("9 9 9 9 0", "--max_failures=5")
  assert result.returncode == 0 and len(started) == 5
  assert "failures without a newer one: 4 of 5" in result.stderr


def test_checkpoints_from_before_are_no_progress(attempt, tmp_path):
  (tmp_path / "project/run/checkpoints/50").mkdir(parents=True)
  result, started = attempt("1:40 1:50 1 0")
  assert result.returncode == 1 and len(started) == 3


def test_arguments_arrive_unchanged(attempt):
  hostile = ["--config.a=it's; $(touch pwned)", '--config.b="x" \\ *\n', "--config.c=", "--", "ü"]
  result, started = attempt("0", train=hostile)
  assert result.returncode == 0
  assert started == [str(["--config=configs/none.py", "--workdir=run", *hostile])]


WAITING = """\
import pathlib, signal, sys, time
count = pathlib.Path("starts")
def save(number, _):
  with open(count, "a") as file:
    file.write("signal ")
  time.sleep(0.5)
  sys.exit({signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGHUP: 129}[number])
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # as attention_zoo.train does
  signal.signal(number, save)
with open(count, "a") as file:
  file.write("start ")
time.sleep(60)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signals_reach_training_once_and_end_the_launcher(trainer, number, code):
  cwd = trainer(WAITING)
  command = [sys.executable, "-m", "launch.restart", "--pause=0", "--", "--config=c", "--workdir=run"]
  process = subprocess.Popen(
    command,
    cwd=cwd,
    env=dict(os.environ, PYTHONPATH=str(ROOT)),
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  starts = cwd / "starts"
  wait_for("training", lambda: starts.exists() and starts.read_text() == "start ", 120)
  os.killpg(process.pid, number)  # as Ctrl-C in a terminal does
  _, err = process.communicate(timeout=120)
  assert process.returncode == code and starts.read_text() == "start signal ", err


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    ([], "say what to train behind `--`"),
    (["--", "--config=c"], "--workdir=DIR"),
    (["--", "--workdir=d", "--config="], "--config=FILE"),
    (["--max_failures=0", "--", "--config=c", "--workdir=d"], "--max_failures=0 must be at least 1"),
    (["--max_failures=x", "--", "--config=c", "--workdir=d"], "invalid int value: 'x'"),
    (["--max_fail=2", "--", "--config=c", "--workdir=d"], "unrecognized arguments"),
  ],
)
def test_bad_input(tmp_path, flags, message):
  result = launch("restart", *flags, cwd=tmp_path)
  assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr


def test_srun_is_used_and_missed(tmp_path):
  env = dict(os.environ, PATH=str(tmp_path))
  result = launch("restart", "--srun", "--", "--config=c", "--workdir=d", cwd=tmp_path, env=env)
  assert result.returncode == 2 and "cannot start srun" in result.stderr


def test_newest_checkpoint(tmp_path, cloud):
  assert restart.newest_checkpoint(str(tmp_path)) is None
  for name in ("9", "10", "11.orbax-checkpoint-tmp-1", "notes"):
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (cloud.folder / "gs/bucket/run/checkpoints" / name).mkdir(parents=True)
  assert restart.newest_checkpoint(str(tmp_path)) == 10
  assert restart.newest_checkpoint("gs://bucket/run") == 10
  assert restart.newest_checkpoint("gs://bucket/none") is None


def test_help_teaches(capsys):
  with pytest.raises(SystemExit) as stopped:
    restart.main(["--help"])
  assert stopped.value.code == 0
  assert "75  preempted, state saved        start again; never counts as a failure" in capsys.readouterr().out
