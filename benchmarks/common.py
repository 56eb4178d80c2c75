"""What the benchmarks share: a described machine, sides timed in turn, one table, one JSON file."""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import statistics
import sys
import time

from attention_zoo import files
from launch.ablation_devices import MALLOC

RESULTS = pathlib.Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "transformers", "ctranslate2")


def parser(description, rounds=3):
  """The options every benchmark has."""
  options = argparse.ArgumentParser(description=description.split("\n")[0])
  options.add_argument("--rounds", type=int, default=rounds, help="how often each side is timed, in turn")
  options.add_argument("--tiny", action="store_true", help="the smallest sizes, to see that it works")
  options.add_argument("--out", type=files.expand, default=RESULTS, help="directory of the JSON file")
  return options


def prepare(devices=None):
  """Malloc with big pages that it keeps, on every side alike, and `devices` simulated devices; restarts to set them.

  To be called before anything asks JAX for devices.
  """
  wanted = {"GLIBC_TUNABLES": MALLOC}
  if devices:
    wanted["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
  missing = {name: value for name, value in wanted.items() if name not in os.environ}
  if missing:
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | missing)
  from attention_zoo.training import distributed

  distributed.hush_libtpu()


def cores() -> int:
  return len(os.sched_getaffinity(0))


def alternate(sides, rounds, warmup=1):
  """{name: seconds of each round} of functions that return when their work is done, called A B A B ..."""
  seconds = {name: [] for name in sides}
  for _ in range(warmup):
    for run in sides.values():
      run()
  for _ in range(rounds):
    for name, run in sides.items():
      start = time.perf_counter()
      run()
      seconds[name].append(time.perf_counter() - start)
  return seconds


def spread(values):
  """(minimum, median, maximum)."""
  return min(values), statistics.median(values), max(values)


def ratios(seconds, ours, peer):
  """How many times faster `ours` was than `peer`, round by round: (minimum, median, maximum)."""
  return spread([b / a for a, b in zip(seconds[ours], seconds[peer], strict=True)])


def side_rows(seconds, amount, ours, unit="tokens/s"):
  """Table rows: the rate of each side in amount per second, and how many times faster the first of `ours` is."""
  rows = []
  for name, times in seconds.items():
    rate = _numbers(spread([amount / t for t in times]), "{:,.0f}")
    rows.append(
      (name, f"{rate} {unit}", "" if name == ours else _numbers(ratios(seconds, ours, name), "{:.2f}"))
    )
  return rows


def _numbers(values, form):
  low, median, high = map(form.format, values)
  return f"{median} ({low} to {high})"


def busy(seconds=1.0) -> float:
  """How many cores other work keeps busy; a measurement wants about 0."""

  def ticks():
    fields = [int(x) for x in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields), fields[3] + fields[4]

  try:
    (total, idle), _, (total_after, idle_after) = ticks(), time.sleep(seconds), ticks()
  except OSError:
    return float("nan")
  return (1 - (idle_after - idle) / max(total_after - total, 1)) * os.cpu_count()


def environment() -> dict:
  """Device, processor, versions, command and date; and whether the machine was idle."""
  import jax

  cpu = {}
  try:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
      name, _, value = line.partition(":")
      cpu.setdefault(name.strip(), value.strip())
  except OSError:
    pass
  versions = {}
  for name in PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      pass
  return {
    "command": shlex.join(["python", "-m", getattr(sys.modules["__main__"].__spec__, "name", "?"), *sys.argv[1:]]),
    "date": datetime.date.today().isoformat(),
    "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    "processor": f"{cpu.get('vendor_id', platform.machine())} {cpu.get('model name', '')}".strip(),
    "cores": cores(),
    "units": [
      flag
      for flag in ("avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
      if flag in cpu.get("flags", "").split()
    ],
    "python": platform.python_version(),
    "versions": versions,
    "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", ""),
    "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    "cores_busy_before": round(busy(), 2),
  }  # fmt: skip


def publish(name, title, columns, rows, notes, results, out):
  """Prints the table and writes all there is to out/NAME.json. results must hold "environment"."""
  import rich.console
  import rich.table

  about = results["environment"]
  table = rich.table.Table(*columns, title=title, title_justify="left")
  for row in rows:
    table.add_row(*map(str, row))
  console = rich.console.Console(width=120)
  console.print(table)
  versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
  for line in (
    *notes,
    f"{about['processor']}, {about['cores']} cores ({', '.join(about['units'])}), {about['device']}; {versions}",
  ):
    console.print(line, highlight=False)
  if about["cores_busy_before"] > 0.2:
    console.print(f"NOT IDLE: other work kept {about['cores_busy_before']} cores busy before the start")
  content = {"benchmark": name, "title": title, "columns": columns, "rows": rows, "notes": notes} | results
  path = out / f"{name}.json"
  files.write_text(path, json.dumps(content, indent=1) + "\n")
  console.print(f"written: {path}", highlight=False)
