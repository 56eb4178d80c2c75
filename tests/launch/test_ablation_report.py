"""The grid's report, its shares of the devices, and one row with the real trainer."""

import json
import os
import shutil
import subprocess
import threading

import jax
import numpy as np
import pytest

from attention_zoo.data.phrasebook import Phrasebook
from attention_zoo.errors import UserError
from attention_zoo.evaluation.bleu import bleu_report
from attention_zoo.evaluation.perplexity import perplexity
from attention_zoo.plots import ablation as plot
from attention_zoo.training import loading
from launch import (
  ablation,
  ablation_devices,
  ablation_grid,
  ablation_report,
  ablation_rows,
  ablation_run,
)
from tests.launch.launch_helpers import ROOT, wait_for

# Report


def finish(grid, row, seed, found_perplexity, hypotheses, references, machine="2 cores of X"):
  """What training and evaluation leave behind, in the words of the evaluation itself."""
  directory = grid.directory(row, seed)
  found = {
    "step": str(ablation_rows.row_fields(row, grid.fields)["train.steps"]),
    "perplexity": perplexity(
      nll=np.log(found_perplexity) * 10, smoothed_loss=30.0, tokens=10, words=8
    )._asdict(),
    "bleu": [
      {"name": score.name, "score": score.value, "signature": score.signature}
      for score in bleu_report(hypotheses, references, tokenized=True)
    ],
  }
  ablation_grid.write_json(directory / "eval" / "dev-latest.json", found)
  ablation_grid.write_json(directory / "versions.json", {"jax": f"1.2.{seed}", "python": "3.11"})
  ablation_grid.write_json(directory / "row.json", {"status": "done", "hardware": [machine]})
  lines = [
    {"step": s, "split": "train", "weight": 4000.0, "tokens_per_second": 20000.0, "loss": 1.0}
    for s in (50, 100)
  ]
  (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def grid(tmp_path):
  fields = ablation_rows.base_fields("tiny", "", "", [])
  grid = ablation_grid.make_grid(tmp_path / "grid", "tiny", "phrasebook", fields, "python -m one")
  references = ["a b c d e f", "g h i j k"]
  finish(grid, "base", 0, 8.0, references, references)
  finish(grid, "base", 1, 10.0, references, references, "1 x Y")
  finish(grid, "a_heads_1", 0, 12.0, ["a b c d e x", "g h i j k"], references)
  note = {
    "status": "failed",
    "message": "training: exit code 1: boom (see log.txt)",
    "pid": None,
    "since": 0.0,
  }
  for row, seed in (("a_heads_4", 0), ("a_heads_1", 2), ("b_dk_16", 0), ("b_dk_16", 1)):
    ablation_grid.write_json(grid.directory(row, seed) / "row.json", note)
  (grid.directory("big", 0) / "checkpoints" / "250").mkdir(parents=True)
  ablation_grid.write_json(
    grid.directory("big", 0) / "row.json", note | {"status": "training", "message": ""}
  )
  return grid


def test_rows_of_the_report(grid):
  gathered = ablation_report.gather(grid)
  rows = {row["row"]: row for row in gathered["rows"]}
  assert list(rows) == list(ablation_rows.ROWS)
  base, one = rows["base"], rows["a_heads_1"]
  assert [seed["perplexity"] for seed in base["seeds"]] == pytest.approx([8.0, 10.0])
  assert base["seeds"][0]["bleu"] == pytest.approx(100) and one["seeds"][0]["bleu"] < 99
  assert (base["status"], base["params_paper"], base["paper_perplexity"]) == ("done", 65e6, 4.92)
  assert (
    base["values"]["a_heads"] == 8 and base["values"]["b_dk"] == 8 and base["values"]["e_"] == "sinusoidal"
  )
  assert (rows["b_dk_16"]["value"], rows["b_dk_16"]["paper_value"], rows["b_dk_16"]["group"]) == (2, 16, "B")
  assert (rows["c_layers_8"]["value"], rows["c_layers_8"]["paper_value"]) == (4, 8)
  assert (one["value"], one["paper_value"]) == (1, 1) and "params_paper" not in one
  assert base["steps_per_second"] == pytest.approx(20000 / 80) and rows["big"]["steps_per_second"] is None
  assert rows["a_heads_4"]["status"].startswith("failed: training: exit code 1: boom")
  assert [part[:14] for part in rows["b_dk_16"]["status"].split("; ")] == ["seed 0 failed:", "seed 1 failed:"]
  assert one["status"] == "done" and one["unfinished"] == [
    "seed 2 failed: training: exit code 1: boom (see log.txt)"
  ]
  assert rows["big"]["status"] == "stopped: at step 250 of 3000; run again to go on"
  assert rows["c_dff_1024"]["status"] == "not run" and rows["c_dff_1024"]["params_ours"] > 0
  # 2048 pieces of 64, three pairs of layers, each three attentions, two feed-forwards, five normalisations.
  attention, feed_forward = 4 * 64 * 64, 2 * 64 * 256 + 256 + 64
  assert base["params_ours"] == 2048 * 64 + 3 * (3 * attention + 2 * feed_forward + 5 * 2 * 64)
  header = gathered["header"]
  assert (
    header["hardware"] == "2 cores of X and 1 x Y"
    and header["command"] == "python -m one"
    and header["seeds"] == "0, 1"
  )
  assert header["versions"] == {"python": "3.11", "jax": "1.2.0 and 1.2.1"}
  assert "tiny" in header["scale"] and "d_model 64" in header["scale"] and "tokens-as-is" in header["bleu"]


def test_rows_that_cannot_be_at_this_scale_say_why(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv("COLUMNS", "250")
  flags = ["model.num_encoder_layers=2", "model.num_decoder_layers=2"]
  fields = ablation_rows.base_fields("tiny", "", "", flags)
  grid = ablation_grid.make_grid(tmp_path / "grid", "tiny", "phrasebook", fields, "a")
  finish(grid, "base", 0, 8.0, ["a b c d"], ["a b c d"])
  for verb in ("status", "report"):
    assert ablation.main([verb, f"--workdir={grid.workdir}"]) == 0
  assert "not run: row c_layers_2" in capsys.readouterr().out
  rows = {row["row"]: row for row in ablation_report.gather(grid)["rows"]}
  assert rows["c_layers_2"]["status"].startswith("not run: row c_layers_2 has model.num_")
  assert (rows["c_layers_2"]["value"], rows["c_layers_2"]["paper_value"]) == ("–", 2)
  assert rows["c_dff_1024"]["status"] == "not run" and rows["base"]["status"] == "done"


def test_flops_are_those_of_performance_tables():
  """365 MFLOP a target token for base and 1,258 for big, with 32,000 pieces and short rows."""
  for name, mega in (("base", 365), ("big", 1258)):
    fields = ablation_rows.fields_of(name) | {"data.vocab_size": 32_000, "data.row_length": 30}
    tokens = fields["data.batch_tokens"] * fields["train.steps"]
    assert ablation_report.training_flops(fields) / tokens / 1e6 == pytest.approx(mega, rel=0.02)


def test_flops_by_hand():
  """Rows so long that attention is most of it."""
  sizes = dict(d_model=4, num_heads=2, d_k=3, d_v=5, d_ff=7, num_encoder_layers=1, num_decoder_layers=2)
  fields = {f"model.{name}": size for name, size in sizes.items()}
  fields |= {"data.row_length": 100, "data.vocab_size": 11, "data.batch_tokens": 10, "train.steps": 9}
  # Multiplications a position. Projections: 4 x (3 + 3 + 5 + 5) a head; of 100 positions, 3 for a score, 5 for a sum.
  projections, scores, feed_forward = 2 * 64, 2 * 100 * (3 + 5), 4 * 7 + 7 * 4
  encoder, decoder = projections + scores + feed_forward, 2 * (projections + scores) + feed_forward
  forward = 2 * (encoder + 2 * decoder + 4 * 11)  # a multiplication and an addition each
  assert ablation_report.training_flops(fields) == 3 * forward * 10 * 9 == 4_780_080


def test_the_report_is_written(grid, capsys):
  assert ablation.main(["report", f"--workdir={grid.workdir}"]) == 0
  names = ["report.md", "report.html", "report.png", "results.json"]
  assert capsys.readouterr().out.split() == [str(grid.workdir / name) for name in names]
  markdown = (grid.workdir / "report.md").read_text()
  assert "2 of 20 rows ran." in markdown and "2 (16)" in markdown and plot.PARAMETERS_NOTE in markdown
  assert markdown.count("*not run*") == 15 and "boom" in markdown and "    python -m one" in markdown
  assert "<html" in (grid.workdir / "report.html").read_text()
  assert (grid.workdir / "report.png").read_bytes().startswith(b"\x89PNG")
  results = json.loads((grid.workdir / "results.json").read_text())
  assert len(results["rows"]) == 20 and results["summary"]["ran"] == 2
  assert results["rows"][1]["perplexity_difference"] == pytest.approx(3.0)
  assert not list(grid.workdir.glob(".*.tmp"))


def test_a_report_on_a_full_disk(grid, capsys):
  (grid.workdir / "report.md").symlink_to("/dev/full")
  assert ablation.main(["report", f"--workdir={grid.workdir}"]) == 2
  assert f"error: cannot write {grid.workdir}/report.md: No space left" in capsys.readouterr().err


# Devices


def devices(kind, count):
  return ablation_devices.Devices(
    kind, tuple(range(count)) if kind == "cpu" else tuple(map(str, range(count))), ""
  )


def test_shares_of_gpus():
  part = lambda count, jobs: [slot.env for slot in ablation_devices.partition(devices("gpu", count), jobs)]
  assert part(8, 1) == [{}]
  assert part(4, 2) == [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}]
  assert part(1, 3) == [{"CUDA_VISIBLE_DEVICES": "0", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.300"}] * 3
  assert [env["CUDA_VISIBLE_DEVICES"] for env in part(2, 4)] == ["0", "1", "0", "1"]
  for count, jobs in ((4, 3), (2, 3)):
    with pytest.raises(UserError, match=f"--jobs={jobs} cannot share {count} GPUs evenly"):
      part(count, jobs)


def test_shares_of_tpu_chips():
  slots = ablation_devices.partition(devices("tpu", 4), 2)
  assert [slot.env["TPU_VISIBLE_CHIPS"] for slot in slots] == ["0,1", "2,3"]
  assert {slot.env["TPU_CHIPS_PER_PROCESS_BOUNDS"] for slot in slots} == {"1,2,1"}
  assert len({slot.env["TPU_MESH_CONTROLLER_PORT"] for slot in slots}) == 2
  with pytest.raises(UserError, match="--jobs=8 cannot share 4 TPU chips"):
    ablation_devices.partition(devices("tpu", 4), 8)


def test_shares_of_cores():
  part = lambda count, jobs: [slot.cores for slot in ablation_devices.partition(devices("cpu", count), jobs)]
  assert (
    part(8, 1) == [()] and part(8, 3) == [(0, 1), (2, 3, 4), (5, 6, 7)] and part(2, 3) == [(0,), (1,), (0,)]
  )
  assert ablation_devices.partition(devices("cpu", 8), 2)[0].env["NPROC"] == "4"


def test_gpus_are_counted_without_jax(tmp_path, monkeypatch):
  (tmp_path / "nvidia-smi").write_text(
    "#!/bin/sh\necho 'GPU 0: NVIDIA X (UUID: a)'\necho 'GPU 1: NVIDIA X (UUID: b)'\n"
  )
  (tmp_path / "nvidia-smi").chmod(0o755)
  monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
  monkeypatch.setattr(ablation_devices, "_installed", lambda *names: "jax_cuda13_plugin" in names)
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
  assert ablation_devices.find() == ablation_devices.Devices("gpu", ("0", "1"), "2 x NVIDIA X")
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
  assert ablation_devices.find().ids == ("1",)
  for none in ("", "-1"):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
    assert ablation_devices.find().kind == "cpu"
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
  assert ablation_devices.find().kind == "gpu"
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  assert ablation_devices.find().kind == "cpu"


# The real trainer

TOY = (
  *(
    "model.d_model=16",
    "model.d_ff=16",
    "model.d_k=2",
    "model.d_v=2",
    "model.num_encoder_layers=1",
    "model.num_decoder_layers=1",
  ),
  *(
    "data.vocab_size=300",
    "data.batch_tokens=128",
    "data.row_length=32",
    "data.max_length=24",
    "train.steps=60",
  ),
  *("train.log_every=1", "train.eval_every=1000", "train.checkpoint_every=6", "optimizer.warmup_steps=10"),
)


def test_a_row_killed_in_the_middle_ends_bit_for_bit_the_same(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  monkeypatch.delenv("XLA_FLAGS", raising=False)  # one device
  text = tmp_path / "text"
  text.mkdir()
  book = Phrasebook(("en", "de"))
  for split, name, count in (("train", "train", 400), ("dev", "dev", 20)):
    pairs = [pair for pair, _ in zip(book.pairs(split), range(count), strict=False)]
    for side, language in enumerate(("en", "de")):
      (text / f"{name}.{language}").write_text("".join(pair[side] + "\n" for pair in pairs))
  workdir = tmp_path / "grid"
  directory = workdir / "rows" / "d_dropout_02" / "seed_0"
  deaths = []

  def kill():
    wait_for("the second checkpoint", lambda: (directory / "checkpoints" / "12").is_dir(), 300)
    deaths.append(ablation_grid.read_json(directory / "row.json")["pid"])
    os.kill(deaths[0], 9)

  killer = threading.Thread(target=kill)
  killer.start()
  words = ["run", "--rows=d_dropout_02", "--scale=tiny", f"--data.dir={text}", f"--workdir={workdir}"]
  assert ablation.main([*words, *(f"--config.{field}" for field in TOY)]) == 0
  killer.join()
  assert "killed by SIGKILL while training; once more" in capsys.readouterr().err
  assert ablation_grid.progress(directory, 60, False).status == "done"
  log = (directory / "log.txt").read_text()
  resumed = int(log.split("resuming from step ")[1].split()[0])
  assert 12 <= resumed < 60 and log.count("attention_zoo.train") == 2

  # The same training again, by hand and in one go, with the vocabulary that the grid shares.
  whole = tmp_path / "whole"
  whole.mkdir()
  shutil.copy(workdir / "tokenizer.model", whole)
  grid = ablation_grid.open_grid(workdir)
  command = ablation_run.commands("d_dropout_02", 0, grid, whole, grid.cache)[0]
  subprocess.run(command, check=True, timeout=300)
  same = jax.tree.map(
    np.array_equal, loading.load_params(whole, "latest"), loading.load_params(directory, "latest")
  )
  assert all(jax.tree.leaves(same))
  losses = [
    [(r["step"], r["loss"]) for r in ablation_grid.records(d, tail=0) if r["split"] == "train"]
    for d in (whole, directory)
  ]
  assert losses[0] == losses[1] and len(losses[0]) == 60
