"""The grid's dry run: commands that others understand, and that nothing in a path can turn into other commands."""

import shlex
import subprocess

import pytest

from launch import ablation, cloud_tpu_flags


def test_dry_run_prints_commands_that_others_understand(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "my text").mkdir()
  for name in ("val.en", "val.de"):
    (tmp_path / "my text" / name).touch()
  words = ["run", "--rows=a_heads_1,big", "--scale=tiny", "--data.dir=my text", "--workdir=grid", "--dry_run"]
  assert ablation.main(words) == 0
  assert not (tmp_path / "grid").exists()
  lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if line and line[0] != "#"]
  here = [line for line in lines if "attention_zoo.train" in line]
  assert len(here) == 2 and all("--config.model.num_heads=1" not in line for line in here)
  assert (
    f"--config.data.dir={tmp_path}/my text" in here[0]
    and f"--workdir={tmp_path}/grid/rows/a_heads_1/seed_0" in here[0]
  )
  there = [line[3:] for line in lines if "launch.cloud_tpu" in line]
  assert [line[1] for line in there] == ["ablation-a-heads-1-0", "ablation-big-0"]
  for line in there:
    line = [
      word.replace("$BUCKET", "gs://b").replace("$ZONE", "us-a1").replace("$TYPE", "v5litepod-8")
      for word in line
    ]
    cut = line.index("--")
    cloud_tpu_flags.make_parser("").parse_args(line[:cut])
    assert "--workdir=gs://b/rows" in " ".join(line[cut:]) and "--config.data.dir=data" in line
    assert line[cut + 1].removeprefix("--config=").startswith("configs/ablation/")
  evaluations = [i for i, line in enumerate(lines) if "attention_zoo.evaluate" in line]
  assert len(evaluations) == 4
  # Evaluation reads the data where training's config says, on whatever machine it is.
  copy = shlex.split("mkdir -p data && gcloud storage rsync --recursive $BUCKET/text data")
  assert copy in lines[: evaluations[2]]
  assert ablation.main(["run", "--rows=base", "--workdir=gs://b/grid", "--dry_run"]) == 0
  out = capsys.readouterr().out
  assert "# Here" not in out and "--workdir=gs://b/grid/rows/base/seed_0" in out and "BUCKET=gs://b\n" in out
  assert '--data="$BUCKET"/tfds' in out and "--config.data.dir=data" in out  # the paper's data
  words[3:5] = ["--config.data.source=text", "--config.data.dir=my text", "--workdir=gs://b/grid"]
  assert ablation.main(words) == 0
  out = capsys.readouterr().out
  assert "gcloud storage cp 'my text'/* \"$BUCKET\"/text/\n" in out and "BUCKET=gs://b\n" in out


HOSTILE = [
  "a b", "a;touch pwned", "$(touch pwned)", "`touch pwned`", "a'b", 'a"b', "a\ntouch pwned", "a\\", "*", "~", "a #b",
]  # fmt: skip


@pytest.mark.parametrize("word", HOSTILE)
def test_dry_run_survives_being_pasted(tmp_path, monkeypatch, capsys, word):
  """bash runs all that is printed, with a `python` and a `gcloud` that note their arguments."""
  text = tmp_path / f"text {word}"
  text.mkdir()
  for name in ("val.en", "val.de"):
    (text / name).touch()
  here = tmp_path / "here"
  here.mkdir()
  monkeypatch.chdir(here)
  for name in ("python", "gcloud"):
    stub = tmp_path / "bin" / name
    stub.parent.mkdir(exist_ok=True)
    stub.write_text('#!/bin/bash\nprintf "%s\\0" "$@" >> "$NOTES"\nprintf "\\1\\0" >> "$NOTES"\n')
    stub.chmod(0o755)
  env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "NOTES": str(tmp_path / "notes")}
  for workdir in (f"gs://bucket/{word}", f"gs://{word}/grid", f"grid {word}"):
    flags = ["run", "--rows=base", "--scale=tiny", f"--data.dir={text}", f"--workdir={workdir}", "--dry_run"]
    assert ablation.main(flags) == 0
    (tmp_path / "notes").write_text("")
    script = capsys.readouterr().out
    subprocess.run(["bash", "-c", script], check=True, env=env, cwd=here, capture_output=True, timeout=60)
    calls = [call.split("\0")[:-1] for call in (tmp_path / "notes").read_text().split("\1\0")[:-1]]
    target = f"{workdir}/rows" if "://" in workdir else "gs://your-bucket/rows"
    assert calls[-2][calls[-2].index("--") + 1] == "--config=configs/ablation/base.py"
    assert f"--workdir={target}/base/seed_0" in calls[-2] and f"--workdir={target}/base/seed_0" in calls[-1]
    if "://" not in workdir:
      assert f"--config.data.dir={text}" in calls[0] and f"--workdir={here}/{workdir}/rows/base/seed_0" in calls[0]
    copied = next(call for call in calls if call[:2] == ["storage", "cp"])
    assert sorted(copied[2:-1]) == [f"{text}/val.de", f"{text}/val.en"]
    assert copied[-1] == "/".join(target.split("/")[:3]) + "/text/"
    assert [path.name for path in here.iterdir()] == ["data"]
