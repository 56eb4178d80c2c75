"""How far the rows are: read from what they write, and shown in a table."""

import io
import json

from rich.console import Console

from launch import ablation, ablation_grid


def test_progress_reads_a_growing_file(tmp_path):
  assert ablation_grid.progress(tmp_path, 10, False) == ablation_grid.Progress("not run")
  ablation_grid.write_json(tmp_path / "row.json", {"status": "training", "message": "", "since": 100.0})
  lines = [
    {"step": s, "split": "train", "time": 10.0 if s == 1 else 90.0 + 5 * s, "loss": 9.0 - s}
    for s in (1, 2, 4, 6)
  ]
  lines.append({"step": 6, "split": "dev", "time": 121.0, "loss": 1.0})
  text = "\n".join(map(json.dumps, lines)) + '\n{"step": 7, "spl'
  (tmp_path / "metrics.jsonl").write_text(text)
  now = ablation_grid.progress(tmp_path, 10, True)
  # From step 2, the first of this start, to 6 it took 5 seconds a step.
  assert (now.status, now.step, now.loss, now.seconds_left) == ("training", 6, 3.0, 20.0)
  left = ablation_grid.progress(tmp_path, 10, False)
  assert (left.status, left.message) == ("stopped", "at step 6 of 10; run again to go on")
  assert [r["step"] for r in ablation_grid.records(tmp_path, tail=150)] == [6, 6]


def test_a_table_fits_its_window():
  entry = lambda name, status: (name, ablation_grid.Progress(status), 10)
  entries = [entry(f"d{i}", "done") for i in range(3)] + [entry("t", "training"), entry("f", "failed")]
  entries += [entry(f"w{i}", "waiting") for i in range(3)]
  names = lambda lines: [name for name, _, _ in ablation.fitted(entries, lines)[0]]
  assert names(8) == ["d0", "d1", "d2", "t", "f", "w0", "w1", "w2"] and ablation.fitted(entries, 8)[1] == ""
  assert names(6) == ["d0", "d1", "d2", "t", "f", "w0"] and ablation.fitted(entries, 6)[1] == "2 more waiting"
  assert (
    names(4) == ["d0", "d1", "t", "f"] and ablation.fitted(entries, 4)[1] == "3 more waiting, 1 more done"
  )
  assert names(2) == ["t", "f"] and names(0) == ["t"]


def test_a_failure_takes_one_line_of_the_live_table():
  failed = ("e_learned_positions", ablation_grid.Progress("failed", "see [/a/log]: " + 60 * "long"), 10)
  heights = []
  for live in (True, False):
    console = Console(width=80, file=io.StringIO())
    console.print(ablation.table([failed], live=live))
    assert "failed: " in console.file.getvalue()
    heights.append(len(console.file.getvalue().splitlines()))
  assert heights[0] == 6 and heights[1] > 6 and "see [/a/log]" in console.file.getvalue()
  assert "…" not in console.file.getvalue()
