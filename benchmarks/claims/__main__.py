"""The claims of the lectures as commands: python -m benchmarks.claims NAME ... | all

Each prints claimed | analytic | measured, and writes NAME.json, NAME.png and the table of all claims, RESULTS.md,
under benchmarks/claims/results (or --out).
"""

import argparse
import importlib
import pathlib

from attention_zoo import files
from attention_zoo.training import distributed
from benchmarks.claims import report

NAMES = ("flops", "relative_memory", "path_length", "one_head", "saturation", "residuals", "scaling", "bottleneck")
# These train several models, which takes longer than the rest together: `all` leaves them out.
SLOW = ("residuals", "bottleneck")


def main():
  parser = argparse.ArgumentParser(prog="python -m benchmarks.claims", description=__doc__.split("\n")[0])
  parser.add_argument(
    "names", nargs="+", metavar="NAME", choices=[*NAMES, "all"],
    help=", ".join([*NAMES, f"all (but {', '.join(SLOW)}, which take long)"]),
  )
  parser.add_argument("--quick", action="store_true", help="the smallest sizes, to see that it works")
  parser.add_argument("--out", type=files.expand, default=pathlib.Path(__file__).parent / "results")
  arguments = parser.parse_args()
  distributed.hush_libtpu()
  names = [name for name in NAMES if name not in SLOW] if "all" in arguments.names else arguments.names
  for name in names:
    report.run(name, importlib.import_module(f"benchmarks.claims.{name}"), arguments.out, arguments.quick)
  report.write_table([name for name in NAMES if (arguments.out / f"{name}.json").exists()], arguments.out)


if __name__ == "__main__":
  main()
