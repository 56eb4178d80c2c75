"""The benchmarks run, at the smallest sizes, and say what they measured. (How fast anything is, no test asserts.)"""

import json

import jax
import numpy as np
import pytest

from benchmarks import (
  cold_start,
  common,
  decode,
  decode_models,
  depth,
  faults,
  pipeline,
  tournament,
  train_step,
  translate,
)


@pytest.fixture(autouse=True)
def no_restart(monkeypatch):
  """`common.prepare` restarts the process where the environment is not set."""
  monkeypatch.setenv("GLIBC_TUNABLES", "")
  monkeypatch.setattr(common, "busy", lambda: 0.0)


def test_sides_are_timed_in_turn_and_the_warm_up_is_not_counted():
  calls = []
  seconds = common.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warmup=2)
  assert "".join(calls) == "ab" * 5
  assert [len(times) for times in seconds.values()] == [3, 3]


def test_a_ratio_pairs_the_rounds():
  seconds = {"ours": [1.0, 2.0, 1.0], "peer": [2.0, 2.0, 3.0]}
  assert common.ratios(seconds, "ours", "peer") == (1.0, 2.0, 3.0)
  rows = common.side_rows(seconds, 6, "ours")
  assert rows == [("ours", "6 (3 to 6) tokens/s", ""), ("peer", "3 (2 to 3) tokens/s", "2.00 (1.00 to 3.00)")]


def run(benchmark, name, tmp_path, *options):
  benchmark.main(["--tiny", "--rounds=3", f"--out={tmp_path}", *options])
  return json.loads((tmp_path / f"{name}.json").read_text())


def test_train_step(tmp_path):
  found = run(train_step, "train_step", tmp_path, "--rows=8", "--length=8")
  variant = found["variants"]["float32"]
  assert len(variant["seconds"]["attention_zoo"]) == 3
  if "PyTorch eager" in variant["seconds"]:
    assert variant["max_abs_error"] < 1e-4
  else:
    assert ["float32", "PyTorch eager", "not run (torch is not installed)", ""] in found["rows"]
  assert found["environment"]["processor"] and found["environment"]["versions"]["jax"]


def test_decode(tmp_path):
  found = run(decode, "decode", tmp_path, "--rows=8", "--source_length=6", "--length=5")
  for beams in found["beams"].values():
    assert len(beams["seconds"]["attention_zoo"]) == 3
    assert all(
      same > 0.9
      for side, same in beams["sentences_with_identical_tokens"].items()
      if "int8" not in side and "bfloat16" not in side
    )


def test_models_decode_beside_the_transformer(tmp_path):
  found = run(decode_models, "decode_models", tmp_path, "--only=bahdanau")
  assert [row[:2] for row in found["rows"]] == [
    [search, model] for search in ("beam 4", "greedy") for model in ("transformer", "bahdanau")
  ]
  assert found["rows"][0][2] == "1,184,768" and found["rows"][0][4] == "" != found["rows"][1][4]


def test_translating_beside_the_search_alone(tmp_path):
  before = jax.config.jax_enable_compilation_cache
  try:
    found = run(translate, "translate", tmp_path)
  finally:
    jax.config.update("jax_enable_compilation_cache", before)  # which the benchmark turns off
  assert set(found["seconds"]) == {"run.translate", "bare search"} and found["settings"]["batches"] >= 1
  assert found["times"]["second"] < found["times"]["first"]


def test_no_special_token_is_ever_among_the_candidates():
  """What the decoding benchmark rests on: every sentence is as long as asked for."""
  from attention_zoo.models.translation import transformer

  model = transformer.Transformer(
    transformer.Config(
      503, d_model=64, d_ff=64, num_heads=2, d_k=32, d_v=32, num_encoder_layers=1, num_decoder_layers=1
    )
  )
  params = decode.make_parameters(model)
  source = np.random.default_rng(1).integers(4, 503, (8, 6), dtype=np.int32)
  tokens, logprobs = decode.our_search(model, params, source, beam_size=2, length=9, room=12)()
  assert tokens.shape == (8, 9) and (tokens >= 4).all() and np.isfinite(logprobs).all()


def test_pipeline(number_files, tmp_path):
  config = pipeline.make_config("text", number_files, False, tiny=True)
  config.data.update(vocab_size=200, row_length=64, max_length=32)
  for batching in ("packed", "bucketed"):
    source_fill, target_fill, rates = pipeline.measure(config, tmp_path, batching, count=4, rounds=2)[1:]
    assert 0 < source_fill <= 1 and 0 < target_fill <= 1, batching
    if batching == "packed":
      assert source_fill > 0.9 and target_fill > 0.9
    assert all(rate > 0 for rate in rates)


@pytest.mark.slow
def test_a_short_drill(tmp_path, monkeypatch):
  monkeypatch.setattr(faults, "STEPS", 40)
  monkeypatch.setattr(faults, "FLAGS", [*faults.FLAGS, "--config.train.steps=40"])
  monkeypatch.setattr(
    faults, "KINDS", {kind: faults.KINDS[kind] for kind in ("death of one of two processes", "clock jump")}
  )
  records, digest = faults.drill(2, 1, tmp_path, False, print)
  assert len(digest) == 64 and {record["kind"] for record in records} == set(faults.KINDS)
  assert all(record["survived"] for record in records), records


@pytest.mark.slow
def test_cold_start_measures_another_process():
  arguments = cold_start.parse(["--tiny", "--rows=8", "--length=4"])
  seconds, parts = cold_start.measure(arguments, cache=None)
  assert seconds > parts["first step"] > 0
  assert list(parts) == ["imports", "initialisation", "first step", "second step"]


@pytest.mark.slow
def test_tournament(tmp_path, capsys):
  options = ["--tiny", "--only=alibi,lstm", "--rounds=1", f"--out={tmp_path}"]
  tournament.main(options)
  results = json.loads((tmp_path / "tournament.json").read_text())["results"]
  assert [result["name"] for result in results] == ["alibi", "lstm"]
  for result in results:
    assert result["tokens_per_second"] > 0 and result["parameters"] > 0 and result["temporary_bytes"] > 0
    losses = [result["dev_nll"], result["dev_nll_2x"], result["dev_nll_4x"]]
    assert np.isfinite(losses).all() and len(set(losses)) == 3  # of longer windows indeed
  lines = (tmp_path / "tournament.md").read_text().splitlines()
  assert len(lines) == 4 and sum("`alibi`" in line for line in lines) == 1
  assert (tmp_path / "tournament.png").read_bytes().startswith(b"\x89PNG")
  # What is done is not done again.
  capsys.readouterr()
  tournament.main([*options[:2], "--rounds=1", options[-1]])
  assert "1 of 2" not in capsys.readouterr().out


def test_tournament_knows_every_causal_attention():
  """Whatever is added to ops/ takes part."""
  from attention_zoo.ops import variant

  assert {name.partition("(")[0] for name in tournament.CAUSAL} == set(variant.by_name())


@pytest.mark.slow
def test_depth(tmp_path):
  depth.main(["--tiny", "--layers=1", "--rows=8", "--length=8", "--rounds=1", f"--out={tmp_path}"])
  plain, scan = json.loads((tmp_path / "depth.json").read_text())["runs"]
  assert not plain["scan_layers"] and scan["scan_layers"] and plain["compile_s"] > 0 and scan["temporary_bytes"] > 0
