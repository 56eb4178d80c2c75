import gzip
import os
import subprocess
import sys

import ml_collections
import pytest

from attention_zoo.data.sources import Sentences, TextFiles, make_source
from attention_zoo.errors import UserError

ROLES = {"train": "train", "dev": "val", "test": "test_2016"}


def write(directory, **files):
  for name, content in files.items():
    name = name.replace("_", ".", 1)
    (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
  return TextFiles(str(directory), ("en", "de"), ROLES)


def test_pairs_come_as_they_are(tmp_path):
  source = write(tmp_path, train_en="a b\n c  d \n\nlast", train_de="x\r\ny\u2028z\x85\x0c\x1c\r\n\r\nü\n")
  assert list(source.pairs("train")) == [
    ("a b", "x"),
    (" c  d ", "y\u2028z\x85\x0c\x1c"),
    ("", ""),
    ("last", "ü"),
  ]
  assert source.splits == ("train",)


def test_gzipped_files_and_roles(tmp_path):
  (tmp_path / "val.en.gz").write_bytes(gzip.compress(b"a\nb\n"))
  source = write(tmp_path, val_de="x\ny\n", test_2016="")
  assert list(source.pairs("dev")) == list(source.pairs("val")) == [("a", "x"), ("b", "y")]
  assert source.splits == ("val",)


def test_the_fingerprint_is_of_the_text_and_not_of_the_file(tmp_path):
  source = write(tmp_path, val_en="a\nb\n", val_de="x\ny\n")
  before = source.fingerprint("dev")
  (tmp_path / "val.en").unlink()
  (tmp_path / "val.en.gz").write_bytes(gzip.compress(b"a\nb\n"))
  assert source.fingerprint("val") == before
  (tmp_path / "val.de").write_text("x\nz\n")
  assert source.fingerprint("dev") != before
  # The boundary between the two files counts.
  write(tmp_path, train_en="a\nb\n", train_de="x\n"), write(tmp_path, val_en="a\n", val_de="b\nx\n")
  assert source.fingerprint("train") != source.fingerprint("val")


def test_unequal_line_counts_name_both_files(tmp_path):
  source = write(tmp_path, train_en="a\nb\nc\n", train_de="x\ny")
  with pytest.raises(UserError, match=r"train\.en has 3 lines and .*train\.de has 2"):
    source.pairs("train")


@pytest.mark.parametrize("missing", ["train.en", "train.de"])
def test_a_missing_file_is_named_with_what_is_there(tmp_path, missing):
  source = write(tmp_path, train_en="a\n", train_de="x\n", val_en="a\n", val_de="x\n")
  (tmp_path / missing).unlink()
  with pytest.raises(UserError, match=rf"neither .*{missing} nor {missing}\.gz\..*: val\."):
    source.pairs("train")


def test_an_empty_file_is_named(tmp_path):
  source = write(tmp_path, train_en="", train_de="")
  with pytest.raises(UserError, match=r"train\.en is empty"):
    source.pairs("train")


def test_a_missing_directory_is_named(tmp_path):
  with pytest.raises(UserError, match="data.dir=.*nowhere is not a directory"):
    TextFiles(str(tmp_path / "nowhere"), ("en", "de"), ROLES)
  with pytest.raises(UserError, match="data.dir=a+ is not a directory"):  # a name that is too long for one
    TextFiles("a" * 300, ("en", "de"), ROLES)
  with pytest.raises(UserError, match="data.dir must name"):
    TextFiles("", ("en", "de"), ROLES)


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  write(tmp_path, dev_en="a\n", dev_de="x\n")
  assert list(TextFiles("~", ("en", "de"), {}).pairs("dev")) == [("a", "x")]


def test_a_directory_may_be_named_like_a_pattern(tmp_path):
  (tmp_path / "layers=[2,2]*").mkdir()
  source = write(tmp_path / "layers=[2,2]*", train_en="a\n", train_de="x\n")
  assert source.splits == ("train",) and list(source.pairs("train")) == [("a", "x")]


def test_a_byte_order_mark_is_no_text(tmp_path):
  source = write(tmp_path, train_en="\ufeffa\nb\n", train_de="x\ny\n", val_en="a\nb\n", val_de="\ufeffx\ny\n")
  assert list(source.pairs("train")) == list(source.pairs("dev")) == [("a", "x"), ("b", "y")]
  assert source.fingerprint("train") == source.fingerprint("dev")
  write(tmp_path, empty_en="\ufeff", empty_de="x\n")
  with pytest.raises(UserError, match=r"empty\.en is empty"):
    source.pairs("empty")


def test_sentences_can_be_read_again(tmp_path):
  sentences = Sentences(write(tmp_path, train_en="a\nb\n", train_de="x\ny\n"), "train")
  assert list(sentences) == list(sentences) == ["a", "x", "b", "y"]


@pytest.mark.parametrize("kind", ["fifo", "device", "link"])
def test_what_is_no_file_is_not_read(tmp_path, kind):
  source = write(tmp_path, train_de="x\n")
  path = tmp_path / "train.en"
  os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero" if kind == "device" else tmp_path)
  for use in (source.pairs, source.fingerprint):
    with pytest.raises(UserError, match=r"train\.en"):
      use("train")


def config(**fields):
  data = dict(source="text", dir="", languages=("en", "de"), train_split="train", dev_split="dev")
  return ml_collections.ConfigDict(data | dict(test_split="test") | fields)


def test_make_source_picks_by_name(tmp_path):
  write(tmp_path, dev_en="a\n", dev_de="x\n")
  assert list(make_source(config(), str(tmp_path)).pairs("dev")) == [("a", "x")]
  assert make_source(config(source="phrasebook"), "").splits == ("train", "dev", "test")
  with pytest.raises(UserError, match="no source of sentence pairs 'csv'.*phrasebook"):
    make_source(config(source="csv"), "")
  with pytest.raises(UserError, match=r"config.data.source: tfds needs the option name: tfds\(name=..\)"):
    make_source(config(source="tfds"), "")
  with pytest.raises(UserError, match="config.data.source: text has no option 'dir'"):
    make_source(config(source="text(dir='a')"), "")
  with pytest.raises(UserError, match="two different languages"):
    make_source(config(languages=("en", "en")), "")


def test_the_data_room_imports_lightly():
  """What serves one source only, or training only, is imported where it is used."""
  modules = ("sources", "textfiles", "tokenizer", "phrasebook", "corpus", "batches")
  heavy = ("tensorflow", "tensorflow_datasets", "babel", "num2words", "grain", "jax", "sentencepiece")
  code = f"""
import importlib, sys
for name in {modules}: importlib.import_module("attention_zoo.data." + name)
print([name for name in {heavy} if name in sys.modules])"""
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "[]"
