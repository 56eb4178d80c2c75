"""The table of the kernel's memory is that of the recorded figures; the benchmark for GPUs runs, interpreted."""

import json

from benchmarks import common, relative_gpu, relative_memory


def test_errors_of_the_kernels_for_gpus(tmp_path, monkeypatch):
  monkeypatch.setattr(common, "busy", lambda: 0.0)
  relative_gpu.main(["--tiny", f"--out={tmp_path}"])
  rows = json.loads((tmp_path / "relative_gpu.json").read_text())["rows"]
  assert len(rows) == 4 and all(float(kernel) < 2 * float(einsum) < 0.1 for _, kernel, einsum, _ in rows)



def test_the_table_is_that_of_the_recorded_figures():
  known = json.loads((common.RESULTS / "relative_memory.json").read_text())["found"]
  rows = [relative_memory.row(int(L), found) for L, found in known.items()]
  assert relative_memory.report(rows) == (relative_memory.HERE / "relative_kernel.md").read_text()
  longest = known[str(max(map(int, known)))]
  assert longest["kernel"]["fits"] and not longest["skewing"]["fits"]
