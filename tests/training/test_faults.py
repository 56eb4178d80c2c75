"""The loop as a program that is killed, stopped, starved of room, and spread over two processes."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from attention_zoo.training import checkpoints, loading, metrics
from attention_zoo.training.lock import Lock
from attention_zoo.training.stopping import Told
from tests import small_run

PROGRAM = pathlib.Path(__file__).with_name("toy_program.py")
FLAGS = ("--train.steps=10", "--train.checkpoint_every=3", "--train.keep=2")


def start(workdir, *flags, stderr=subprocess.PIPE):
  return subprocess.Popen(
    [sys.executable, str(PROGRAM), f"--workdir={workdir}", *FLAGS, *flags],
    stdout=subprocess.PIPE,
    stderr=stderr,
    text=True,
    env={
      name: value for name, value in os.environ.items() if name != "XLA_FLAGS"
    },  # its devices are a flag here
  )


def finish(process, timeout=600):
  """(exit code, digest or '', standard error)."""
  try:
    out, error = process.communicate(timeout=timeout)
  finally:
    process.kill()
  # Gloo writes to standard output too.
  return process.returncode, "".join(line for line in out.splitlines() if line.startswith("digest")), error


def run(*arguments):
  return finish(start(*arguments))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("undisturbed")
  code, digest, error = run(workdir)
  assert code == 0 and digest.startswith("digest"), error
  return workdir, digest


# Step 7 is in the middle of things; at 6 the checkpoint of step 6 is being written.
@pytest.mark.parametrize("step", [6, 7])
def test_killed_and_resumed_is_bit_identical(tmp_path, undisturbed, step):
  code, digest, error = run(tmp_path, f"--kill={step}:SIGKILL")
  assert code == -9 and not digest, error
  assert checkpoints.steps(tmp_path)[-1] in (3, 6)
  code, digest, error = run(tmp_path)
  assert code == 0 and "resuming from step" in error
  assert digest == undisturbed[1]
  assert [(r["step"], r["split"]) for r in metrics.read_metrics(tmp_path)] == [
    (r["step"], r["split"]) for r in metrics.read_metrics(undisturbed[0])
  ]


@pytest.mark.parametrize(("name", "expected"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_a_signal_saves_and_ends_with_its_exit_code(tmp_path, undisturbed, name, expected):
  code, digest, error = run(tmp_path, f"--kill=7:{name}")
  assert code == expected and not digest and "Traceback" not in error
  assert "told to stop: step 9 is saved" in error
  assert checkpoints.steps(tmp_path) == [6, 9]
  assert run(tmp_path)[:2] == (0, undisturbed[1])


def test_a_second_ctrl_c_ends_at_once(tmp_path):
  code, _, error = run(tmp_path, "--kill=7:SIGINT", "--presses=2")
  assert code == 130 and "stopped at once" in error and "Traceback" not in error
  assert checkpoints.steps(tmp_path)[-1] in (3, 6)


@pytest.mark.parametrize(("name", "expected"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_a_signal_before_the_first_step_ends_at_once(tmp_path, undisturbed, name, expected):
  code, _, error = run(tmp_path, f"--kill=0:{name}")
  assert code == expected and "there is nothing new to save" in error
  assert checkpoints.steps(tmp_path) == []
  assert run(tmp_path)[:2] == (0, undisturbed[1])


def test_storage_that_cannot_be_written(tmp_path, undisturbed):
  code, _, error = run(tmp_path, "--limit=0")
  assert code == 2 and "error: cannot write" in error and "lock.json" in error
  assert run(tmp_path, "--kill=4:SIGTERM")[0] == 75
  before = checkpoints.steps(tmp_path)
  code, _, error = run(tmp_path, "--limit=6000")
  assert code == 2
  assert "could not be written" in error and "File too large" in error and f"on disk: {before}" in error
  assert checkpoints.steps(tmp_path) == before
  assert run(tmp_path)[:2] == (0, undisturbed[1])


def free_port():
  with socket.socket() as found:
    found.bind(("localhost", 0))
    return found.getsockname()[1]


def two(workdir, *flags, kill=None):
  """Two processes of four devices; kill: (process, 'STEP:SIGNAL')."""
  port = free_port()
  processes = [
    start(
      workdir,
      "--devices=4",
      f"--process={index}",
      f"--port={port}",
      *flags,
      *([f"--kill={kill[1]}"] if kill and kill[0] == index else []),
    )
    for index in (0, 1)
  ]
  return [finish(process) for process in processes]


@pytest.mark.slow
@pytest.mark.parametrize(
  "flags",
  [(), ("--interleaved=1",), ("--mesh.rules=fsdp+tensor_parallel", "--mesh.fsdp=4", "--mesh.tensor=2")],
  ids=["data_parallel", "interleaved", "fsdp+tensor_parallel"],
)
def test_two_processes_equal_one(tmp_path, undisturbed, flags):
  first, second = two(tmp_path / "two", *flags)
  assert first[0] == second[0] == 0, first[2] + second[2]
  assert (first[1] == second[1]) == (len(flags) < 2)  # both hold the same parameters, or each its part
  assert "step 10/10" in first[2] and "step 10/10" not in second[2]
  # Gloo adds in another order than threads do.
  got, want = (loading.load_params(workdir, 10) for workdir in (tmp_path / "two", undisturbed[0]))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5), got, want)


@pytest.mark.slow
def test_two_processes_stop_together_and_resume_as_one(tmp_path, undisturbed):
  first, second = two(tmp_path, kill=(1, "7:SIGTERM"))
  assert first[0] == second[0] == 75, first[2] + second[2]
  assert checkpoints.steps(tmp_path) == [6, 9]
  code, _, error = run(tmp_path, "--devices=2")
  assert code == 0 and "resuming from step 9" in error, error
  got, want = (loading.load_params(workdir, 10) for workdir in (tmp_path, undisturbed[0]))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5), got, want)


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "step"), [(0, 7), (1, 6)])
def test_a_lost_process_ends_the_other(tmp_path, lost, step):
  results = two(tmp_path, kill=(lost, f"{step}:SIGKILL"))
  assert results[lost][0] == -9
  code, digest, error = results[1 - lost]
  # Never 2, the code of bad input, after which nobody starts again; also where a checkpoint waits for the lost one.
  assert code in (1, -6) and not digest, error
  assert "another task died" in error or "one of several processes failed" in error
  if lost == 0:
    return
  assert {result[0] for result in two(tmp_path)} == {0}


@pytest.mark.slow
def test_two_processes_are_refused_together(tmp_path):
  """Process 0 finds the lock, and the other takes its word."""
  lock = Lock(tmp_path, Told())
  lock.acquire()
  results = two(tmp_path)
  lock.release()
  for code, _, error in results:
    assert code == 2 and f"is in use: process {os.getpid()}" in error and "Traceback" not in error, results


def train_by_hand(workdir, port, process, *flags):
  """`attention_zoo.train` as one of two processes that no launcher started."""
  fields = {f"{group}.{name}": value for group, values in small_run.SMALL.items() for name, value in values.items()}
  return subprocess.Popen(
    [
      *(sys.executable, "-m", "attention_zoo.train", "--config=configs/quickstart.py", f"--workdir={workdir}"),
      *(f"--coordinator=localhost:{port}", "--num_processes=2", f"--process_id={process}"),
      *(f"--config.{name}={value}" for name, value in fields.items()),
      *flags,
    ],
    cwd=PROGRAM.parents[2],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=os.environ | {"XLA_FLAGS": ""},
  )


@pytest.mark.slow
def test_two_processes_started_by_hand(tmp_path, number_files):
  port = free_port()
  flags = (f"--config.data.dir={number_files}", "--config.train.steps=20")
  flags += ("--config.train.dev_samples=2", "--config.decode.dev_sentences=4")  # on the devices of a process alone
  flags += ("--config.train.best_metric=bleu", "--config.train.best_mode=max")  # which process 0 says
  results = [finish(p) for p in [train_by_hand(tmp_path, port, index, *flags) for index in (0, 1)]]
  assert [code for code, _, _ in results] == [0, 0], results
  assert checkpoints.steps(tmp_path) == [10, 20]
  records = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
  (dev,) = (record for record in records if record["split"] == "dev")
  assert dev["bleu"] >= 0 and not any("no examples" in error for _, _, error in results)


def test_sigterm_while_waiting_for_the_others(tmp_path):
  port = free_port()
  with socket.socket() as coordinator:  # one that never answers
    coordinator.bind(("localhost", port))
    coordinator.listen()
    waiting = train_by_hand(tmp_path, port, 1)
    coordinator.settimeout(100)
    with coordinator.accept()[0]:
      waiting.send_signal(signal.SIGTERM)
      code, _, error = finish(waiting, timeout=20)
  assert code == 75 and "there is nothing new to save" in error, error


@pytest.mark.parametrize("process", [0, 1])
def test_others_that_never_come(process):
  address = f"localhost:{free_port()}"
  code = (
    "from attention_zoo.training import distributed\n"
    f"distributed.initialize('{address}', 2, {process}, timeout=3)\n"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, cwd=PROGRAM.parents[2]
  )
  assert result.returncode == 1
  assert result.stderr == (
    f"error: the other processes of 2 ({address}; this is process {process}) did not come within 3 seconds\n"
  )


def test_a_log_on_a_full_disk(tmp_path):
  """What was trained is saved, the exit code is that of storage that cannot be written,
  and the work directory says why."""
  with open("/dev/full", "w") as full:
    assert finish(start(tmp_path, stderr=full))[0] == 2
  assert checkpoints.steps(tmp_path)[-1] in (3, 4, 5)  # the first line is of step 2
  assert (tmp_path / "error.txt").read_text() == "cannot write standard error: No space left on device\n"
  assert run(tmp_path)[0] == 0 and not (tmp_path / "error.txt").exists()


def test_a_reader_that_goes_away_stops_nothing(tmp_path, undisturbed):
  """train 2>&1 | head -1"""
  process = start(tmp_path)
  assert process.stderr.readline()
  process.stderr.close()
  process.stderr = None
  assert finish(process)[:2] == (0, undisturbed[1])
