"""Several processes, one training run: JAX's multi-controller runtime, from the environment or by hand.

A process that dies ends the others: they fail at the next step that needs it (exit code 1), or JAX notices that its
heartbeat stays away, says which one it was, and aborts (exit code 134, SIGABRT). All started again, they resume from
the newest checkpoint.
"""

import contextlib
import glob
import importlib.util
import os
import sys
import threading
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from attention_zoo.errors import UserError
from attention_zoo.training import compilation


def tpu_chips() -> list[str]:
  return glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")


def hush_libtpu() -> None:
  """Where libtpu is installed to compile for TPUs elsewhere, keeps it from asking around for one and complaining."""
  if not tpu_chips():
    for name, value in {
      "TPU_SKIP_MDS_QUERY": "1",
      "TPU_WORKER_HOSTNAMES": "localhost",
      "TPU_ACCELERATOR_TYPE": "v5litepod-8",
      "TPU_STDERR_LOG_LEVEL": "3",
      "TPU_MIN_LOG_LEVEL": "3",
    }.items():
      os.environ.setdefault(name, value)


def launcher() -> str:
  """What started several processes together, as the environment shows it: 'slurm', 'ompi', 'tpu' or ''."""
  env = os.environ
  if "SLURM_STEP_NODELIST" in env and _slurm_tasks() > 1:
    return "slurm"
  if int(env.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
    return "ompi"
  hosts = env.get("TPU_PROCESS_ADDRESSES", env.get("TPU_WORKER_HOSTNAMES", ""))
  on_tpu_vm = bool(tpu_chips()) and importlib.util.find_spec("libtpu") is not None
  if "tpu" in env.get("JAX_PLATFORMS", "tpu") and ("," in hosts or on_tpu_vm):
    return "tpu"
  return ""


def _slurm_tasks() -> int:
  """Of this step: within an allocation of four tasks, `srun --ntasks=1 --pty bash` starts a step of one."""
  return int(os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS", 1)))


def _others(method, coordinator, num_processes, process_id) -> str:
  """Whom this process waits for."""
  env = os.environ
  where = {
    "": coordinator,
    "slurm": f"Slurm step {env.get('SLURM_JOB_ID')}.{env.get('SLURM_STEP_ID')} on {env.get('SLURM_STEP_NODELIST')}",
    "ompi": f"Open MPI; {env.get('JAX_COORDINATOR_ADDRESS', 'coordinator unknown')}",
    "tpu": env.get("TPU_PROCESS_ADDRESSES", env.get("TPU_WORKER_HOSTNAMES", "Cloud TPU")),
  }[method]
  who = "the other processes" if num_processes is None else f"the other processes of {num_processes}"
  return f"{who} ({where})" if process_id is None else f"{who} ({where}; this is process {process_id})"


def is_joined() -> bool:
  """Whether this is one of several processes."""
  return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
  """Whether this is process 0, or alone. Asks for no devices, which another process may have."""
  return not is_joined() or jax.process_index() == 0


def from_first(text: str) -> str:
  """Process 0's text, on every process; all must ask."""
  if not is_joined():
    return text
  data = np.frombuffer(text.encode(), np.uint8)
  length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
  return multihost_utils.broadcast_one_to_all(np.resize(data, length)).tobytes().decode() if length else ""


def first_then_others(work) -> None:
  """work() on process 0, and when that is done on the others; all must ask. A UserError there ends all."""
  error = None
  if is_first():
    try:
      work()
    except UserError as refusal:
      error = refusal
  if said := from_first("" if error is None else str(error) or "process 0 says why"):
    raise error or UserError(said)
  if not is_first():
    work()


def initialize(coordinator=None, num_processes=None, process_id=None, *, timeout=300, heartbeat=60) -> None:
  """Joins this process to the others, if there are any. Call it before anything asks for devices.

  With no arguments: Cloud TPU, Slurm and Open MPI say who the others are. Otherwise all three are needed: the
  coordinator's host:port (process 0 listens there), the number of processes, and which of them this is.

  timeout: seconds until the others must have come; then the process says so and exits with code 1.
  heartbeat: seconds after which a silent process counts as lost.
  Raises UserError for arguments that are incomplete or do not fit.
  """
  given = (coordinator, num_processes, process_id)
  explicit = any(value is not None for value in given)
  if explicit and any(value is None for value in given):
    raise UserError("--coordinator, --num_processes and --process_id belong together: give all three, or none of them")
  if explicit and not 0 <= process_id < num_processes:
    raise UserError(f"--process_id must be from 0 to {num_processes - 1}, not {process_id}")
  method = "" if explicit else launcher()
  if not explicit and not method:
    return
  if method == "slurm":  # JAX would take the numbers of the whole job
    num_processes, process_id = _slurm_tasks(), int(os.environ["SLURM_PROCID"])
  elif method == "ompi":
    # Open MPI 5 no longer says what JAX looks for; the coordinator then comes from JAX_COORDINATOR_ADDRESS.
    num_processes, process_id = (int(os.environ[f"OMPI_COMM_WORLD_{name}"]) for name in ("SIZE", "RANK"))
  jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM away from `stopping.listen`
  try:
    with _deadline(timeout, _others(method, coordinator, num_processes, process_id)):
      jax.distributed.initialize(
        coordinator,
        num_processes,
        process_id,
        cluster_detection_method="deactivate" if explicit else None,
        initialization_timeout=timeout + 60,
        heartbeat_timeout_seconds=heartbeat,
      )
    compilation.all_or_none()
  except ValueError as error:
    if "coordinator_address" not in str(error):
      raise
    if method == "tpu":
      return  # A TPU machine on its own, with nobody to ask.
    raise UserError(
      "set JAX_COORDINATOR_ADDRESS=HOST:PORT of process 0: the launcher does not say it"
    ) from error


@contextlib.contextmanager
def _deadline(seconds, others, first_word=10):
  """Says whom it waits for, after a while and each minute; in the end ends the process with a message and exit code 1
  where JAX would abort it with a stack trace, or wait."""
  came, start = threading.Event(), time.monotonic()

  def watch():
    pause = first_word
    while (left := seconds - (time.monotonic() - start)) > 0:
      if came.wait(min(pause, left)):
        return
      if (left := seconds - (time.monotonic() - start)) > 0:
        print(f"waiting for {others}, {left:.0f} seconds more", file=sys.stderr, flush=True)
      pause = 60
    print(f"error: {others} did not come within {seconds} seconds", file=sys.stderr, flush=True)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()
  try:
    yield
  finally:
    came.set()
