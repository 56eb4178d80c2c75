"""Cloud TPU's command line: what a dry run prints, what is refused, what --help teaches."""

import shlex
import subprocess
import sys

import pytest

from launch import cloud_tpu, cloud_tpu_flags
from tests.launch.launch_helpers import CREATE, ROOT, TRAIN, ZONE, launch, tpu


def parts(text):
  """The commands in a dry run's output, as lists."""
  lines = [line for line in text.splitlines() if not line.startswith("# ")]
  commands, current = [], ""
  for line in lines:
    current += line + "\n"
    try:
      commands.append(shlex.split(current))
      current = ""
    except ValueError:  # within quotes: the command goes on
      pass
  assert not current
  return commands


def test_dry_run_prints_and_runs_nothing(cloud, wheel):
  hostile = "--config.x=a b; it's $HOME\nnext"
  cloud.change(resources="untouched")
  ran = tpu(
    "run",
    *CREATE,
    "--spot",
    "--num_slices=2",
    "--until_done",
    "--delete_after",
    "--dry_run",
    "--project=mine",
    "--data=gs://bucket/my data",
    *TRAIN,
    hostile,
  )
  assert ran.returncode == 0 and ran.stderr == ""
  assert cloud.state()["resources"] == "untouched" and cloud.state()["calls"] == []
  commands = parts(ran.stdout)
  assert commands[0][1:4] == ["-m", "pip", "wheel"]
  assert all(
    command[:3] == ["gcloud", "compute", "tpus"] and command[-2:] == [ZONE, "--project=mine"]
    for command in commands[1:]
    if command[1] == "compute"
  )
  verbs = [command[4] for command in commands if command[1] == "compute" and command[4] != "list"]
  assert verbs == ["create", *["ssh"] * 2, *["scp"] * 2, *["ssh"] * 8, "delete"]
  [remote] = {word for command in commands for word in command if "setsid" in word}
  assert shlex.quote(hostile) in remote
  [install] = {word for command in commands for word in command if "--reinstall-package" in word}
  assert "gcloud storage rsync --recursive 'gs://bucket/my data' data" in install


@pytest.mark.parametrize("command", ["create", "setup", "run", "logs", "status", "delete"])
def test_dry_run_of_every_command(cloud, wheel, command):
  flags = {"create": CREATE, "run": TRAIN}.get(command, [])
  ran = tpu(command, "--dry_run", *flags)
  assert ran.returncode == 0 and parts(ran.stdout) and cloud.state()["calls"] == [], ran.stderr


BAD = {
  "no zone": (["create", "zoo", *CREATE], "--zone"),
  "no type": (["create", "zoo", ZONE], "--accelerator_type=TYPE is needed"),
  "strange type": (["create", "zoo", ZONE, "--accelerator_type=v5e"], "does not look like v5litepod-16"),
  "unknown family": (["create", "zoo", ZONE, "--accelerator_type=v9x-8"], "no runtime version known for v9x"),
  "name": (["delete", "Zoo; rm -rf /", ZONE], "small letters, digits and dashes"),
  "zone": (["delete", "zoo", "--zone=$(reboot)"], "does not look like a zone"),
  "no training": (["run", "zoo", ZONE], "behind `--`"),
  "no workdir": (["run", "zoo", ZONE, "--", "--config=configs/quickstart.py"], "--workdir=DIR"),
  "local workdir": (["run", "zoo", ZONE, "--", "--config=c.py", "--workdir=runs/a"], "must be in a bucket"),
  "workers' disk": (["run", "zoo", ZONE, "--", "--config=c.py", "--workdir=/mnt/a"], "must be in a bucket"),
  "status of a disk": (["status", "zoo", ZONE, "--workdir=/mnt/a"], "must be in a bucket"),
  "wheel": (["setup", "zoo", ZONE, "--wheel=none.whl"], "--wheel=none.whl is not a file"),
  "configs": (["setup", "zoo", ZONE, "--configs=nowhere"], "--configs=nowhere must be a directory called configs"),
  "other name": (["setup", "zoo", ZONE, f"--configs={ROOT}/launch"], "must be a directory called configs"),
  "data": (["setup", "zoo", ZONE, "--data=here"], "must be gs://"),
  "detach": (
    ["run", "zoo", ZONE, *CREATE, "--detach", "--until_done", *TRAIN],
    "--detach leaves training alone",
  ),
  "create flag": (["create", "zoo", ZONE, *CREATE, "--create_flag=network"], "--create_flag='network'"),
  "size": (
    ["create", "zoo", ZONE, "--accelerator_type=v5litepod-12"],
    "there are v5litepod-1, v5litepod-4, v5litepod-8",
  ),
  "size in steps": (["create", "zoo", ZONE, "--accelerator_type=v5p-4"], "there are v5p-8, v5p-16, ... in steps of 8"),
  "idle flag": (["run", "zoo", ZONE, *CREATE, *TRAIN], "--accelerator_type does nothing without --until_done"),
  "idle spot": (["run", "zoo", ZONE, "--spot", *TRAIN], "--spot does nothing without --until_done"),
  "idle failures": (
    ["run", "zoo", ZONE, "--max_failures=2", *TRAIN],
    "--max_failures does nothing without --until_done",
  ),
  "idle training": (["logs", "zoo", ZONE, *TRAIN], "logs has no use for it"),
  "no config": (
    ["create", "zoo", ZONE, *CREATE, "--", "--config=configs/none.py", TRAIN[2]],
    "configs/none.py: there is no",
  ),
  "config elsewhere": (
    ["create", "zoo", ZONE, *CREATE, "--", "--config=/tmp/a.py", TRAIN[2]],
    "workers have the folder configs/ only",
  ),
  "unknown": (["create", "zoo", ZONE, "--acelerator=v5"], "unrecognized arguments: --acelerator=v5"),
  "missing": (["logs", "zoo", ZONE], "zoo does not exist in us-west4-a: `create` it first"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(cloud, case):
  flags, words = BAD[case]
  ran = launch("cloud_tpu", *flags, cwd="/", python=["-S"])
  assert ran.returncode == 2 and words in ran.stderr and "Traceback" not in ran.stderr, ran.stderr
  assert not cloud.exists() and not cloud.calls("create")


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--config.data.batch_tokenz=5"], "no field 'batch_tokenz' (did you mean 'batch_tokens'?)"),
    (["--config.mesh.fsdp=3"], "does not fit 16 devices"),
    (["--config.data.batch_tokens=512"], "which 16 devices cannot share evenly"),
    (["--steps=4"], "Unknown command line flag 'steps'"),
  ],
)
def test_what_training_would_refuse_is_told_before_anything_is_asked_for(cloud, capsys, flags, message):
  assert cloud_tpu.main(["create", "zoo", ZONE, *CREATE, *TRAIN, *flags]) == 2
  err = capsys.readouterr().err
  assert "error: training would refuse this: " in err and message in err
  assert cloud.state()["calls"] == []


@pytest.mark.parametrize(
  ("kind", "devices"), [("v5litepod-16", 16), ("v5p-16", 8), ("v4-8", 4), ("v3-8", 8), ("v9x-3", 0)]
)
def test_devices_are_counted_as_jax_does(kind, devices):
  flags = ["create", "zoo", ZONE, f"--accelerator_type={kind}", "--num_slices=2", "--runtime_version=x"]
  args = cloud_tpu_flags.make_parser("").parse_args(flags)
  assert cloud_tpu_flags.check_creation(args) == 2 * devices


def test_files_in_the_home_folder(monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  flags = ["setup", "zoo", ZONE, "--wheel=~/zoo.whl", "--configs=~/configs"]
  args = cloud_tpu_flags.make_parser("").parse_args(flags)
  assert (str(args.wheel), str(args.configs)) == ("/home/me/zoo.whl", "/home/me/configs")


def test_without_gcloud_it_says_so(monkeypatch, capsys):
  monkeypatch.setenv("PATH", "/nonexistent")
  assert cloud_tpu.main(["status", "zoo", ZONE]) == 2
  assert "gcloud is not on the PATH" in capsys.readouterr().err


def test_help_teaches(capsys):
  for flags, words in (
    (["--help"], "nothing is deleted unless you say so"),
    (["run", "--help"], "--until_done"),
  ):
    with pytest.raises(SystemExit) as stopped:
      cloud_tpu.main(flags)
    assert stopped.value.code == 0
    assert words in " ".join(capsys.readouterr().out.split()).replace("Nothing", "nothing")


def test_needs_the_standard_library_only():
  code = "from launch import cloud_tpu, restart, slurm"
  subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, check=True)  # -S: no site-packages
