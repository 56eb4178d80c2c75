"""Which devices there are, told without JAX (which would take hold of them), and how `--jobs` share them."""

import dataclasses
import glob
import importlib.util
import os
import pathlib
import platform
import subprocess

from attention_zoo.errors import UserError


@dataclasses.dataclass(frozen=True)
class Slot:
  """A share of the devices: environment of its processes, and the CPU cores that they may use (all if empty)."""

  env: dict
  cores: tuple = ()


@dataclasses.dataclass(frozen=True)
class Devices:
  kind: str  # "gpu", "tpu" or "cpu"
  ids: tuple
  description: str


def _installed(*names):
  return any(importlib.util.find_spec(name) for name in names)


def find():
  """The devices that JAX would use on this machine."""
  wanted = os.environ.get("JAX_PLATFORMS", "").split(",")[0]
  if wanted in ("", "cuda", "gpu") and _installed("jax_cuda13_plugin", "jax_cuda12_plugin"):
    try:
      listing = subprocess.run(
        ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=60
      ).stdout
    except (OSError, subprocess.SubprocessError):
      listing = ""
    names = [
      line.partition(": ")[2].partition(" (")[0] for line in listing.splitlines() if line.startswith("GPU ")
    ]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = map(str, range(len(names))) if visible is None else visible.split(",")
    ids = tuple(number for number in ids if number not in ("", "-1"))  # which hide all
    if names and ids:
      return Devices("gpu", ids, f"{len(ids)} x {names[0]}")
  if wanted in ("", "tpu") and _installed("libtpu"):
    chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    if chips:
      name = os.environ.get("TPU_ACCELERATOR_TYPE", "TPU")
      return Devices("tpu", tuple(map(str, range(len(chips)))), f"{name}, {len(chips)} chips")
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
  return Devices("cpu", tuple(cores), f"{len(cores)} cores of {_processor()}")


def _processor():
  try:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
      if line.startswith("model name"):
        return " ".join(line.partition(":")[2].split())
  except OSError:
    pass
  return platform.processor() or platform.machine()


def partition(devices, jobs):
  """One Slot a job. Raises UserError where the devices cannot be shared evenly.

  Accelerators are dealt out, as many to each job; more jobs than GPUs share their GPU's memory (a TPU chip has one
  process at a time). Jobs on CPU get cores of their own, so that they do not fight for threads.
  """
  count = len(devices.ids)
  own = {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", MALLOC)} if devices.kind == "cpu" else {}
  if jobs == 1:
    return [Slot(own)]
  if devices.kind == "cpu":
    return [_cpu_slot(devices.ids, job, jobs, own) for job in range(jobs)]
  what = {"gpu": "GPUs", "tpu": "TPU chips"}[devices.kind]
  fits = count % jobs == 0 or (devices.kind == "gpu" and jobs % count == 0)
  each = count // jobs
  if devices.kind == "tpu":
    fits = fits and each in _TPU_BOUNDS
  if not fits:
    raise UserError(f"--jobs={jobs} cannot share {count} {what} evenly")
  if devices.kind == "gpu" and jobs > count:
    share = f"{0.9 * count / jobs:.3f}"
    return [
      Slot({"CUDA_VISIBLE_DEVICES": devices.ids[job % count], "XLA_PYTHON_CLIENT_MEM_FRACTION": share})
      for job in range(jobs)
    ]
  parts = [",".join(devices.ids[job * each : (job + 1) * each]) for job in range(jobs)]
  if devices.kind == "gpu":
    return [Slot({"CUDA_VISIBLE_DEVICES": part}) for part in parts]
  return [_tpu_slot(part, each, job) for job, part in enumerate(parts)]


# malloc with big pages that it keeps: on CPUs a step's buffers would be zeroed anew by the kernel each time.
MALLOC = (
  "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736"
)

_TPU_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1"}


def _tpu_slot(chips, each, job):
  """Processes of one machine that do not know of each other, each with chips and a port of its own."""
  port = str(8476 + job)
  return Slot(
    {
      "TPU_VISIBLE_CHIPS": chips,
      "TPU_CHIPS_PER_PROCESS_BOUNDS": _TPU_BOUNDS[each],
      "TPU_PROCESS_BOUNDS": "1,1,1",
      "TPU_MESH_CONTROLLER_ADDRESS": f"localhost:{port}",
      "TPU_MESH_CONTROLLER_PORT": port,
    }
  )


def _cpu_slot(cores, job, jobs, own):
  if jobs >= len(cores):
    mine = (cores[job % len(cores)],)
  else:
    mine = tuple(cores[job * len(cores) // jobs : (job + 1) * len(cores) // jobs])
  threads = str(len(mine))
  return Slot(own | {"OMP_NUM_THREADS": threads, "NPROC": threads}, mine)
