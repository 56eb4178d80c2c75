import hashlib
import json
import multiprocessing
import os
import pathlib

import numpy as np
import pytest

from attention_zoo.data import corpus as corpus_module
from attention_zoo.data.corpus import build_corpus
from attention_zoo.data.tokenizer import EOS, Tokenizer, train
from attention_zoo.errors import UserError
from tests.data.texts import Pairs, sentences

PAIRS = list(zip(sentences(300, seed=1), sentences(300, seed=2), strict=True))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  path = tmp_path_factory.mktemp("tokenizer") / "m"
  train([sentence for pair in PAIRS for sentence in pair], path, vocab_size=200)
  return Tokenizer(path)


def unpack(tokens, offsets):
  return [tokens[a:b].tolist() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


def test_the_corpus_is_the_tokenised_text(tokenizer, tmp_path, monkeypatch):
  monkeypatch.setattr(corpus_module, "_CHUNK", 7)
  corpus = build_corpus(Pairs(PAIRS), "train", tokenizer, max_length=100, cache_dir=tmp_path)
  source, target = (tokenizer.encode(list(side)) for side in zip(*PAIRS, strict=True))
  assert unpack(corpus.source_tokens, corpus.source_offsets) == [s + [EOS] for s in source]
  assert unpack(corpus.target_tokens, corpus.target_offsets) == [t + [EOS] for t in target]
  assert len(corpus) == 300 and corpus.too_long == 0
  assert corpus.source_lengths.tolist() == [len(s) + 1 for s in source]
  assert isinstance(corpus.source_tokens, np.memmap) and corpus.source_tokens.dtype == np.int32


@pytest.mark.parametrize("too_long", ["truncate", "skip"])
def test_sentences_over_the_limit_are_counted(tokenizer, tmp_path, too_long):
  corpus = build_corpus(
    Pairs(PAIRS), "train", tokenizer, max_length=20, too_long=too_long, cache_dir=tmp_path
  )
  full = [[ids + [EOS] for ids in tokenizer.encode(list(side))] for side in zip(*PAIRS, strict=True)]
  long = [max(len(s), len(t)) > 20 for s, t in zip(*full, strict=True)]
  assert corpus.too_long == sum(long) and 0 < sum(long) < len(long)
  for side, tokens, offsets in zip(
    full,
    (corpus.source_tokens, corpus.target_tokens),
    (corpus.source_offsets, corpus.target_offsets),
    strict=True,
  ):
    if too_long == "skip":
      expected = [s for s, over in zip(side, long, strict=True) if not over]
    else:
      expected = [s if len(s) <= 20 else s[:19] + [EOS] for s in side]
    assert unpack(tokens, offsets) == expected


def test_the_cache_is_used_and_keyed_by_all_that_matters(tokenizer, tmp_path):
  class Once(Pairs):
    read = 0

    def pairs(self, split):
      type(self).read += 1
      return super().pairs(split)

  source = Once(PAIRS)
  settings = dict(max_length=50, too_long="skip", cache_dir=tmp_path / "new" / "folder")
  build_corpus(source, "train", tokenizer, **settings)
  again = build_corpus(source, "train", tokenizer, **settings)
  assert Once.read == 1 and len(again) == 300
  build_corpus(source, "train", tokenizer, **settings | dict(max_length=40))
  build_corpus(source, "train", tokenizer, **settings | dict(too_long="truncate"))
  build_corpus(Once(PAIRS[:-1]), "train", tokenizer, **settings)
  build_corpus(Once(PAIRS, languages=("en", "fr")), "train", tokenizer, **settings)
  train(PAIRS[0] * 2, tmp_path / "m", vocab_size=30)
  build_corpus(source, "train", Tokenizer(tmp_path / "m"), **settings)
  assert Once.read == 6


def _build(model, directory, barrier):
  barrier.wait()
  train([sentence for pair in PAIRS for sentence in pair], model, vocab_size=200)
  corpus = build_corpus(Pairs(PAIRS), "train", Tokenizer(model), max_length=50, cache_dir=directory)
  assert int(corpus.source_offsets[-1]) == len(corpus.source_tokens) > 300


def test_processes_that_build_at_the_same_time_do_not_disturb_each_other(tmp_path):
  """Each trains the vocabulary, as the processes of a run do that start on an empty work directory, and tokenises."""
  context = multiprocessing.get_context("spawn")
  barrier = context.Barrier(4)
  workers = [
    context.Process(target=_build, args=(tmp_path / "m", tmp_path / "cache", barrier)) for _ in range(4)
  ]
  for worker in workers:
    worker.start()
  for worker in workers:
    worker.join()
  assert [worker.exitcode for worker in workers] == [0] * 4
  assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_build_that_fails_leaves_nothing(tokenizer, tmp_path):
  class Broken(Pairs):
    def pairs(self, split):
      yield from PAIRS
      raise UserError("line 301 is broken")

  with pytest.raises(UserError, match="line 301"):
    build_corpus(Broken(PAIRS), "train", tokenizer, max_length=50, cache_dir=tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "unlink", "fifo"])
@pytest.mark.parametrize("name", ["meta.json", "source_tokens.npy", "target_offsets.npy"])
def test_a_damaged_cache_is_built_anew(tokenizer, tmp_path, name, harm, caplog):
  settings = dict(max_length=50, cache_dir=tmp_path)
  build_corpus(Pairs(PAIRS), "train", tokenizer, **settings)
  (directory,) = tmp_path.iterdir()
  whole = {path.name: path.read_bytes() for path in directory.iterdir()}
  content = whole[name]
  (directory / name).unlink()
  if harm == "fifo":
    os.mkfifo(directory / name)
  elif harm != "unlink":
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    (directory / name).write_bytes({"flip": flipped, "cut": content[:-5], "empty": b""}[harm])
  assert len(build_corpus(Pairs(PAIRS), "train", tokenizer, **settings)) == 300
  assert {path.name: path.read_bytes() for path in directory.iterdir()} == whole
  assert "is not as it was written, and is made anew" in caplog.text and list(tmp_path.iterdir()) == [directory]


@pytest.mark.parametrize("change", [{"too_long": 0}, {"max_length": 21}])
def test_figures_that_were_changed_are_not_believed(tokenizer, tmp_path, change):
  """The arrays are whole, and how many sentences were cut is not what was written."""
  settings = dict(max_length=20, cache_dir=tmp_path)
  built = build_corpus(Pairs(PAIRS), "train", tokenizer, **settings)
  (directory,) = tmp_path.iterdir()
  meta = json.loads((directory / "meta.json").read_text())
  (directory / "meta.json").write_text(json.dumps(meta | change))
  again = build_corpus(Pairs(PAIRS), "train", tokenizer, **settings)
  assert (again.too_long, again.max_length) == (built.too_long, 20) and built.too_long > 0


def test_tokens_and_offsets_that_cannot_be_are_built_anew(tokenizer, tmp_path):
  """As somebody could send them, the checksums right."""
  settings = dict(max_length=50, cache_dir=tmp_path)
  build_corpus(Pairs(PAIRS), "train", tokenizer, **settings)
  (directory,) = tmp_path.iterdir()
  for name, change in (
    ("source_tokens", lambda a: a + 200),
    ("target_offsets", lambda a: a[::-1]),
    ("target_tokens", lambda a: a[1:]),
    ("source_offsets", None),
  ):
    array = np.load(directory / f"{name}.npy")
    if change:
      np.save(directory / f"{name}.npy", change(array))
    else:
      (directory / f"{name}.npy").write_bytes(b"")
    meta = json.loads((directory / "meta.json").read_text())
    meta["sha256"][name] = hashlib.sha256((directory / f"{name}.npy").read_bytes()).hexdigest()
    del meta["checksum"]
    (directory / "meta.json").write_text(json.dumps(meta | {"checksum": corpus_module._checksum(meta)}))
    build_corpus(Pairs(PAIRS), "train", tokenizer, **settings)
    assert (np.load(directory / f"{name}.npy") == array).all(), name


def test_remains_are_removed_unless_they_are_being_built(tokenizer, tmp_path):
  dead, other = tmp_path / f".{'0' * 20}.dead.tmp", tmp_path / ".other"
  for path in (dead, other):
    path.mkdir()
    (path / "meta.json").touch()

  class Cleaned(Pairs):
    def pairs(self, split):
      corpus_module.remove_remains(tmp_path)
      return super().pairs(split)

  assert len(build_corpus(Cleaned(PAIRS), "train", tokenizer, max_length=50, cache_dir=tmp_path)) == 300
  assert not dead.exists() and other.exists()
  corpus_module.remove_remains(tmp_path / "nowhere")


def test_a_tilde_in_cache_dir_is_the_home(tokenizer, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  build_corpus(Pairs(PAIRS), "train", tokenizer, max_length=50, cache_dir="~/cache")
  assert len(list((tmp_path / "cache").iterdir())) == 1


def test_where_it_cannot_be_written_is_told(tokenizer, tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match="cannot write .*file/"):
    build_corpus(Pairs(PAIRS), "train", tokenizer, max_length=50, cache_dir=tmp_path / "file")


def test_wrong_settings_are_told(tokenizer, tmp_path):
  def build(**change):
    settings = dict(max_length=50, too_long="skip", cache_dir=tmp_path) | change
    build_corpus(Pairs(PAIRS), "train", tokenizer, **settings)

  with pytest.raises(UserError, match='data.too_long="drop" is unknown'):
    build(too_long="drop")
  with pytest.raises(UserError, match="data.max_length=1 leaves no room"):
    build(max_length=1)
  with pytest.raises(UserError, match="train split holds no sentence pair of at most 2 tokens"):
    build(max_length=2)


def test_a_cache_on_cloud_storage_becomes_a_local_one(tokenizer, tmp_path, monkeypatch):
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
  corpus = build_corpus(Pairs(PAIRS), "train", tokenizer, max_length=50, cache_dir="gs://bucket/run/data")
  assert tmp_path in pathlib.Path(corpus.source_tokens.filename).parents
