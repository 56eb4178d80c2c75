"""The table of the kernel's memory is that of the recorded figures, and linear."""

import json

from benchmarks import common, relative_memory


def test_the_table_is_that_of_the_recorded_figures():
  known = json.loads((common.RESULTS / "relative_memory.json").read_text())["found"]
  rows = [relative_memory.row(int(L), found) for L, found in known.items()]
  assert relative_memory.report(rows) == (relative_memory.HERE / "relative_kernel.md").read_text()
  longest = known[str(max(map(int, known)))]
  assert longest["kernel"]["fits"] and not longest["skewing"]["fits"]
