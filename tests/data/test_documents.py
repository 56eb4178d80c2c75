"""Sources of documents: what each yields, its splits, its digest, and what is wrong with a file, in one line."""

import gzip
import os

import pytest
from ml_collections import ConfigDict

from attention_zoo.data import documents
from attention_zoo.data.documents import make_documents
from attention_zoo.errors import UserError


def source(spec, directory=""):
  data = ConfigDict({"source": spec, "train_split": "train", "dev_split": "dev", "test_split": ""})
  return make_documents(data, str(directory))


def test_one_file_is_cut_into_train_and_dev(tmp_path):
  (tmp_path / "a.txt").write_text("0123456789" * 3)
  found = source("text(held_out=0.2)", tmp_path / "a.txt")
  assert list(found.documents("train")) == [("0123456789" * 3)[:24]] and list(found.documents("dev")) == ["456789"]
  assert found.fingerprint("train") != found.fingerprint("dev")
  before = found.fingerprint("train")
  (tmp_path / "a.txt").write_text("0123456789" * 2 + "abcdefghij")
  assert found.fingerprint("train") != before
  with pytest.raises(UserError, match="splits train and dev, not 'valid'"):
    list(found.documents("valid"))
  with pytest.raises(UserError, match="no test split"):
    list(found.documents("test"))


@pytest.mark.parametrize(
  ("kind", "expected"),
  [("file", ["a\nb\n\nc\n"]), ("line", ["a", "b", "c"]), ("paragraph", ["a\nb", "c"])],
)
def test_what_is_a_document(tmp_path, kind, expected):
  (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfa\nb\n\nc\n")
  assert list(source(f"text(documents='{kind}')", tmp_path).documents("train")) == expected


def test_folders_of_files_plain_or_zipped(tmp_path):
  (tmp_path / "train").mkdir()
  (tmp_path / "train" / "b.txt").write_text("second")
  with gzip.open(tmp_path / "train" / "a.txt.gz", "wt") as file:
    file.write("first")
  (tmp_path / "train" / "notes.md").write_text("no")
  found = source("text", tmp_path)
  assert list(found.documents("train")) == ["first", "second"]
  with pytest.raises(UserError, match="neither dev.txt .or .gz. nor a folder dev"):
    list(found.documents("dev"))


def test_json_lines(tmp_path):
  (tmp_path / "train.jsonl").write_text('{"body": "one\\ntwo"}\n{"body": ""}\n{"body": "three"}\n')
  assert list(source("json_lines(field='body')", tmp_path).documents("train")) == ["one\ntwo", "three"]
  for line, message in (
    ("{", "line 2: no JSON object"),
    ('{"text": 1}', "field 'body'"),
    ('{"body": 3}', "is no text"),
  ):
    (tmp_path / "train.jsonl").write_text('{"body": "one"}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
      list(source("json_lines(field='body')", tmp_path).documents("train"))


def test_the_phrasebook_needs_no_file():
  found = source("phrasebook(language='de')")
  sentences = list(found.documents("dev"))
  assert len(sentences) > 100 and all(sentences) and len(found.fingerprint("dev")) == 64


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "a.txt is empty"),
    (b"x", "1 characters, too few"),
    (b"abc\xff", "a.txt: invalid UTF-8 .invalid start byte at byte 3"),
  ],
)
def test_files_that_are_no_text(tmp_path, content, message):
  (tmp_path / "a.txt").write_bytes(content)
  with pytest.raises(UserError, match=message):
    list(source("text", tmp_path / "a.txt").documents("dev"))
    list(source("text", tmp_path / "a.txt").documents("train"))


@pytest.mark.parametrize(
  ("spec", "message"),
  [
    ("txt", "no source 'txt' .did you mean 'text'"),
    ("text(documents='word')", "documents must be 'file', 'line' or 'paragraph', not 'word'"),
    ("text(held_out=1)", "held_out must be above 0"),
    ("tfds", "tfds needs the option name"),
    ("phrasebook(language='tlh')", "the phrasebook has no 'tlh'; it has "),
    ("text", "data.dir must name the text"),
  ],
)
def test_sources_that_there_are_not(spec, message):
  with pytest.raises(UserError, match=message):
    source(spec)


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "train.txt").write_text("a")
  assert list(source("text", "~").documents("train")) == ["a"]


def test_a_place_that_is_not_there_is_named(tmp_path):
  for place in (tmp_path / "nowhere", "a" * 300):  # too long for a name
    with pytest.raises(UserError, match=f"data.dir={place} does not exist"):
      source("text", place)


def test_what_is_no_file_or_unpacks_to_too_much(tmp_path, monkeypatch):
  monkeypatch.setattr(documents, "_LONGEST", 1000)
  with gzip.open(tmp_path / "train.txt.gz", "wb") as file:
    file.write(b"0" * 1001)
  with pytest.raises(UserError, match="train.txt.gz is larger than 1,000 bytes: cut it"):
    list(source("text", tmp_path).documents("train"))
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(UserError, match="pipe has neither train.txt"):
    list(source("text", tmp_path / "pipe").documents("train"))
