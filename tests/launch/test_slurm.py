"""The batch script: its text, hostile input, and real jobs where Slurm is installed."""

import json
import os
import subprocess

import pytest

from launch import slurm as launcher
from tests.launch.launch_helpers import ROOT, launch, wait_for

TRAIN = ["--", "--config=configs/quickstart.py", "--workdir=runs/a"]


def script_of(capsys, *flags, train=TRAIN):
  assert launcher.main(["--dry_run", *flags, *train]) == 0
  return capsys.readouterr().out


def test_script_one_process_per_gpu(capsys):
  script = script_of(
    capsys,
    "--name=base",
    "--nodes=2",
    "--tasks_per_node=8",
    "--gpus_per_task=1",
    "--cpus_per_task=6",
    "--time=1-12:00:00",
    "--partition=gpu",
    "--account=lab",
    "--notice=300",
    "--constraint=a100|h100",
    "--sbatch=--mem=64G",
    "--sbatch=--exclusive",
    "--max_failures=5",
    "--python=/opt/zoo/bin/python",
  )
  options = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]
  assert options == [
    "--job-name=base",
    "--nodes=2",
    "--ntasks-per-node=8",
    "--cpus-per-task=6",
    "--gpus-per-node=8",
    "--time=1-12:00:00",
    "--signal=TERM@300",
    "--partition=gpu",
    "--account=lab",
    "--constraint=a100|h100",
    f"--output={os.getcwd()}/runs/slurm/base-%j.log",
    "--requeue",
    "--open-mode=append",
    "--mem=64G",
    "--exclusive",
  ]
  assert (
    f"/opt/zoo/bin/python {ROOT}/launch/restart.py --srun --max_failures=5 "
    "-- --config=configs/quickstart.py --workdir=runs/a\n"
  ) in script
  assert 'if [ "$code" = 75 ]' in script and 'scontrol requeue "$SLURM_JOB_ID"' in script
  assert "JAX_LOCAL_DEVICE_IDS" not in script  # JAX takes GPU number SLURM_LOCALID


def test_script_one_process_per_node(capsys):
  script = script_of(capsys, "--gpus_per_task=4")
  assert "#SBATCH --gpus-per-node=4\n" in script and "export JAX_LOCAL_DEVICE_IDS=0,1,2,3 " in script
  assert "gpus" not in script_of(capsys)


def test_python_in_the_home_folder(capsys, monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  assert "\n/home/me/v/bin/python " in script_of(capsys, "--python=~/v/bin/python")
  assert "\n./python " in script_of(capsys, "--python=./python")


def test_scripts_and_logs_in_the_home_folder(capsys, monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  script = script_of(capsys, "--log_dir=~/logs")
  assert "=/home/me/logs/" in script and "~/logs" not in script


def test_names_of_files_in_any_encoding(tmp_path, monkeypatch):
  """The locale's is Latin-1; a name has bytes that are no UTF-8."""
  monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
  done = launch("slurm", "--dry_run", *TRAIN, "--config.data.dir=\u6f22\udcff", cwd=tmp_path, errors="surrogateescape")
  assert done.returncode == 0 and "--config.data.dir=\u6f22\udcff" in done.stdout, done.stderr
  (tmp_path / "sbatch").write_text("#!/bin/sh\necho 1\n")
  (tmp_path / "sbatch").chmod(0o755)
  monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
  done = launch("slurm", *TRAIN, "--config.data.dir=\u6f22\udcff", cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  assert "\u6f22".encode() + b"\xff" in (tmp_path / "runs/slurm/attention_zoo.sbatch").read_bytes()


HOSTILE = [
  "a b",
  "a;touch pwned",
  "$(touch pwned)",
  "`touch pwned`",
  "a'b",
  'a"b',
  "a\n#SBATCH --uid=0",
  "a\\",
  "ü",
  "",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("flag", ["name", "time", "partition", "account", "qos", "constraint", "log_dir"])
def test_option_lines_take_plain_text_only(capsys, flag, value):
  if (flag, value) == ("log_dir", ""):
    return  # the current directory
  assert launcher.main(["--dry_run", f"--{flag}={value}", *TRAIN]) == 2
  captured = capsys.readouterr()
  assert captured.out == "" and f"--{flag}" in captured.err and repr(value)[1:-1] in captured.err


@pytest.mark.parametrize("value", ["mem=64G", "--mem=64G --uid=0", "--wrap=touch pwned", "--comment=a\nb"])
def test_further_options_are_checked(capsys, value):
  assert launcher.main(["--dry_run", f"--sbatch={value}", *TRAIN]) == 2
  assert "--sbatch=" in capsys.readouterr().err


@pytest.mark.parametrize("value", HOSTILE)
def test_training_arguments_arrive_unchanged(capsys, tmp_path, monkeypatch, value):
  """The script is run by bash with a stand-in Python that prints its arguments."""
  folder = tmp_path / "it's; a $HOME"
  folder.mkdir()
  monkeypatch.chdir(folder)
  python = tmp_path / "my python"
  python.write_text('#!/bin/bash\nprintf "%s\\0" "$PWD" "$@"\n')
  python.chmod(0o755)
  train = ["--", "--config=configs/quickstart.py", "--workdir=runs/a", f"--config.data.dir={value}", value]
  script = script_of(capsys, f"--python={python}", f"--log_dir={tmp_path}", train=train)
  env = {"SLURM_CPUS_PER_TASK": "1"}
  result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=env, cwd="/")
  assert result.returncode == 0, result.stderr
  cwd, *arguments = result.stdout.split("\0")[:-1]
  assert cwd == str(folder) and not (folder / "pwned").exists()
  assert arguments == [f"{ROOT}/launch/restart.py", "--srun", "--max_failures=3", *train]


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--nodes=0", *TRAIN], "--nodes=0 must be at least 1"),
    (["--nodes=two", *TRAIN], "invalid int value: 'two'"),
    (["--tasks_per_node=2", "--gpus_per_task=4", *TRAIN], "--tasks_per_node=8 --gpus_per_task=1"),
    (["--name=a/b", *TRAIN], "slash"),
    ([], "behind `--`"),
    (["--", "--config=configs/quickstart.py"], "--workdir=DIR"),
    (["--node=2", *TRAIN], "unrecognized arguments: --node=2"),
  ],
)
def test_bad_input(tmp_path, flags, message):
  result = launch("slurm", *flags, cwd=tmp_path)
  assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr


def test_without_slurm_it_says_so(capsys, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("PATH", "/nonexistent")
  assert launcher.main(TRAIN) == 2
  assert "sbatch is not on the PATH" in capsys.readouterr().err
  assert list(tmp_path.iterdir()) == []


def test_help_teaches(capsys):
  with pytest.raises(SystemExit) as stopped:
    launcher.main(["--help"])
  assert stopped.value.code == 0
  text = capsys.readouterr().out
  assert "-- --config=configs/transformer_base.py --workdir=/shared/runs/base" in text and "scancel" in text


# Real jobs. The stand-in trainer is a JAX program of two processes: they find each other, count together,
# keep the count as a checkpoint, and stop with 75 after SIGTERM.
COUNTER = """\
import pathlib, signal, sys, time
import jax, numpy as np
jax.distributed.initialize()
from jax.experimental import multihost_utils
workdir = pathlib.Path(next(a for a in sys.argv if a.startswith("--workdir=")).partition("=")[2])
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
checkpoints = workdir / "checkpoints"
checkpoints.mkdir(parents=True, exist_ok=True)
step = max((int(p.name) for p in checkpoints.iterdir()), default=0)
print(f"start at {step}, process {jax.process_index()} of {jax.process_count()}", flush=True)
while step < 1000:
  time.sleep(0.1)
  total = multihost_utils.process_allgather(np.array([1, len(stop)]), tiled=False).sum(axis=0)
  step += 1
  if total[1]:
    break
  if (workdir / "finish").exists():
    step = 1000
assert total[0] == 2, total
if jax.process_index() == 0:
  (checkpoints / str(step)).touch()
jax.distributed.shutdown()
print(f"end at {step}", flush=True)
sys.exit(0 if step == 1000 else 75)
"""


def control(env, *command):
  return subprocess.run(command, env=env, capture_output=True, text=True).stdout


def state(env, job):
  for word in control(env, "scontrol", "show", "job", "--oneliner", job).split():
    if word.startswith("JobState="):
      return word.partition("=")[2]


def submit(env, cwd, *flags):
  result = launch(
    "slurm",
    "--name=count",
    "--tasks_per_node=2",
    "--log_dir=logs",
    *flags,
    "--",
    "--config=configs/none.py",
    "--workdir=run",
    cwd=cwd,
    env=env,
  )
  assert result.returncode == 0, result.stderr
  job = result.stdout.split()[1].strip(",")
  return job, cwd / "logs" / f"count-{job}.log"


def count(log, text):
  return log.read_text().count(text) if log.exists() else 0


@pytest.mark.slurm
@pytest.mark.slow
def test_requeued_job_resumes(slurm, trainer):
  """Two tasks train, the administrator requeues the job, training saves, the job comes back and finishes."""
  cwd = trainer(COUNTER)
  job, log = submit(slurm, cwd)
  wait_for("both processes", lambda: count(log, "start at 0, process") == 2, 60)
  control(slurm, "scontrol", "requeue", job)
  wait_for("the state to be saved", lambda: count(log, "end at") == 2, 30)
  steps = [int(path.name) for path in (cwd / "run/checkpoints").iterdir()]
  assert len(steps) == 1 and steps[0] < 1000
  (cwd / "run/finish").touch()
  wait_for("the resumed job", lambda: count(log, f"start at {steps[0]}, process") == 2, 60)
  wait_for("the end", lambda: state(slurm, job) == "COMPLETED", 60)
  assert "training is done" in log.read_text()


@pytest.mark.slurm
@pytest.mark.slow
def test_time_limit_requeues(slurm, trainer):
  """Slurm's own notice, half a minute before a limit of one, makes training save and the script requeue the job."""
  cwd = trainer(COUNTER)
  job, log = submit(slurm, cwd, "--time=00:01:00", "--notice=30")
  wait_for("both processes", lambda: count(log, "start at 0, process") == 2, 60)
  wait_for("the requeue", lambda: state(slurm, job) in ("PENDING", "REQUEUED"), 60)
  assert count(log, "end at") == 2
  (cwd / "run/finish").touch()
  wait_for("the end", lambda: state(slurm, job) == "COMPLETED", 60)
  assert count(log, "start at 0, process") == 2 and count(log, "start at") == 4


@pytest.mark.slurm
@pytest.mark.slow
def test_cancelled_job_stays_cancelled(slurm, trainer):
  cwd = trainer(COUNTER)
  job, log = submit(slurm, cwd)
  wait_for("both processes", lambda: count(log, "start at 0, process") == 2, 60)
  control(slurm, "scancel", job)
  wait_for("the state to be saved", lambda: count(log, "end at") == 2, 30)
  wait_for(
    "the end of the job", lambda: job not in control(slurm, "squeue", "--noheader", "--format=%i").split(), 60
  )
  assert state(slurm, job) == "CANCELLED"
  assert len(list((cwd / "run/checkpoints").iterdir())) == 1


TINY = [
  "d_model=16",
  "d_ff=16",
  "num_heads=2",
  "d_k=8",
  "d_v=8",
  "num_encoder_layers=1",
  "num_decoder_layers=1",
]


@pytest.mark.slurm
@pytest.mark.slow
def test_real_training_is_requeued_and_resumes(slurm, tmp_path):
  """attention_zoo.train itself, two processes: requeued in the middle, it saves, comes back and finishes."""
  for split, size in (("train", 300), ("dev", 16), ("test", 16)):
    for language, words in (
      ("en", "the cat sees {} big houses and {} birds"),
      ("de", "die Katze sieht {} Häuser, {} Vögel"),
    ):
      lines = [words.format(i % 17, i * 7 % 23) for i in range(size)]
      (tmp_path / f"{split}.{language}").write_text("\n".join(lines) + "\n")
  fields = {
    "source": "text",
    "dir": tmp_path,
    "train_split": "train",
    "dev_split": "dev",
    "test_split": "test",
    "vocab_size": 80,
    "batch_tokens": 512,
  }
  result = launch(
    "slurm",
    "--name=tiny",
    "--tasks_per_node=2",
    "--log_dir=logs",
    "--max_failures=1",
    "--",
    f"--config={ROOT}/configs/quickstart.py",
    "--workdir=run",
    "--config.train.steps=160",
    "--config.train.checkpoint_every=20",
    "--config.train.eval_every=160",
    "--config.train.log_every=20",
    *(f"--config.model.{field}" for field in TINY),
    *(f"--config.data.{name}={value}" for name, value in fields.items()),
    cwd=tmp_path,
    env=slurm,
  )
  assert result.returncode == 0, result.stderr
  job = result.stdout.split()[1].strip(",")
  log, checkpoints = tmp_path / f"logs/tiny-{job}.log", tmp_path / "run/checkpoints"

  def ended():
    return state(slurm, job) not in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED")

  def newest():
    return max((int(path.name) for path in checkpoints.glob("*") if path.name.isdecimal()), default=0)

  wait_for("a checkpoint, or the end", lambda: newest() or ended(), 180)
  control(slurm, "scontrol", "requeue", job)
  wait_for("the state to be saved", lambda: count(log, "training was preempted"), 60)
  saved = newest()
  assert 0 < saved < 160, log.read_text()
  wait_for("the resumed job to end", ended, 180)
  assert state(slurm, job) == "COMPLETED", log.read_text()
  lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
  steps = [row["step"] for row in map(json.loads, lines) if row["split"] == "train"]
  assert newest() == 160 and steps == sorted(set(steps)) and set(range(20, 161, 20)) <= set(steps), (
    log.read_text()
  )
