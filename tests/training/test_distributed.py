import re
import time

import pytest

from attention_zoo.errors import UserError
from attention_zoo.training import distributed


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
  for name in (
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_PROCID",
    "OMPI_COMM_WORLD_SIZE",
    "TPU_WORKER_HOSTNAMES",
    "TPU_PROCESS_ADDRESSES",
  ):
    monkeypatch.delenv(name, raising=False)


@pytest.fixture
def calls(monkeypatch):
  found = []
  monkeypatch.setattr(distributed.jax.distributed, "initialize", lambda *a, **k: found.append((a, k)))
  return found


def test_alone(calls):
  assert distributed.launcher() == ""
  distributed.initialize()
  assert calls == []


@pytest.mark.parametrize(
  ("environment", "launcher"),
  [
    ({"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, "slurm"),
    # srun --ntasks=1 --pty bash, and srun --ntasks=2, inside an allocation of four
    ({"SLURM_STEP_NODELIST": "node1", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, ""),
    ({"SLURM_STEP_NODELIST": "node1", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, "slurm"),
    ({"SLURM_STEP_NODELIST": "node1", "SLURM_NTASKS": "1"}, ""),
    ({"SLURM_NTASKS": "2"}, ""),  # in the batch script itself, outside of srun
    ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"}, "ompi"),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "tpu,cpu"}, "tpu"),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "cpu"}, ""),
  ],
)
def test_launchers(monkeypatch, calls, environment, launcher):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  assert distributed.launcher() == launcher
  distributed.initialize()
  assert len(calls) == bool(launcher)
  if launcher == "slurm":
    assert calls[0][0] == (None, 2, 1)


def test_by_hand(calls):
  distributed.initialize("host:1234", 2, 1, timeout=7, heartbeat=9)
  ((arguments, options),) = calls
  assert arguments == ("host:1234", 2, 1)
  assert options["initialization_timeout"] == 67 and options["heartbeat_timeout_seconds"] == 9
  with pytest.raises(UserError, match="belong together"):
    distributed.initialize("host:1234")
  with pytest.raises(UserError, match="from 0 to 1, not 2"):
    distributed.initialize("host:1234", 2, 2)


def test_while_it_waits_it_says_for_whom(monkeypatch, capsys):
  monkeypatch.setenv("SLURM_JOB_ID", "12")
  monkeypatch.setenv("SLURM_STEP_ID", "3")
  monkeypatch.setenv("SLURM_STEP_NODELIST", "node[1-4]")
  with distributed._deadline(100, distributed._others("slurm", None, 4, 2), first_word=0.1):
    time.sleep(0.5)
  (line,) = capsys.readouterr().err.splitlines()
  assert re.fullmatch(
    r"waiting for the other processes of 4 \(Slurm step 12.3 on node\[1-4\]; this is process 2\), "
    r"(100|99) seconds more",
    line,
  )


def test_a_tpu_machine_on_its_own(monkeypatch):
  def fail(*_, **__):
    raise ValueError("coordinator_address should be defined.")

  monkeypatch.setattr(distributed.jax.distributed, "initialize", fail)
  monkeypatch.setattr(distributed, "launcher", lambda: "tpu")
  distributed.initialize()
  monkeypatch.setenv("SLURM_PROCID", "0")
  monkeypatch.setattr(distributed, "launcher", lambda: "slurm")
  with pytest.raises(UserError, match="JAX_COORDINATOR_ADDRESS"):
    distributed.initialize()
