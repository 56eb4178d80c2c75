"""The benchmark of pretraining: every row's config and what it begins with, and one table from files to its lines."""

import argparse
import json
import random
import re
import sys

import jax
import pytest

from attention_zoo import tasks
from attention_zoo.training import sharding
from benchmarks import pretraining

WORDS = ("good", "bad", "fine", "poor", "film", "plot")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Both sets, of words drawn from a seed; the first sentence of CoNLL has 150 pieces of one byte."""
  path, rng = tmp_path_factory.mktemp("sets"), random.Random(0)
  sentences = [["".join(rng.choices("abcdefghABCDEFGH", k=8)) for _ in range(10)] for _ in range(60)]
  for name in ("sst2", "conll"):
    (path / name).mkdir()
  for split in ("train", "dev", "test", "valid"):
    (path / "sst2" / f"{split}.txt").write_text("".join(f"1 {' '.join(words)}\n" for words in sentences))
    lines = ("".join(f"{word} O\n" for word in words) for words in [["\u00e9" * 75], *sentences])
    (path / "conll" / f"{split}.txt").write_text("\n".join(lines))
  return path


def shapes_of(task):
  params = jax.eval_shape(task.init, jax.random.key(0)).params
  return {sharding.path_name(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(params)}


@pytest.mark.parametrize("data", ["sst2", "conll"])
@pytest.mark.parametrize("row", pretraining.ROWS)
def test_a_row_can_be_trained(folder, tmp_path, monkeypatch, row, data):
  """What it is about to train is whole, reads the set, and takes all of the encoder that was pretrained for it."""
  args = argparse.Namespace(workdir=tmp_path, tiny=True, steps=20, pretraining_steps=20)
  begun = []

  def claimed(config, workdir):
    tasks.validate(config)
    begun.append(tasks.make(config, workdir))
    begun[-1].claim()

  monkeypatch.setattr(pretraining, "vocabulary", lambda args: 300)
  monkeypatch.setattr(pretraining, "train", claimed)
  monkeypatch.setattr(pretraining, "best", str)
  text = pretraining.plain_text(args, data, folder / data)
  config = pretraining.ROWS[row](args, data, folder / data, text, 0)
  claimed(config, tmp_path / row)
  *pretrained, task = begun
  assert len(task.encode(task.examples("dev")[:3])) == 3
  assert getattr(task.tokenizer, "lower", data == "sst2") == (data == "sst2")
  assert bool(pretrained) == bool(config.train.init_from) == (not row.startswith(("random_", "bilstm")))
  if pretrained:
    begins = ("core/", "bilm/") if row in ("elmo", "taglm") else ("", "")
    there = shapes_of(pretrained[0])
    if row not in ("elmo", "taglm"):  # these have words of their own
      assert task.tokenizer.fingerprint == pretrained[0].tokenizer.fingerprint
    encoder = {name: shape for name, shape in shapes_of(task).items() if name.startswith(begins[1])}
    new = (task.HEAD, "pooler/")  # nothing has trained a pooler
    encoder = {name: shape for name, shape in encoder.items() if not name.startswith(new)}
    renamed = {re.sub(f"^{begins[1]}", begins[0], name): shape for name, shape in encoder.items()}
    assert renamed and renamed.items() <= there.items()
    assert config.train.init_map == ((("^bilm/", "core/"),) if begins[1] else ())


def test_dev_of_pretraining_is_of_the_training_split(folder, tmp_path):
  args = argparse.Namespace(workdir=tmp_path, tiny=True, steps=20)
  text = pretraining.plain_text(args, "sst2", folder / "sst2")
  train, dev = ((text / f"{split}.txt").read_text().splitlines() for split in ("train", "dev"))
  whole = [line[2:] for line in (folder / "sst2" / "train.txt").read_text().splitlines()]
  assert dev == whole[19::20] and sorted(train + dev) == sorted(whole)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (["--sst2=x", "--rows=bert,birt"], "--rows: there is no birt; there are random_bert, bert,"),
    (["--sst2=x", "--seeds=0"], "--seeds must be at least 1"),
    ([], "name a set: --sst2=FOLDER or --conll=FOLDER"),
  ],
)
def test_options_that_make_no_table(monkeypatch, capsys, options, message):
  monkeypatch.setattr(sys, "argv", ["pretraining", "--workdir=x", *options])
  with pytest.raises(SystemExit):
    pretraining.main()
  assert message in capsys.readouterr().err


@pytest.mark.slow
def test_it_makes_a_table(tmp_path, monkeypatch, capsys):
  (tmp_path / "sst2").mkdir()
  lines = [f"{i % 2} a {WORDS[i % 4]} {WORDS[4 + i % 2]} , {WORDS[(i + 2) % 4]} {i % 7}" for i in range(64)]
  for split in ("train", "dev", "test"):
    (tmp_path / "sst2" / f"{split}.txt").write_text("\n".join(lines) + "\n")
  options = [f"--sst2={tmp_path / 'sst2'}", f"--workdir={tmp_path / 'runs'}", "--rows=random_gpt,gpt", "--seeds=1"]
  monkeypatch.setattr(pretraining, "vocabulary", lambda args: 275)
  monkeypatch.setattr(sys, "argv", ["pretraining", *options, "--pretraining_steps=2", "--steps=2", "--tiny"])
  pretraining.main()
  out = capsys.readouterr().out
  assert "sst2   random_gpt     accuracy" in out and "sst2   gpt " in out
  record = json.loads((tmp_path / "runs" / "sst2.json").read_text())
  assert {name: len(scores) for name, scores in record["scores"].items()} == {"random_gpt": 1, "gpt": 1}
  assert (tmp_path / "runs" / "sst2_text" / "train.txt").read_text().startswith("a good film , fine 0\n")
