"""The accelerator benchmark runs where there is none, at the smallest sizes; what fails says so, the rest goes on."""

import json

import pytest

from benchmarks.accelerator import __main__ as accelerator
from benchmarks.accelerator import lengths, profile, report, training


def run(out, *options):
  code = accelerator.main(["--tiny", "--minutes=60", f"--out={out}", *options])
  return code, json.loads((out / "accelerator.json").read_text())["parts"], (out / "accelerator.md").read_text()


@pytest.mark.slow
def test_all_parts(tmp_path, monkeypatch):
  monkeypatch.setattr(accelerator, "PARTS", dict.fromkeys(accelerator.PARTS, 900))  # it may be busy
  code, parts, page = run(tmp_path)
  assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(accelerator.PARTS, "done")
  assert code == 0
  assert all(row["ok"] for row in parts["right"]["rows"])
  assert "a run resumed in the middle, bit for bit" in [row["what"] for row in parts["right"]["rows"]]
  assert all(row["milliseconds"] > 0 for row in parts["attention"]["rows"])
  assert {row["what"] for row in parts["decoding"]["rows"]} >= {"beam 4", "greedy"}
  assert parts["training"]["rows"][1]["tokens_per_second"] > 0
  assert any(row["origin"] for row in parts["profile"]["rows"])
  assert "The smallest sizes" in page and "| product, bfloat16 | 256 |" in page


def test_a_part_that_fails_says_why_and_the_next_one_runs(tmp_path, monkeypatch):
  monkeypatch.setattr(accelerator, "PARTS", {"missing": 60, "peaks": 60})
  code, parts, page = run(tmp_path)
  assert code == 1
  assert parts["missing"]["status"].startswith("failed with code 1") and "benchmarks.accelerator.missing" in page
  assert parts["peaks"]["status"] == "done" and len(parts["peaks"]["rows"]) == 4
  # Another call keeps what it does not run anew.
  monkeypatch.setattr(accelerator, "PARTS", {"right": 6})
  code, parts, _ = run(tmp_path)
  assert code == 1 and parts["right"]["status"] == "stopped after its 6 s" and "missing" in parts


@pytest.mark.parametrize("option", ["--only=speed", "--minutes=0"])
def test_bad_options(option, capsys):
  with pytest.raises(SystemExit) as error:
    accelerator.main([option])
  assert error.value.code == 2 and option.partition("=")[2] in capsys.readouterr().err


def test_model_flops_of_base():
  """The closed form is what the paper's table of sizes gives: 6 operations for each parameter that multiplies."""
  from attention_zoo.models.translation.transformer import Config

  config = Config(vocab_size=32_000)
  D, F, layers = 512, 2048, 6
  products = layers * (4 * D * D + 2 * D * F) + layers * (8 * D * D + 2 * D * F) + 32_000 * D
  assert training.model_flops(config, seen=0) == 6 * products
  assert training.model_flops(config, seen=30) - 6 * products == 6 * layers * 2 * D * 30 * (1 + 1.5)


def test_a_packed_batch():
  config = training.make_config("transformer_base", 24_576, tiny=False)
  batch, tokens, seen = training.packed_batch(config)
  segments = batch["target_segments"]
  assert tokens == (segments > 0).sum() > 0.95 * segments.size and 29 < seen < 60
  assert (batch["inputs"][:, 0] == 1).all() and (batch["inputs"][segments == 0] == 0).all()
  starts = (batch["target_positions"] == 0) & (segments > 0)
  assert (batch["inputs"][starts] == 1).all() and starts.sum() == segments.max(1).sum()


def test_lengths_follow_their_quantiles():
  import numpy as np

  source, target = lengths.pairs(np.random.default_rng(0), 20_000)
  for share, length in lengths.QUANTILES.items():
    assert abs(np.quantile(source, share) - length) <= max(1, 0.05 * length)
  assert 0.95 < target.mean() / source.mean() < 1.05


def test_origins_of_operations():
  hlo = '''  %fusion.12 = f32[4]{0} fusion(%x), kind=kLoop, metadata={op_name="jit(step)/layer/add" stack_frame_id=1}
  ROOT %copy = f32[4]{0} copy(%fusion.12)'''
  assert profile.origins(hlo) == {"fusion_12": "layer/add"}
  assert profile.kind("gemm_fusion_dot_3", "") == "matrix products"


def test_a_cell():
  assert report.cell("flops", 6.5e14) == "650.0 TFLOP/s" and report.cell("ok", False) == "**NO**"
  assert report.cell("mfu", 0.38) == "38.0%" and report.cell("x", "a|b") == "a/b" and report.cell("x", None) == ""
