"""The table of what the compiler says of the papers' configs."""

import json
import subprocess

import pytest

from benchmarks import paper_configs
from tests import config_files

FOUND = {
  "parameters": 1234, "rules": "data_parallel", "topology": "v5e:2x4", "units": 4096, "unit": "tokens",
  "parameter_bytes": 2**30, "optimizer_bytes": 2**31, "hbm_bytes": 2**34, "fits": True, "activation_bytes": 2**29,
  "peak_bytes": 2**33, "unknown_loops": 0, "seconds": {"arithmetic": 0.01, "HBM": 0.02}, "step_seconds": 0.02,
  "mfu": 0.5, "complaint": "",
}  # fmt: skip


@pytest.mark.parametrize(
  ("found", "row"),
  [
    (None, "| `a` | not compiled yet |"),
    ({"error": "failed: why"}, "| `a` | failed: why |"),
    (
      FOUND,
      "| `a` | 1,234 | v5e:2x4, data_parallel | 4,096 tokens | 3.00 | 0.50 | 8.00 of 16.00 | HBM | 20.0 | 50% |",
    ),
    (
      FOUND | {"fits": False, "complaint": "Ran out of memory. More."},
      "| `a` | 1,234 | v5e:2x4, data_parallel | 4,096 tokens | 3.00 | does not fit: Ran out of memory |",
    ),
  ],
)
def test_a_row(found, row):
  assert paper_configs.row("a", found) == row


def test_what_is_known_is_not_compiled_again_and_what_fails_is_told(tmp_path, monkeypatch):
  assert set(paper_configs.CONFIGS) <= set(config_files.NAMES)
  ran = []

  def compiled(command, **_):
    ran.append(command[-1])
    if command[-1].endswith("gnmt_ende"):
      return subprocess.CompletedProcess(command, 1, "", "Traceback\nValueError: a | b\n")
    return subprocess.CompletedProcess(command, 0, "a line before\n" + json.dumps(FOUND), "")

  monkeypatch.setattr(subprocess, "run", compiled)
  for _ in range(2):
    paper_configs.main(["--only=seq2seq/(luong|gnmt)", f"--out={tmp_path}"])
    assert ran == ["seq2seq/luong_ende", "seq2seq/gnmt_ende"]
  lines = (tmp_path / "paper_configs.md").read_text().splitlines()
  assert paper_configs.row("seq2seq/luong_ende", FOUND) in lines
  assert "| `seq2seq/gnmt_ende` | failed: ValueError: a / b |" in lines
  assert "| `transformer_big` | not compiled yet |" in lines
