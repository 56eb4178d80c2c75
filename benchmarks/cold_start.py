"""Seconds from the start of the process to the first training step of the base model, done.

  python -m benchmarks.cold_start [--rows=8 --length=64 --rounds=3]

Without the persistent compilation cache, and with it filled by a run before. Interpreter, imports, initialisation,
compilation and the step itself are all in it; reading data is not.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

from benchmarks import common


def first_step(arguments):
  """What the measured process does; prints the seconds of its parts and of a second step."""
  marks = [time.perf_counter()]
  from benchmarks import train_step

  config = train_step.make_config(arguments.tiny, False, 0.1, arguments.rows, arguments.length)
  batch = train_step.random_batch(config.data.vocab_size, arguments.rows, arguments.length)
  import jax

  jax.devices()
  from attention_zoo.training import loop  # noqa: F401

  marks.append(time.perf_counter())
  _, step = train_step.make_step(config, batch)
  marks.append(time.perf_counter())
  for _ in range(2):
    step()
    marks.append(time.perf_counter())
    print(json.dumps([b - a for a, b in zip(marks, marks[1:], strict=False)]), flush=True)


def measure(arguments, cache):
  """Seconds until the process says that its first step is done, and the parts it reports in the end."""
  variables = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}
  if cache:
    variables |= {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
  command = [sys.executable, "-m", "benchmarks.cold_start", "--child", f"--rows={arguments.rows}"]
  command += [
    f"--length={arguments.length}",
    f"--devices={arguments.devices}",
    *(["--tiny"] if arguments.tiny else []),
  ]
  start = time.perf_counter()
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables) as process:
    process.stdout.readline()
    seconds = time.perf_counter() - start
    parts = json.loads(process.stdout.readline())
  if process.returncode:
    raise SystemExit(f"the measured process failed with exit code {process.returncode}")
  return seconds, dict(zip(("imports", "initialisation", "first step", "second step"), parts, strict=True))


def parse(argv):
  options = common.parser(__doc__)
  options.add_argument("--rows", type=int, default=8)
  options.add_argument("--length", type=int, default=64)
  options.add_argument("--devices", type=int, default=common.cores())
  options.add_argument("--child", action="store_true", help="be the measured process")
  return options.parse_args(argv)


def main(argv=None):
  arguments = parse(argv)
  common.prepare(arguments.devices)
  if arguments.child:
    first_step(arguments)
    return
  settings = {name: value for name, value in vars(arguments).items() if name != "out"}
  results = {"environment": common.environment(), "settings": settings, "runs": {}}
  rows = []
  with tempfile.TemporaryDirectory() as cache:
    measure(arguments, cache)  # fills the cache, and the page cache for both
    runs = {"without the compilation cache": [], "with it": []}
    for _ in range(arguments.rounds):
      for name, where in zip(runs, (None, cache), strict=True):
        runs[name].append(measure(arguments, where))
  for name, found in runs.items():
    low, median, high = common.spread([seconds for seconds, _ in found])
    parts = {part: common.spread([parts[part] for _, parts in found])[1] for part in found[0][1]}
    results["runs"][name] = {"seconds": [seconds for seconds, _ in found], "median_parts": parts}
    rows.append(
      (name, f"{median:.1f} ({low:.1f} to {high:.1f})", *(f"{value:.1f}" for value in parts.values()))
    )
  columns = (
    "",
    "seconds to the first step: median (min to max)",
    "imports",
    "initialisation",
    "first step",
    "second step",
  )
  title = f"Cold start, base, {arguments.rows} x {arguments.length} tokens a side"
  common.publish("cold_start", title, columns, rows, [], results, arguments.out)


if __name__ == "__main__":
  main()
