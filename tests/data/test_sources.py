import gzip
import subprocess
import sys

import ml_collections
import pytest

from attention_zoo.data.sources import TextFiles, make_source
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


def test_invalid_utf8_is_located(tmp_path):
  source = write(tmp_path, train_en=b"a\nb\nc\xff\n", train_de="x\ny\nz\n")
  with pytest.raises(UserError, match=r"train\.en, line 3: invalid UTF-8 \(invalid start byte at byte 1\)"):
    list(source.pairs("train"))


def test_a_cut_gzip_file_is_named(tmp_path):
  (tmp_path / "train.en.gz").write_bytes(gzip.compress(b"hello\n" * 1000)[:-12])
  source = write(tmp_path, train_de="x\n")
  for use in (source.pairs, source.fingerprint):
    with pytest.raises(UserError, match=r"train\.en\.gz is not a whole gzip file"):
      use("train")
  whole = gzip.compress(b"hello\n" * 1000)
  (tmp_path / "train.en.gz").write_bytes(whole[:12] + b"\xff" * 8 + whole[20:])
  with pytest.raises(UserError, match=r"train\.en\.gz is not a whole gzip file"):
    source.pairs("train")


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
  def denied(self, mode):
    raise PermissionError(13, "Permission denied")

  source = write(tmp_path, train_en="a\n", train_de="x\n")
  monkeypatch.setattr("etils.epath.gpath.PosixGPath.open", denied)
  with pytest.raises(UserError, match=r"cannot read .*train\.en: Permission denied"):
    source.pairs("train")


def test_a_missing_directory_is_named(tmp_path):
  with pytest.raises(UserError, match="data.dir=.*nowhere is not a directory"):
    TextFiles(str(tmp_path / "nowhere"), ("en", "de"), ROLES)
  with pytest.raises(UserError, match="data.dir must name"):
    TextFiles("", ("en", "de"), ROLES)


def config(**fields):
  data = dict(source="text", name="", dir="", languages=("en", "de"), train_split="train", dev_split="dev")
  return ml_collections.ConfigDict(data | dict(test_split="test") | fields)


def test_make_source_picks_by_name(tmp_path):
  write(tmp_path, dev_en="a\n", dev_de="x\n")
  assert list(make_source(config(dir=str(tmp_path))).pairs("dev")) == [("a", "x")]
  assert make_source(config(source="phrasebook")).splits == ("train", "dev", "test")
  with pytest.raises(UserError, match='"csv" is unknown.*phrasebook'):
    make_source(config(source="csv"))
  with pytest.raises(UserError, match="two different languages"):
    make_source(config(languages=("en", "en")))


def test_the_data_room_imports_lightly():
  """What serves one source only, or training only, is imported where it is used."""
  modules = ("sources", "tokenizer", "phrasebook", "corpus", "batches")
  heavy = ("tensorflow", "tensorflow_datasets", "babel", "num2words", "grain", "jax", "sentencepiece")
  code = f"""
import importlib, sys
for name in {modules}: importlib.import_module("attention_zoo.data." + name)
print([name for name in {heavy} if name in sys.modules])"""
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "[]"
