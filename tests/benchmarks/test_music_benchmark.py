"""The benchmark of music runs at the smallest size, and its claims about memory hold."""

import json

import pytest

import attention_zoo as zoo
from benchmarks import common, music
from tests.data import tunes


@pytest.fixture(autouse=True)
def no_restart(monkeypatch):
  monkeypatch.setenv("GLIBC_TUNABLES", "")
  monkeypatch.setattr(common, "busy", lambda: 0.0)


def run(part, tmp_path, *options):
  music.main([f"--part={part}", "--tiny", "--steps=2", f"--out={tmp_path}", *options])
  return json.loads((tmp_path / f"music_{part}.json").read_text())["rows"]


def test_skewing_keeps_no_vector_for_every_pair_and_blocks_are_linear(tmp_path):
  rows = run("memory", tmp_path)
  of_all = {name: float(share) for name, _, _, _, share in rows[:3]}
  assert of_all["gathered rows"] >= 1 > 0.2 > of_all["skewed, pitch and time too"] >= of_all["skewed"]


def test_local_relative_attention_is_linear_in_the_length():
  name = list(music.attentions(4096))[3]
  short, long = (music.compiled(name, L) for L in (4096, 8192))
  assert 1.9 < long["bytes"] / short["bytes"] < 2.1 and 1.9 < long["flops"] / short["flops"] < 2.1


@pytest.mark.slow
def test_two_transformers_beyond_their_length(tmp_path):
  folder = tunes.folder(tmp_path / "midi", (("train", 3), ("validation", 2)))
  rows = run("length", tmp_path, f"--data={folder}")
  assert [row[0] for row in rows] == ["transformer", "music_transformer"]
  assert (tmp_path / "music_length.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_three_models_of_chorales(tmp_path):
  path = tmp_path / "chorales.json"
  path.write_text(json.dumps({split: [tunes.grid(16, i).tolist() for i in range(4)] for split in ("train", "valid")}))
  rows = run("chorales", tmp_path, f"--data={path}", f"--runs={tmp_path}")
  assert [row[0] for row in rows] == music.CHORALES and all(0 < float(nats) < 6 for row in rows for nats in row[3:])
  last = zoo.load(tmp_path / "chorales_relative_pitch_time-32")  # a voice stands where training has put it
  assert float(rows[-1][4]) == pytest.approx(last.dev_loss(), abs=1e-4)
