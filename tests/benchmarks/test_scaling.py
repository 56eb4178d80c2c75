"""The tables of predictions say what they do not know."""

import json

from benchmarks import scaling

SETTING = scaling.Setting("base", "v5e:2x4")
FOUND = {
  "fits": True, "parameter_bytes": 2**29, "optimizer_bytes": 2**30, "row_length": 256, "activation_bytes": 2**30,
  "peak_bytes": 2**31, "collectives": {"all-reduce": [6, 2**20, 1.0]}, "unknown_loops": 0,
  "seconds": {"HBM": 0.01, "links": 0.002}, "step_seconds": 0.01, "mfu": 0.5, "tokens_per_second": 1000.0,
  "steps": 60000,
}  # fmt: skip


def test_a_row_says_how_many_loops_were_counted_once():
  known = "| 6 all-reduce, 1 MiB | HBM | 10.00 | 50% | 1,000 | 10 min"
  assert scaling.row(SETTING, FOUND).endswith(known)
  some = scaling.row(SETTING, FOUND | {"unknown_loops": 992})
  assert some.endswith(known.replace("MiB", "MiB; 992 loops of unknown length, counted once"))


def test_the_tables_are_those_of_the_recorded_figures():
  known = json.loads((scaling.HERE / "scaling.json").read_text())
  assert scaling.report(known) == (scaling.HERE / "scaling.md").read_text()
