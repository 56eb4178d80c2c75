"""Cloud TPU against a stand-in gcloud that keeps state: life cycle, recovery, nothing forgotten."""

import json
import os
import signal
import subprocess
import sys

import pytest

from launch import gcloud
from tests.launch.launch_helpers import CREATE, FAST, ROOT, TRAIN, ZONE, tpu, wait_for


def begin(cloud, *flags):
  """Starts a launcher that the test will interrupt."""
  command = [sys.executable, "-S", "-m", "launch.cloud_tpu", *flags]
  env = dict(os.environ, PYTHONPATH=str(ROOT))
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
  process = subprocess.Popen(command, cwd="/", env=env, text=True, **pipes)
  cloud.launchers.append(process)
  return process


def check_nothing_forgotten(cloud, output):
  """The last words name everything that exists, with what it costs; and no local process is left behind."""
  last = output[output.rindex(" exist") :]
  state = cloud.state()
  for name in state["resources"]:
    assert f"queued resource {name}:" in last
    assert "delete with: python -m launch.cloud_tpu delete zoo --zone=us-west4-a" in last
  for name in state["nodes"]:
    assert f"slice {name} " in last
  if any(node["state"] != "PREEMPTED" for node in state["nodes"].values()):
    assert "COSTS MONEY" in last
  if not cloud.exists() and "MAY STILL APPEAR" not in last:
    assert "nothing exists in us-west4-a: no TPU costs money there" in output
  left = subprocess.run(["pgrep", "-af", f"{cloud.folder}/bin/"], capture_output=True, text=True).stdout
  assert not left, left


def test_life_cycle(cloud, wheel):
  created = tpu("create", *CREATE, "--spot", "--valid_until=6h", "--create_flag=--network=mine")
  assert created.returncode == 0, created.stderr
  assert "waiting for zoo: WAITING_FOR_RESOURCES" in created.stdout and "zoo is ready: zoo" in created.stdout
  check_nothing_forgotten(cloud, created.stdout)
  spec = cloud.state()["resources"]["zoo"]["spec"]
  assert spec == {
    "nodes": ["zoo"],
    "type": "v5litepod-16",
    "runtime": "v2-alpha-tpuv5-lite",
    "spot": True,
    "network": "mine",
    "valid_until": "6h",
    "fails": False,
  }
  again = tpu("create", *CREATE)
  assert again.returncode == 0 and "zoo exists already" in again.stdout

  installed = tpu("setup", wheel)
  assert installed.returncode == 0, installed.stderr
  assert installed.stdout.count("installed, with jax 0.0") == 2
  for home in cloud.homes():
    assert (home / "zoo/configs/quickstart.py").is_file()
    assert "--python venv/bin/python" in (home / "python3.log").read_text()

  idle = tpu("status", "--workdir=gs://bucket/run")
  assert (
    idle.stdout.count("training does not run") == 2
    and "newest checkpoint in gs://bucket/run: None" in idle.stdout
  )

  ran = tpu("run", *TRAIN)
  assert ran.returncode == 0, ran.stderr
  for worker in ("w-0", "w-1"):
    assert (
      f"zoo {worker} | starting at step 0" in ran.stdout and f"zoo {worker} | ending at step 8" in ran.stdout
    )
  check_nothing_forgotten(cloud, ran.stdout)

  done = tpu("status", "--workdir=gs://bucket/run")
  assert done.stdout.count("training ended with exit code 0") == 2
  assert "newest checkpoint in gs://bucket/run: 8" in done.stdout
  logs = tpu("logs")
  assert logs.returncode == 0 and "zoo w-1 | ending at step 8" in logs.stdout

  deleted = tpu("delete")
  assert deleted.returncode == 0 and "zoo is deleted" in deleted.stdout and not cloud.exists()
  check_nothing_forgotten(cloud, deleted.stdout)
  assert "zoo does not exist" in tpu("delete").stdout
  gone = tpu("status", "--workdir=gs://bucket/run")
  assert gone.returncode == 0 and "zoo: missing" in gone.stdout and "gs://bucket/run: 8" in gone.stdout


def test_until_done_recovers_from_preemption(cloud, wheel):
  """Two slices, taken away twice: recreated, installed again, resumed from the newest checkpoint, deleted."""
  cloud.change(preempt_at=[5, 12])
  (cloud.folder / "gs/bucket/data").mkdir(parents=True)
  (cloud.folder / "gs/bucket/data/train.en").write_text("one\n")
  hostile = '--config.data.dir=it\'s; $(touch pwned) "x" \\ *\n`y`'
  ran = tpu(
    "run",
    *CREATE,
    "--spot",
    "--num_slices=2",
    "--until_done",
    wheel,
    "--delete_after",
    "--data=gs://bucket/data",
    *TRAIN,
    hostile,
    "--config.end=0@40",
  )
  assert ran.returncode == 0, ran.stdout + ran.stderr
  assert ran.stdout.count("asking for zoo: 2 x v5litepod-16, spot") == 3
  assert ran.stdout.count("training was preempted; newest checkpoint:") == 2, ran.stdout + ran.stderr
  starts = [int(step) for step in (cloud.folder / "starts").read_text().split()]
  assert len(starts) > 8 and sum(step < 5 for step in starts) <= 4 and sum(step < 12 for step in starts) <= 8
  for slice_ in ("zoo-0", "zoo-1"):
    assert f"{slice_} w-1 | ending at step 40" in ran.stdout
  assert cloud.checkpoints() == list(range(1, 41))
  assert not cloud.exists()
  check_nothing_forgotten(cloud, ran.stdout)
  [(call, *_)] = [cloud.calls("create")]
  assert "--node-count=2" in call and "--node-prefix=zoo" in call and "--spot" in call


def test_training_arguments_arrive_unchanged(cloud, wheel):
  hostile = [
    "--config.a=it's; $(touch pwned)",
    '--config.b="x" \\ *\n`touch pwned`',
    "--config.c=",
    "ü {} %s $HOME",
  ]
  ran = tpu("run", *CREATE, "--until_done", wheel, *TRAIN, *hostile)
  assert ran.returncode == 0, ran.stdout + ran.stderr
  for home in cloud.homes():
    assert json.loads((home / "args.json").read_text()) == [*TRAIN[1:], *hostile]
  assert not list(cloud.folder.rglob("pwned"))


def test_reboot_restarts_without_a_new_tpu(cloud, wheel):
  """Nor does that count against a run that has got on since."""
  cloud.change(reboot_at=[5])
  ran = tpu("run", *CREATE, "--until_done", "--max_failures=1", wheel, *TRAIN, "--config.end=0@40")
  assert ran.returncode == 0, ran.stdout + ran.stderr
  assert (
    "gone without an exit code, as when a machine restarts: zoo w-0, zoo w-1" in ran.stdout
    and len(cloud.calls("create")) == 1
    and len(cloud.calls("scp")) == 1
  )
  check_nothing_forgotten(cloud, ran.stdout)


def fails(match, times=1, **how):
  return {"match": match, "times": times, **how}


# Every way a run can end: exit code, words of it, and what makes it end so.
ENDINGS = {
  "done": (0, "training is done", {}),
  "bad input": (2, "refused its input", {"train": ["--config.end=2@3"], "flags": ["--delete_after"]}),
  "not finite": (3, "loss is not finite", {"train": ["--config.end=3@3"]}),
  "crashes": (9, "giving up", {"train": ["--config.end=9@2", "--config.no_checkpoints=1"]}),
  "machines restart each time": (
    1,
    "giving up",
    {"train": ["--config.end=0@9999", "--config.no_checkpoints=1"], "knobs": {"reboot_at": [0] * 99}},
  ),
  "creation is refused": (1, "no quota", {"faults": [fails("resources create", 9, text="no quota")]}),
  "creation fails once": (0, "training is done", {"faults": [fails("resources create")]}),
  "creation fails but happens": (0, "training is done", {"faults": [fails("resources create", after=True)]}),
  "request fails in the queue": (1, "giving up", {"knobs": {"fails": True}, "flags": ["--max_failures=2"]}),
  "installation fails": (1, "no space", {"faults": [fails("--reinstall-package", 9, text="no space")]}),
  "workers answer late": (0, "does not answer yet", {"faults": [fails("mkdir", 5)]}),
  "workers never answer": (1, "no route", {"faults": [fails("mkdir", 999, text="no route")]}),
  "copying fails once": (0, "training is done", {"faults": [fails("tpu-vm scp")]}),
  "start fails": (1, "giving up", {"faults": [fails("setsid", 9)]}),
  "workers out of reach": (1, "no route", {"faults": [fails("zoo-worker", 999, text="no route")]}),
  "out of reach in training": (0, "cannot reach zoo (2 of 3)", {"faults": [fails("zoo-worker", 2, skip=2)]}),
  "Google out of reach in training": (0, "looking again", {"faults": [fails("resources list", 12, skip=4)]}),
  "request given up": (1, "was given up", {"knobs": {"fails": True}, "flags": ["--valid_until=6h"]}),
  "connection for logs breaks": (0, "training is done", {"faults": [fails("tail --pid")]}),
  "listing fails once": (0, "training is done", {"faults": [fails("resources list")]}),
  "deletion fails once": (
    0,
    "zoo is deleted",
    {"faults": [fails("resources delete")], "flags": ["--delete_after"]},
  ),
  "deletion fails": (
    1,
    "zoo may still exist after 5 attempts to delete it",
    {"faults": [fails("resources delete", 99)], "flags": ["--delete_after"]},
  ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_resource_is_forgotten(cloud, wheel, ending):
  code, words, causes = ENDINGS[ending]
  cloud.change(workers=1, faults=causes.get("faults", []), **causes.get("knobs", {}))
  flags, train = causes.get("flags", []), causes.get("train", [])
  ran = tpu("run", *CREATE, "--until_done", wheel, *flags, *TRAIN, *train)
  assert ran.returncode == code, ran.stdout + ran.stderr
  assert words in ran.stdout + ran.stderr and "Traceback" not in ran.stderr
  check_nothing_forgotten(cloud, ran.stdout)
  kept = "--delete_after" not in flags or ending == "deletion fails"
  assert bool(cloud.exists()) == (kept and ending != "creation is refused")
  if code == 0:
    assert cloud.checkpoints() == list(range(1, 9))


def test_exit_code_75_is_no_failure(cloud, wheel):
  ran = tpu("run", *CREATE, "--until_done", "--max_failures=1", wheel, *TRAIN, "--config.end=75@4,0@8")
  assert ran.returncode == 0, ran.stdout + ran.stderr
  assert "training was preempted" in ran.stdout and len(cloud.calls("create")) == 1


def test_listing_fails_for_good(cloud):
  cloud.change(faults=[{"match": "queued-resources list", "times": 999, "text": "PERMISSION_DENIED"}])
  ran = tpu("status")
  assert ran.returncode == 1 and "PERMISSION_DENIED" in ran.stderr
  assert "COULD NOT FIND OUT" in ran.stdout and "Take it that zoo exists and costs money" in ran.stdout
  assert "delete: python -m launch.cloud_tpu delete zoo --zone=us-west4-a" in ran.stdout


def test_interrupt_while_a_command_starts(monkeypatch):
  """The signal that comes when the child lives already, but nobody knows it yet: it waits, and none is left behind."""
  popen = subprocess.Popen

  def interrupted(*args, **options):
    process = popen(*args, **options)
    signal.raise_signal(signal.SIGINT)
    children.append(process)
    return process

  children = []
  monkeypatch.setattr(subprocess, "Popen", interrupted)
  handler = signal.getsignal(signal.SIGINT)
  try:
    with pytest.raises(KeyboardInterrupt):
      gcloud.start(["sleep", "60"])
    assert signal.getsignal(signal.SIGINT) is handler
    gcloud.stop_all()
    assert children[0].poll() == -signal.SIGTERM
  finally:
    children[0].kill()


@pytest.mark.parametrize(
  ("moment", "number", "code"),
  [
    ("queued", signal.SIGINT, 130),
    ("queued", signal.SIGHUP, 129),
    ("installing", signal.SIGINT, 130),
    ("training", signal.SIGINT, 130),
    ("training", signal.SIGTERM, 143),
  ],
)
def test_signals_at_any_moment(cloud, wheel, moment, number, code):
  if moment == "queued":
    cloud.change(pending=10**6)
  if moment == "installing":
    cloud.change(faults=[{"match": "--reinstall-package", "times": 9, "hang": 60}])
  process = begin(
    cloud,
    "run",
    "zoo",
    ZONE,
    *FAST,
    *CREATE,
    "--until_done",
    "--delete_after",
    wheel,
    *TRAIN,
    "--config.end=0@9999",
  )
  started = {
    "queued": lambda: cloud.state()["resources"],
    "training": lambda: len(cloud.checkpoints()) > 3,
    "installing": lambda: any(
      "--reinstall-package" in word for call in cloud.state()["calls"] for word in call
    ),
  }
  wait_for(moment, started[moment], 120)
  process.send_signal(number)
  out, err = process.communicate(timeout=120)
  assert process.returncode == code, out + err
  assert "Traceback" not in err
  assert cloud.exists()  # what was asked for by --delete_after is for the end of training, not of watching
  check_nothing_forgotten(cloud, out)


def test_nohup_stays_nohup(cloud, wheel):
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what is started inherits it
  try:
    command = ["run", "zoo", ZONE, *FAST, *CREATE, "--until_done", "--delete_after", wheel, *TRAIN]
    process = begin(cloud, *command, "--config.end=0@30")
  finally:
    signal.signal(signal.SIGHUP, before)
  wait_for("training", lambda: len(cloud.checkpoints()) > 3, 120)
  process.send_signal(signal.SIGHUP)
  out, err = process.communicate(timeout=120)
  assert process.returncode == 0 and not cloud.exists(), out + err


def test_what_is_left_of_a_lost_tpu_is_deleted_after(cloud, wheel):
  assert tpu("create", *CREATE, "--num_slices=2").returncode == 0 and tpu("setup", wheel).returncode == 0
  cloud.change(preempt_at=[5])
  ran = tpu("run", "--delete_after", *TRAIN, "--config.end=0@9999")
  assert ran.returncode == 75 and "was taken away" in ran.stderr and not cloud.exists(), ran.stdout + ran.stderr


@pytest.mark.parametrize("moment", ["queued", "training"])
def test_what_somebody_deletes_stays_deleted(cloud, wheel, moment):
  cloud.change(deleting=1.5, **({"pending": 10**6} if moment == "queued" else {}))
  command = ["run", "zoo", ZONE, *FAST, *CREATE, "--until_done", wheel, *TRAIN, "--config.end=0@99999"]
  process = begin(cloud, *command)
  started = {"queued": lambda: cloud.state()["resources"], "training": lambda: len(cloud.checkpoints()) > 3}
  wait_for(moment, started[moment], 120)
  deleted = tpu("delete")
  assert deleted.returncode == 0 and "no TPU costs money there" in deleted.stdout, deleted.stdout
  out, err = process.communicate(timeout=120)
  assert process.returncode == 4 and "somebody has deleted zoo: not asking for it again" in err, out + err
  assert len(cloud.calls("create")) == 1 and not cloud.exists()


def test_interrupted_creation_is_not_forgotten(cloud, wheel):
  """gcloud hangs in create; the request may have reached the service or not."""
  cloud.change(faults=[{"match": "queued-resources create", "times": 1, "hang": 60}])
  process = begin(cloud, "create", "zoo", ZONE, *FAST, *CREATE)
  wait_for("create", lambda: cloud.calls("create"), 120)
  process.send_signal(signal.SIGINT)
  out, err = process.communicate(timeout=120)
  assert process.returncode == 130 and not cloud.exists()
  assert "zoo: asked for, not listed; it MAY STILL APPEAR AND COST MONEY" in out
  assert "delete with: python -m launch.cloud_tpu delete zoo" in out


def test_ctrl_c_leaves_training_alone_and_run_finds_it_again(cloud, wheel):
  command = ["run", "zoo", ZONE, *FAST, *CREATE, "--until_done", wheel, *TRAIN, "--config.end=0@99999"]
  process = begin(cloud, *command)
  wait_for("training", lambda: len(cloud.checkpoints()) > 3, 120)
  process.send_signal(signal.SIGINT)
  process.communicate(timeout=120)
  seen = len(cloud.checkpoints())
  wait_for("training to go on", lambda: len(cloud.checkpoints()) > seen, 60)
  other = tpu("run", *TRAIN, "--config.end=0@70")
  assert other.returncode == 2 and "another training runs on zoo" in other.stderr
  check_nothing_forgotten(cloud, other.stdout)
  again = begin(cloud, *command)
  # That the config was not checked, that the TPU is ready, and that nothing new was begun.
  first = [again.stdout.readline() for _ in range(3)]
  assert "this training runs already on zoo: following it" in first[-1], first
  (cloud.folder / "finish").touch()
  out, err = again.communicate(timeout=120)
  assert again.returncode == 0 and "training is done" in out, out + err
  check_nothing_forgotten(cloud, out)
  assert len((cloud.folder / "starts").read_text().split()) == 2 and len(cloud.calls("create")) == 1


def test_detach(cloud, wheel):
  assert tpu("create", *CREATE).returncode == 0 and tpu("setup", wheel).returncode == 0
  ran = tpu("run", "--detach", *TRAIN, "--config.end=0@99999")
  assert ran.returncode == 0 and "goes on without this connection" in ran.stdout
  check_nothing_forgotten(cloud, ran.stdout)
  seen = len(cloud.checkpoints())
  wait_for("training to go on", lambda: len(cloud.checkpoints()) > seen, 60)


def test_create_no_wait_and_others_resources(cloud):
  cloud.change(pending=10**6)
  assert tpu("create", "--no_wait", *CREATE).returncode == 0
  other = tpu("create", "--no_wait", *CREATE, name="zoo-1")
  assert "queued resource zoo-1: WAITING_FOR_RESOURCES, WILL COST MONEY once granted\n" in other.stdout
  assert (
    "queued resource zoo: WAITING_FOR_RESOURCES, WILL COST MONEY once granted (not of this command)"
    in other.stdout
  )
  assert tpu("delete", name="zoo-1").returncode == 0 and cloud.exists() == {"zoo"}


def test_orphaned_slices_are_deleted(cloud):
  assert tpu("create", *CREATE, "--num_slices=2").returncode == 0
  cloud.change(resources={})
  deleted = tpu("delete")
  assert deleted.returncode == 0 and not cloud.exists(), deleted.stdout
