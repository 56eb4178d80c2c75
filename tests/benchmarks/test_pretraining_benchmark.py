"""The benchmark of pretraining, from files to its table, at the smallest sizes."""

import json
import sys

import pytest

from benchmarks import pretraining

WORDS = ("good", "bad", "fine", "poor", "film", "plot")


@pytest.mark.slow
def test_it_makes_a_table(tmp_path, monkeypatch, capsys):
  (tmp_path / "sst2").mkdir()
  lines = [f"{i % 2} a {WORDS[i % 4]} {WORDS[4 + i % 2]} , {WORDS[(i + 2) % 4]} {i % 7}" for i in range(64)]
  for split in ("train", "dev", "test"):
    (tmp_path / "sst2" / f"{split}.txt").write_text("\n".join(lines) + "\n")
  options = [f"--sst2={tmp_path / 'sst2'}", f"--workdir={tmp_path / 'runs'}", "--rows=random_gpt,gpt", "--seeds=2"]
  monkeypatch.setattr(pretraining, "vocabulary", lambda args: 275)
  monkeypatch.setattr(sys, "argv", ["pretraining", *options, "--pretraining_steps=2", "--steps=2", "--tiny"])
  pretraining.main()
  out = capsys.readouterr().out
  assert "sst2   random_gpt     accuracy" in out and "sst2   gpt " in out
  record = json.loads((tmp_path / "runs" / "sst2.json").read_text())
  assert {name: len(scores) for name, scores in record["scores"].items()} == {"random_gpt": 2, "gpt": 2}
  assert (tmp_path / "runs" / "sst2_text" / "train.txt").read_text().startswith("a good film , fine 0\n")
