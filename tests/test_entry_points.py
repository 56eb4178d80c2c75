"""The commands of the README, as a user runs them: right, and wrong."""

import gzip
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.small_run import SMALL

ROOT = pathlib.Path(__file__).parents[1]
TRAIN = ["attention_zoo.train", "--config=configs/quickstart.py"]


def command(*args, stdin=b"", check=None):
  """Runs `python -m ARGS` on one device; returns the finished process."""
  done = subprocess.run(
    [sys.executable, "-m", *map(str, args)],
    cwd=ROOT,
    input=stdin,
    capture_output=True,
    env=os.environ | {"XLA_FLAGS": "", "COLUMNS": "200"},
  )
  if check is not None:
    assert done.returncode == check, (done.stdout.decode(), done.stderr.decode())
  return done


@pytest.mark.slow
def test_train_average_evaluate_translate(number_files, tmp_path):
  fields = {f"{group}.{name}": value for group, values in SMALL.items() for name, value in values.items()}
  fields |= {"data.dir": number_files, "train.steps": 20}
  flags = [f"--config.{name}={value}" for name, value in fields.items()]
  workdir = f"--workdir={tmp_path}/run"
  out = command(*TRAIN, *flags, workdir, "--tracker=builtins:print", check=0).stdout.decode()
  assert "20 dev {" in out and "'loss': " in out
  out = command("attention_zoo.average", workdir, "--last=2", f"--data_dir={number_files}", check=0).stdout.decode()
  assert "averaged steps 10, 20" in out and "dev loss of step 20" in out and "dev loss of the average" in out
  record = json.loads((tmp_path / "run/average/average.json").read_text())
  # This early in training the mean with an older step is worse: nobody gets it without asking.
  assert record["dev_loss"]["average"] > record["dev_loss"]["newest"] and "averaging made it worse" in out
  done = command("attention_zoo.evaluate", workdir, "--decode.beam_size=1", f"--data_dir={number_files}", check=0)
  assert b"taking the newest checkpoint, not the average, because its dev loss is" in done.stderr
  flags_of_average = ("--split=test", "--report", "--checkpoint=average")
  out = command("attention_zoo.evaluate", workdir, *flags_of_average, check=0).stdout.decode()
  assert "perplexity per subword" in out and "chrF2" in out
  saved = json.loads((tmp_path / "run/eval/test-average.json").read_text())
  assert all(row["signature"] in out for row in (*saved["bleu"], saved["chrf"]))  # each on one line
  assert len(saved["hypotheses"]) == 20 and (saved["checkpoint"], saved["step"]) == ("average", "20")
  assert saved["parents"] == [10, 20]
  place = str(number_files).strip("/").replace("/", "_")
  greedy = json.loads((tmp_path / f"run/eval/test-latest-beam_size_1-{place}.json").read_text())
  assert (greedy["step"], greedy["beam_size"], greedy["alpha"]) == ("20", 1, saved["alpha"])
  assert "<svg" in (tmp_path / "run/report.html").read_text()
  out = command("attention_zoo.translate", workdir, stdin=b"seven\n\nforty-nine\n", check=0).stdout
  assert out.count(b"\n") == 3 and out.split(b"\n")[1] == b""
  (tmp_path / "in.txt").write_text("seven\n\nfourteen\n")
  command(
    "attention_zoo.translate", workdir, f"--input={tmp_path}/in.txt", f"--output={tmp_path}/out.txt", "--n_best=2",
    "--beam_size=2", "--alpha=1.0", "--checkpoint=latest", check=0,
  )  # fmt: skip
  lines = (tmp_path / "out.txt").read_text().splitlines()
  assert all(re.fullmatch(r"\d+ \|\|\| .* \|\|\| -?\d+\.\d{4}", line) for line in lines)
  numbers = [line.split(" ||| ")[0] for line in lines]
  assert numbers in (["0", "0", "1", "2", "2"], ["0", "1", "2", "2"], ["0", "0", "1", "2"], ["0", "1", "2"])
  assert lines[numbers.index("1")] == "1 |||  ||| 0.0000"
  (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(b'{"id": 1, "en": "seven"}\n""\n'))
  command(
    "attention_zoo.translate", workdir, f"--input={tmp_path}/in.jsonl.gz", f"--output={tmp_path}/out.jsonl", "--json",
    "--field=en", check=0,
  )  # fmt: skip
  records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
  assert records[0]["id"] == 1 and records[0]["translations"][0]["text"] and records[1]["translations"][0]["text"] == ""
  # Beginnings and words from files, by two runs, which are one here.
  (tmp_path / "prefixes").write_text("zwei\n\n\n")
  (tmp_path / "words").write_text("acht\n\nein\thundert\n")
  lines = command(
    "attention_zoo.translate", f"{workdir},{tmp_path}/run", f"--input={tmp_path}/in.txt", "--beam_size=1",
    f"--prefixes={tmp_path}/prefixes", f"--force_words={tmp_path}/words", check=0,
  ).stdout.decode().split("\n")  # fmt: skip
  assert (
    lines[0].startswith("zwei")
    and "acht" in lines[0]
    and lines[1] == ""
    and "ein" in lines[2]
    and "hundert" in lines[2]
  )
  # What cannot be written is told before the work, in one line.
  (tmp_path / "run/report.html").unlink()
  (tmp_path / "run/report.html").mkdir()
  (tmp_path / "run/eval/test-latest.json").unlink(missing_ok=True)
  done = command("attention_zoo.evaluate", workdir, "--checkpoint=latest", "--report", check=2)
  assert b"report.html: it is a directory" in done.stderr and done.stderr.count(b"\n") == 1, done.stderr
  assert not (tmp_path / "run/eval/test-latest.json").exists()
  # Another config in the same directory is refused, with the difference.
  done = command(*TRAIN, *flags, workdir, "--config.model.d_ff=128", check=2)
  assert b"d_ff" in done.stderr and b"128" in done.stderr
  done = command("attention_zoo.translate", workdir, stdin=b"ok\n\xff\n", check=2)
  assert b"line 2" in done.stderr and b"UTF-8" in done.stderr
  done = command("attention_zoo.evaluate", workdir, "--split=nosuch", check=2)
  assert b"nosuch" in done.stderr


@pytest.mark.parametrize(
  ("args", "message"),
  [
    ([*TRAIN, "--workdir=x", "--config.train.stepz=3"], "did you mean 'steps'"),
    ([*TRAIN, "--workdir=x", "--config.trian.steps=3"], "did you mean 'train'"),
    ([*TRAIN, "--workdir=x", "--config.train.steps=many"], "many"),
    ([*TRAIN], "--workdir is missing"),
    (["attention_zoo.train", "--config=configs/quickstar.py", "--workdir=x"], "quickstar"),
    (["attention_zoo.translate", "--workdirr=x"], "workdir"),
    (["attention_zoo.translate", "x"], "--name=value"),
    (["attention_zoo.translate", "--workdir=/nowhere"], "config.json"),
    (["attention_zoo.human_evaluation", "--page=x.html"], "needs --workdirs=A,B"),
  ],
)
def test_wrong_flags_are_told_in_one_line_with_code_2(args, message):
  done = command(*args, check=2)
  text = done.stderr.decode()
  assert message in text and "Traceback" not in text
