"""The table of results prints what the lectures do, and what a run of ours says of itself."""

import json

import pytest

from attention_zoo.configs import quickstart
from attention_zoo.errors import UserError
from attention_zoo.training.config import to_json
from benchmarks import results_table
from tests.small_run import SMALL

# Of the lectures: English-German and English-French, BLEU and FLOPs.
LECTURES = {
  "bytenet": (23.75, None, None, None),
  "deep_att": (None, 39.2, None, 1.0e20),
  "gnmt": (24.6, 39.92, 2.3e19, 1.4e20),
  "conv_s2s": (25.16, 40.46, 9.6e18, 1.5e20),
  "moe": (26.03, 40.56, 2.0e19, 1.2e20),
  "deep_att_ensemble": (None, 40.4, None, 8.0e20),
  "gnmt_ensemble": (26.30, 41.16, 1.8e20, 1.1e21),
  "conv_s2s_ensemble": (26.36, 41.29, 7.7e19, 1.2e21),
  "transformer_base": (27.3, 38.1, 3.3e18, 3.3e18),
  "transformer_big": (28.4, 41.8, 2.3e19, 2.3e19),
}


def test_the_rows_are_the_lectures():
  found = {s.key: (s.en_de.bleu, s.en_fr.bleu, s.en_de.flops, s.en_fr.flops) for s in results_table.SYSTEMS}
  assert found == LECTURES


def test_the_formula_gives_the_printed_costs():
  assert results_table.flops(8, 12 * 3600, 9.5) == pytest.approx(3.28e18, rel=1e-3)
  assert results_table.flops(8, 3.5 * 24 * 3600, 9.5) == pytest.approx(2.30e19, rel=1e-3)
  known = [t for s in results_table.SYSTEMS for t in (s.en_de, s.en_fr) if t.gpus]
  assert len(known) == 8
  for training in known:
    assert training.cost == pytest.approx(training.flops, rel=0.03)


def run(folder, **files):
  config = quickstart.get_config()
  for group, fields in SMALL.items():
    config[group].update(fields)
  (folder / "eval").mkdir(parents=True)
  (folder / "config.json").write_text(to_json(config))
  speeds = [{"step": s, "split": "train", "weight": 50_000.0, "tokens_per_second": 500.0} for s in (10, 20)]
  (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in speeds))
  for name, score in files.items():
    bleu = [{"name": "sacreBLEU", "score": score, "signature": "nrefs:1"}, {"name": "other", "score": 1.0}]
    record = {"checkpoint": name, "step": "40", "split": "test", "bleu": bleu}
    (folder / "eval" / f"test-{name}.json").write_text(json.dumps(record))
  return config


def test_a_run_of_ours_stands_in_its_row(tmp_path, capsys):
  config = run(tmp_path / "run", average=91.25, latest=88.0)
  results_table.main([f"--runs=transformer_base={tmp_path / 'run'}", f"--out={tmp_path}"])
  found = json.loads((tmp_path / "results_table" / "results_table.json").read_text())
  ours = {row["key"]: row["ours"] for row in found["systems"]}
  assert ours.pop("transformer_base")["bleu"] == 91.25 and set(ours.values()) == {None}
  (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| Transformer base")]
  per_step = results_table.counted_flops(config)
  # 10 steps have 50,000 tokens, which take 100 seconds: 40 steps take 400.
  cells = ["text en-de", "91.2", "40", results_table.power(40 * per_step), "0.11"]
  assert [cell.strip() for cell in row.strip("|").split("|")][-5:] == cells
  assert (tmp_path / "results_table" / "results_table.md").read_text() == results_table.page(found)


def test_base_and_big_are_counted():
  """About 6 operations for each parameter and token: 63 and 214 million, 24,576 tokens a step on either side."""
  known = json.loads((results_table.common.RESULTS / "results_table" / "results_table.json").read_text())
  counted = {row["key"]: row["counted"] for row in known["systems"] if row["counted"]}
  assert counted == {
    "transformer_base": pytest.approx(6 * 63e6 * 24576 * 100_000, rel=0.15),
    "transformer_big": pytest.approx(6 * 214e6 * 24576 * 300_000, rel=0.15),
  }


def test_the_operations_of_a_step_are_counted():
  """Of the quickstart shrunk to one layer: 6 for each weight and token, and attention's products."""
  config = quickstart.get_config()
  for group, fields in SMALL.items():
    config[group].update(fields)
  D, F, V, T = 32, 64, 200, 32
  tokens = 1024
  encoder = 4 * D * D + 2 * D * F + 2 * T * D
  decoder = 8 * D * D + 2 * D * F + 4 * T * D
  wanted = 6 * tokens * (encoder + decoder + V * D)
  assert results_table.counted_flops(config) == pytest.approx(wanted, rel=0.1)


def test_what_cannot_be_read_is_told(tmp_path):
  with pytest.raises(UserError, match="no system is called 'byte'; there are bytenet, "):
    results_table.parse_runs("byte=x")
  with pytest.raises(UserError, match="write NAME=DIR, not 'bytenet'"):
    results_table.parse_runs("bytenet")
  run(tmp_path / "run")
  with pytest.raises(UserError, match=r"no eval/test-\*.json: python -m attention_zoo.evaluate"):
    results_table.read_run(tmp_path / "run")


def test_the_file_is_that_of_the_recorded_figures():
  folder = results_table.common.RESULTS / "results_table"
  known = json.loads((folder / "results_table.json").read_text())
  assert (folder / "results_table.md").read_text() == results_table.page(known)
