"""Is a machine right, is it fast, what is slow? On whatever JAX finds: a GPU, a TPU; a CPU with tiny sizes.

  python -m benchmarks.accelerator [--minutes=12] [--out=DIR] [--only=peaks,training] [--tiny]

The parts run one after the other on the first device, each in a process of its own with a time limit of its own, and
the whole ends inside --minutes. A part writes each figure when it has it: what fails or runs out of time says so, keeps
what it had, and the next part runs.

  right      attention, a training step and beam search against the CPU's and float64; a resumed run, bit for bit
  peaks      matrix products and copies: what the ratios are of
  training   base and big, packed rows: tokens/s, MFU, memory, seconds to compile; beside PyTorch
  attention  time, memory and rate of each attention, lengths 256 to 32,768, forward and backward
  decoding   beam 4 and greedy on 3,003 sentences; beside Hugging Face generate
  profile    the operations that take most of a step

The result is DIR/accelerator.json and .md, by default in benchmarks/results/DEVICE/.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time

from attention_zoo import files
from benchmarks import common
from benchmarks.accelerator import report

# Name -> most seconds; also its share of what is left, where that is less than all parts may take.
PARTS = {"right": 200, "peaks": 40, "training": 270, "attention": 150, "decoding": 150, "profile": 90}


def parse(argv):
  options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  options.add_argument(
    "--minutes",
    type=float,
    default=12.0,
    help="all parts together (default: 12; an H100 needs about that, most of it to compile)",
  )
  options.add_argument("--out", type=files.expand, help="default: benchmarks/results/DEVICE")
  options.add_argument("--only", default="", help="names of parts with commas between")
  options.add_argument("--tiny", action="store_true", help="the smallest sizes, to see that it works; always on a CPU")
  arguments = options.parse_args(argv)
  arguments.parts = arguments.only.split(",") if arguments.only else list(PARTS)
  if unknown := [name for name in arguments.parts if name not in PARTS]:
    options.error(f"--only={arguments.only}: {unknown[0]!r} is not one of {', '.join(PARTS)}")
  if arguments.minutes <= 0:
    options.error(f"--minutes={arguments.minutes}: must be above 0")
  return arguments


def main(argv=None):
  arguments = parse(argv)
  end = time.monotonic() + 60 * arguments.minutes
  # What one part has compiled the next need not; empty at the start, so that the first figure is of compiling.
  with tempfile.TemporaryDirectory() as cache:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    return _run_all(arguments, end, argv)


def _run_all(arguments, end, argv):
  about = json.loads(_ask("import json; from benchmarks.accelerator import part; print(json.dumps(part.about()))"))
  given = sys.argv[1:] if argv is None else argv
  given = [option for option in given if not option.startswith("--out")]  # a place on this machine
  about["command"] = shlex.join(["python", "-m", "benchmarks.accelerator", *given])
  if about["platform"] == "cpu":
    arguments.tiny = True
  out = arguments.out or common.RESULTS / about["device"].lower().replace(" ", "_")
  out.mkdir(parents=True, exist_ok=True)
  print(f"{about['device']}, {about['platform']}; results go to {out}", flush=True)
  found = {"benchmark": "accelerator", "environment": about, "tiny": arguments.tiny, "parts": {}}
  if (out / "accelerator.json").exists():  # parts run before stay
    before = json.loads((out / "accelerator.json").read_text())
    if before.get("environment", {}).get("device") == about["device"] and before.get("tiny") == arguments.tiny:
      found["parts"] = before["parts"]
  for number, name in enumerate(arguments.parts, 1):
    left = end - time.monotonic()
    limit = PARTS[name] * min(1, left / sum(PARTS[other] for other in arguments.parts[number - 1 :]))
    print(f"{number} of {len(arguments.parts)}: {name}, {left:.0f} s left in all", flush=True)
    place = out / f"{name}.part.json"
    place.unlink(missing_ok=True)
    start = time.monotonic()
    status = _run(name, place, limit, arguments) if limit > 5 else "not run: no time was left"
    part = json.loads(place.read_text()) if place.exists() else {"rows": []}
    place.unlink(missing_ok=True)
    part |= {"status": status, "seconds": round(time.monotonic() - start, 1), "date": about["date"]}
    part |= {name: about[name] for name in ("command", "python", "versions")}
    found["parts"][name] = part
    files.write_text(out / "accelerator.json", json.dumps(found, indent=1) + "\n")
    files.write_text(out / "accelerator.md", report.page(found))
    print(report.section(name, part), flush=True)
  return 0 if all(part["status"] == "done" for part in found["parts"].values()) else 1


def _run(name, place, limit, arguments):
  """Runs a part; returns "done" or what went wrong."""
  command = [sys.executable, "-m", "benchmarks.accelerator.part", name, str(place), f"{limit:.0f}"]
  command += ["--tiny"] * arguments.tiny
  log = place.with_name("accelerator.log")
  with open(log, "ab") as file:
    file.write(f"\n===== {name}\n".encode())
    file.flush()
    at = file.tell()
    done = subprocess.Popen(
      command, stdout=file, stderr=subprocess.STDOUT, env=_environment(), start_new_session=True
    )
    try:
      done.wait(limit)
    except subprocess.TimeoutExpired:
      return f"stopped after its {limit:.0f} s"
    finally:  # with what it has started, which would run beside the next part
      with contextlib.suppress(ProcessLookupError):
        os.killpg(done.pid, signal.SIGKILL)
      done.wait()
  if done.returncode == 0:
    return "done"
  with open(log, "rb") as file:
    file.seek(at)
    tail = file.read().decode(errors="replace").strip().splitlines()[-4:]
  return f"failed with code {done.returncode}: " + " | ".join(line[:200] for line in tail)


def _environment():
  # Memory is taken when it is asked for: PyTorch runs in the same process. Of several devices the first: peaks are
  # measured on one, and PyTorch has one.
  return os.environ | {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "2",
    "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0],
    "TPU_VISIBLE_CHIPS": "0", "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1",
  }  # fmt: skip


def _ask(code):
  return subprocess.run(
    [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=_environment()
  ).stdout.splitlines()[-1]


if __name__ == "__main__":
  sys.exit(main())
