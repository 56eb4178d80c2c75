"""Runs a claim, prints its table and keeps what came out.

A claim is a module with TITLE, SOURCE (what is claimed, and where), measure(quick) and draw(results). measure returns
plain data with "rows", each (what, claimed, analytic, measured): numbers, texts or None; draw makes the figure of it.
"""

import datetime
import json
import os
import pathlib
import platform
import time

import jax
import matplotlib
import numpy as np
import rich.console
import rich.table

from attention_zoo import files
from attention_zoo.plots.theme import STYLE

COLUMNS = ("", "claimed", "analytic", "measured")


def run(name, claim, out, quick):
  """Measures one claim, prints it, and writes NAME.json and NAME.png into the directory out."""
  start = time.perf_counter()
  results = claim.measure(quick)
  results |= {
    "title": claim.TITLE,
    "source": claim.SOURCE,
    "seconds": time.perf_counter() - start,
    "run": _context(quick),
  }
  table = rich.table.Table(*COLUMNS, title=claim.TITLE, title_justify="left")
  for row in results["rows"]:
    table.add_row(*map(text, row))
  rich.console.Console(width=110).print(table, f"{results['seconds']:.0f} s\n")
  files.write_text(out / f"{name}.json", json.dumps(results, indent=1) + "\n")
  draw(name, claim, results, out)


def draw(name, claim, results, out):
  """Writes NAME.png."""
  # The house's style takes texts as they are, but ticks of logarithmic axes are powers of ten.
  with matplotlib.rc_context(STYLE | {"text.parse_math": True}):
    figure = claim.draw(results)
    with files.replacing(out / f"{name}.png") as path:
      figure.savefig(path, dpi=130, format="png")


def write_table(names, out):
  """Makes RESULTS.md of the JSON files of the claims in the directory out."""
  lines = [
    "# Claims, measured",
    "",
    "Made by `python -m benchmarks.claims`; run a claim again to renew its part.",
    "",
  ]
  for name in names:
    results = json.loads((out / f"{name}.json").read_text())
    run = results["run"]
    lines += [f"## {name}: {results['title']}", "", results["source"], ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "| --- | ---: | ---: | ---: |"]
    lines += ["| " + " | ".join(map(text, row)) + " |" for row in results["rows"]]
    lines += ["", f"![{name}]({name}.png)"]
    lines += ["", f"`{run['command'].format(name=name)}`, {results['seconds']:.0f} s, {run['date']}, {run['device']}, "
              f"JAX {run['jax']}, Python {run['python']}", ""]  # fmt: skip
  files.write_text(out / "RESULTS.md", "\n".join(lines))


def text(value):
  """A table cell: a dash for None, four digits of a number, texts as they are."""
  if value is None:
    return "–"
  if isinstance(value, str):
    return value
  if value == 0 or 1e-2 <= abs(value) < 1e4:
    return f"{value:.4g}"
  mantissa, exponent = f"{value:.3e}".split("e")
  return f"{mantissa}e{int(exponent)}"


def log_slope(x, y):
  """The exponent of the power law through the points (least squares on logarithms)."""
  return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _context(quick):
  device = jax.devices()[0]
  kind = _processor() if device.platform == "cpu" else device.device_kind
  return {
    "command": "python -m benchmarks.claims {name}" + (" --quick" if quick else ""),
    "date": datetime.date.today().isoformat(),
    "device": f"{kind}, {len(os.sched_getaffinity(0))} cores" if device.platform == "cpu" else kind,
    "jax": jax.__version__,
    "python": platform.python_version(),
  }


def _processor():
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    return platform.processor()
  return next(
    (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
  )
