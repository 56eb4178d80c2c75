"""Lines in and lines out, as the entry points read and write them."""

import gzip
import io
import json
import os
import sys
import types

import pytest

from attention_zoo import streams
from attention_zoo.errors import UserError


@pytest.mark.parametrize(
  ("content", "lines"),
  [
    (b"", []),
    (b"\n", [""]),
    (b"a\n\n b \n", ["a", "", " b "]),
    (b"a\r\nb", ["a", "b"]),
    ("ä\u2028b\x0cc\n".encode(), ["ä\u2028b\x0cc"]),
  ],
)
def test_lines_end_where_the_file_says(tmp_path, monkeypatch, content, lines):
  (tmp_path / "in").write_bytes(content)
  assert streams.read_lines(tmp_path / "in") == lines
  monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(content)))
  assert streams.read_lines() == lines


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
  with pytest.raises(UserError, match="cannot read .*nowhere: No such file"):
    streams.read_lines(tmp_path / "nowhere")
  with pytest.raises(UserError, match="cannot read .*: Is a directory"):
    streams.read_lines(tmp_path)
  monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(b"a\nb\xe4\n")))
  with pytest.raises(UserError, match="standard input, line 2: not valid UTF-8"):
    streams.read_lines()


def test_every_item_is_one_line(tmp_path, capsys):
  streams.write_lines(["a", "", "b\nc"], tmp_path / "new" / "out")
  assert (tmp_path / "new" / "out").read_text() == "a\n\nb c\n"
  streams.write_lines(["a", "b\nc"])
  assert capsys.readouterr().out == "a\nb c\n"


def test_what_cannot_be_written_is_told(tmp_path, monkeypatch):
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match="cannot write .*file/out: "):
    streams.write_lines(["a"], tmp_path / "file" / "out")
  (tmp_path / "out").mkdir()
  with pytest.raises(UserError, match="cannot write .*/out: .*s a directory"):
    streams.write_lines(["a"], tmp_path / "out")
  assert not (tmp_path / "out.tmp").exists()
  full = open("/dev/full", "w")
  monkeypatch.setattr(sys, "stdout", full)
  streams.prepare()
  with pytest.raises(UserError, match="cannot write standard output: No space left on device"):
    streams.write_lines(["a"])
  print("a" * 100_000)  # and once only
  full.close()


def test_a_byte_order_mark_is_no_text(tmp_path, monkeypatch):
  content = "\ufeffä\n\ufeffb".encode()
  (tmp_path / "in").write_bytes(content)
  assert streams.read_lines(tmp_path / "in") == ["ä", "\ufeffb"]
  monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(content)))
  assert streams.read_lines() == ["ä", "\ufeffb"]


def test_zipped_files(tmp_path):
  streams.write_lines(["ä", "", "b"], tmp_path / "out.gz")
  packed = (tmp_path / "out.gz").read_bytes()
  assert gzip.decompress(packed).decode() == "ä\n\nb\n"
  assert streams.read_lines(tmp_path / "out.gz") == ["ä", "", "b"]
  for wrong in (packed[:-5], b"plain\n", packed[:12] + b"\xff\xff\xff" + packed[15:]):
    (tmp_path / "wrong.gz").write_bytes(wrong)
    with pytest.raises(UserError, match="wrong.gz is not a whole gzip file"):
      streams.read_lines(tmp_path / "wrong.gz")


def test_json_lines(tmp_path):
  lines = ['{"id": 7, "source": "ä"}', '"b"', "", '{"source": ""}']
  (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
  expected = [{"id": 7, "source": "ä"}, {"source": "b"}, {"source": ""}, {"source": ""}]
  assert streams.read_records(tmp_path / "in.jsonl.gz") == expected
  (tmp_path / "in").write_text('{"en": "a", "source": 5}\n"b"\n')
  assert streams.read_records(tmp_path / "in", "en") == [{"en": "a", "source": 5}, {"en": "b"}]
  assert streams.read_records(tmp_path / "in")[1] == {"source": '"b"'}


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ("{", "line 2 is not valid JSON"),
    ("[" * 100_000, "line 2 is not valid JSON|line 2 is nested"),
    ("[]", "line 2: wanted an object with the field 'source', not a list"),
    ("7", "line 2: wanted an object with the field 'source', not a int"),
    ('{"text": "a", "id": 1}', "line 2: wanted .* not an object with the fields text, id .--field names another"),
    ('{"source": null}', "line 2: the field 'source' must be a string, not a NoneType"),
    ('{"source": "a", "id": "\\ud800"}', "line 2: half a surrogate pair .U.D800"),
  ],
)
def test_a_line_that_is_no_record_is_named(tmp_path, line, message):
  (tmp_path / "in.jsonl").write_text(f'{{"source": "a"}}\n{line}\n')
  with pytest.raises(UserError, match=message):
    streams.read_records(tmp_path / "in.jsonl")


def test_text_is_utf_8_whatever_the_locale_says(monkeypatch):
  monkeypatch.setattr(sys, "stdin", None)
  for encoding in ("latin-1", "ascii"):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    streams.prepare()
    streams.write_lines(["Übung – 山"])
    print("山", os.fsdecode(b"\xff"), file=err, flush=True)
    print(os.fsdecode(b"/\xff"), flush=True)
    assert out.buffer.getvalue() == "Übung – 山\n".encode() + b"/\xff\n"
    assert err.buffer.getvalue() == "山 \\udcff\n".encode()


def test_closed_streams_are_told(monkeypatch):
  monkeypatch.setattr(sys, "stdin", None)
  monkeypatch.setattr(sys, "stdout", None)
  with pytest.raises(UserError, match="cannot read standard input: it is closed"):
    streams.read_lines()
  for call in (lambda: streams.write_lines(["a"]), streams.check_output):
    with pytest.raises(UserError, match="cannot write standard output: it is closed"):
      call()


def test_what_cannot_be_written_is_told_before_the_work(tmp_path):
  (tmp_path / "file").touch()
  for name in (tmp_path / "file", tmp_path / "a" / "b", "/dev/null", "gs://bucket/file"):
    streams.check_output(name)
  with pytest.raises(UserError, match="cannot write .*: it is a directory"):
    streams.check_output(tmp_path)
  with pytest.raises(UserError, match="cannot write .*/file/a/b: .*/file is not a directory"):
    streams.check_output(tmp_path / "file" / "a" / "b")
  assert not (tmp_path / "a").exists()
  with pytest.raises(UserError, match="cannot write a+: File name too long"):
    streams.check_output("a" * 300)


def test_json_out_survives_the_way_back(tmp_path):
  text = json.dumps({"source": "a\nb\u2028"}, ensure_ascii=False)
  streams.write_lines([text], tmp_path / "out.jsonl")
  assert streams.read_records(tmp_path / "out.jsonl") == [{"source": "a\nb\u2028"}]


def test_an_input_that_is_too_large_or_unpacks_to_too_much(tmp_path, monkeypatch):
  monkeypatch.setattr(streams, "_MOST", 1000)
  for name in ("in.gz", "in.jsonl.gz"):
    (tmp_path / name).write_bytes(gzip.compress(b"0" * 1001))
    with pytest.raises(UserError, match=f"{name} has more than 1,000 bytes of text: cut it into several files"):
      streams.read_records(tmp_path / name)
  with pytest.raises(UserError, match="/dev/zero has more than 1,000 bytes"):
    streams.read_lines("/dev/zero")
  monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(b"0" * 1001)))
  with pytest.raises(UserError, match="standard input has more than 1,000 bytes"):
    streams.read_lines()
  (tmp_path / "whole.gz").write_bytes(gzip.compress(b"0" * 1000))
  assert streams.read_lines(tmp_path / "whole.gz") == ["0" * 1000]
