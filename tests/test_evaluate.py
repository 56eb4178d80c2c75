"""`evaluate` on the command line: options of the task, and a table that no page can cost."""

import json
import shutil
import subprocess
import sys

import pytest

import attention_zoo as zoo
from attention_zoo import tasks
from attention_zoo.errors import UserError
from tests.test_entry_points import command


def test_a_page_that_cannot_be_made_costs_neither_table_nor_json(tiny_run, tmp_path):
  workdir = shutil.copytree(tiny_run, tmp_path / "run")
  (workdir / "metrics.jsonl").write_text('{"step": 1, "split": "dev"}\ngarbled\n')
  flags = ("--checkpoint=latest", "--split=dev", "--decode.beam_size=1", "--report")
  done = command("attention_zoo.evaluate", f"--workdir={workdir}", *flags, check=2)
  out, errors = done.stdout.decode(), done.stderr.decode().splitlines()
  saved = workdir / "eval" / "dev-latest-beam_size_1.json"
  assert "perplexity per subword" in out and f"written to {saved}" in out
  assert json.loads(saved.read_text())["beam_size"] == 1
  (line,) = [line for line in errors if line.startswith("error: ")]
  assert (
    line.startswith(f"error: {workdir}/metrics.jsonl, line 2: not a record of a run")
    and "Traceback" not in done.stderr.decode()
  )
  assert not (workdir / "report.html").exists()


def test_a_full_standard_output_costs_no_result(tiny_run, tmp_path):
  workdir = shutil.copytree(tiny_run, tmp_path / "run")
  flags = ["--checkpoint=latest", "--split=dev", "--decode.beam_size=1"]
  with open("/dev/full", "w") as full:
    done = subprocess.run(
      [sys.executable, "-m", "attention_zoo.evaluate", f"--workdir={workdir}", *flags],
      stdout=full, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
  saved = workdir / "eval" / "dev-latest-beam_size_1.json"
  assert done.returncode == 2 and f"No space left on device; the result is in {saved}\n" in done.stderr
  assert json.loads(saved.read_text())["beam_size"] == 1


def test_a_wrong_option_is_told_in_one_line(tiny_run):
  done = command("attention_zoo.evaluate", f"--workdir={tiny_run}", "--decode.beam_sise=1", check=2)
  assert b"config.decode.beam_sise is not a field (did you mean 'beam_size'?)" in done.stderr


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (
      "beam_sise=2",
      r"config.decode.beam_sise is not a field \(did you mean 'beam_size'\?\); there are beam_size, alpha",
    ),
    ("beam_size", "config.decode.beam_size needs a value: --decode.beam_size=VALUE"),
    ("beam_size=0", "config.decode.beam_size must be at least 1, not 0"),
    ("beam_size=2.0", "config.decode.beam_size must be int, not float"),
    ("beam_size=many", "config.decode.beam_size must be int, not str"),
    ("alpha=nan", "config.decode.alpha must be float, not str"),
    ("alpha=1e999", "config.decode.alpha must be finite"),
    ("alpha=__import__('os')", "config.decode.alpha must be float"),
    ("temperature=1.0", "config.decode.temperature is not a field"),
  ],
)
def test_options_are_held_against_the_fields_of_the_task(tiny_run, text, message):
  run = zoo.load(tiny_run)
  before = run.config.to_dict()
  with pytest.raises(UserError, match=message):
    tasks.set_fields(run.config, "decode", ["alpha=0.5", text])
  assert run.config.to_dict() == before


def test_options_are_set_and_used(tiny_run):
  run = zoo.load(tiny_run)
  assert tasks.set_fields(run.config, "decode", ["alpha=1", "beam_size=3", "beam_size=1"]) == {
    "alpha": 1.0,
    "beam_size": 1,
  }
  assert type(run.config.decode.alpha) is float and run.config.is_locked
  assert run.translate(["seven"]) == zoo.load(tiny_run).translate(["seven"], beam_size=1, alpha=1.0)
  # A wider beam than the run was made for gets fewer rows, however it is asked for.
  tasks.set_fields(run.config, "decode", ["beam_size=30"])
  rows = lambda beam_size: [source[0].shape[0] for _, source in run._rows.batches([[5] * 16] * 16, beam_size=beam_size)]
  assert rows(30) == [8, 8] and rows(3) == [16]
