"""One part of the accelerator benchmark, in a process of its own; and what the parts share."""

import concurrent.futures
import importlib
import json
import os
import pathlib
import statistics
import sys
import time
import traceback

from attention_zoo import files


def about() -> dict:
  import jax

  from benchmarks import common

  device = jax.devices()[0]
  stats = (device.memory_stats() or {}) if device.platform != "cpu" else {}
  return common.environment() | {
    "device": device.device_kind,
    "platform": device.platform,
    "devices": jax.device_count(),
    "memory_gib": round(stats.get("bytes_limit", 0) / 2**30, 1),
  }


class Part:
  """rows: dicts, written to `place` as they come. tiny: the smallest sizes."""

  def __init__(self, place, limit, tiny):
    self.place, self.tiny, self.failures = pathlib.Path(place), tiny, []
    self.end = time.monotonic() + limit
    self.content = {"rows": [], "notes": []}

  def left(self) -> float:
    return self.end - time.monotonic()

  def add(self, **row):
    print(row, flush=True)
    self.content["rows"].append(row)
    if row.get("ok") is False and row["what"] not in self.failures:
      self.failures.append(row["what"])
    self._write()

  def note(self, text):
    print(text, flush=True)
    self.content["notes"].append(text)
    self._write()

  def failed(self, what, error):
    """One thing did not work; the others go on."""
    traceback.print_exception(error)
    self.failures.append(what)
    said = str(error).strip().splitlines() or [""]
    self.note(f"{what}: {type(error).__name__}: {said[0][:300]}")

  def _write(self):
    files.write_text(self.place, json.dumps(self.content, indent=1) + "\n")


def at_once(functions, workers=None):
  """{name: result or exception} of functions run in threads: compiling uses all cores."""

  def call(function):
    try:
      return function()
    except Exception as error:
      return error

  with concurrent.futures.ThreadPoolExecutor(workers or min(16, os.cpu_count() or 1)) as pool:
    return dict(zip(functions, pool.map(call, functions.values()), strict=True))


def seconds(run, *, rounds=5, at_least=0.1):
  """Seconds of a call: the median of rounds of as many calls as take `at_least` seconds.

  run: starts the work and returns its arrays (nothing is waited for inside a round), so that the host's own work is
  hidden where it can be.
  """
  import jax

  jax.block_until_ready(run())
  start = time.perf_counter()
  jax.block_until_ready(run())
  calls = max(1, min(100, round(at_least / max(time.perf_counter() - start, 1e-6))))
  found = []
  for _ in range(rounds):
    start = time.perf_counter()
    for _ in range(calls):
      out = run()
    jax.block_until_ready(out)
    found.append((time.perf_counter() - start) / calls)
  return statistics.median(found)


def main():
  name, place, limit, *rest = sys.argv[1:]
  from attention_zoo.training import distributed

  distributed.hush_libtpu()
  part = Part(place, float(limit) - 5, "--tiny" in rest)
  part._write()
  importlib.import_module(f"benchmarks.accelerator.{name}").run(part)
  if part.failures:
    sys.exit(f"wrong, or not measured: {', '.join(part.failures)}")


if __name__ == "__main__":
  main()
