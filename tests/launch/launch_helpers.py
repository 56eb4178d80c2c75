"""What the tests of launch/ share."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
# Of launch.cloud_tpu
ZONE = "--zone=us-west4-a"
FAST = ["--poll=0.2"]
CREATE = ["--accelerator_type=v5litepod-16"]
TRAIN = ["--", "--config=configs/quickstart.py", "--workdir=gs://bucket/run"]


def wait_for(what, condition, seconds):
  """Polls until `condition()` is true and returns its value."""
  deadline = time.monotonic() + seconds
  while time.monotonic() < deadline:
    if value := condition():
      return value
    time.sleep(0.2)
  raise AssertionError(f"waited {seconds} s for {what}")


def free_port():
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    return listener.getsockname()[1]


def launch(module, *args, cwd, env=None, timeout=300, python=(), errors="strict"):
  """Runs `python -m launch.MODULE` in `cwd` and returns the finished process. python: flags of Python's own.
  errors: how bytes that it prints and that are no UTF-8 are read."""
  env = dict(os.environ if env is None else env, PYTHONPATH=str(ROOT))
  return subprocess.run(
    [sys.executable, *python, "-m", f"launch.{module}", *map(str, args)],
    cwd=cwd,
    env=env,
    capture_output=True,
    encoding="utf-8",
    errors=errors,
    timeout=timeout,
    stdin=subprocess.DEVNULL,
  )


def tpu(command, *flags, cwd="/", timeout=300, name="zoo"):
  """-S, without site-packages: as on a machine without JAX, which takes the stand-in trainer's flags as they are."""
  return launch("cloud_tpu", command, name, ZONE, *FAST, *flags, cwd=cwd, timeout=timeout, python=["-S"])


class Cloud:
  """What a test sees of the stand-in Cloud TPU service (see fake_gcloud.py)."""

  def __init__(self, folder):
    self.folder = folder
    self.launchers = []  # to be ended with the test

  def state(self):
    return json.loads((self.folder / "state.json").read_text())

  def change(self, **items):
    path = self.folder / "state.json"
    path.write_text(json.dumps((self.state() if path.exists() else {}) | items))

  def homes(self):
    return sorted((self.folder / "workers").iterdir())

  def checkpoints(self):
    return sorted(int(path.name) for path in (self.folder / "gs").glob("**/checkpoints/*"))

  def exists(self):
    state = self.state()
    return set(state["resources"]) | set(state["nodes"])

  def calls(self, *words):
    return [call for call in self.state()["calls"] if set(words) <= set(call)]
