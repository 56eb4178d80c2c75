import gzip
import os
import tracemalloc

import pytest

from attention_zoo.data import textfiles
from attention_zoo.errors import UserError


def write(path, content):
  path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
  return path


@pytest.mark.parametrize("name", ["text", "text.gz"])
@pytest.mark.parametrize(
  ("content", "lines"),
  [
    (b"", []),
    (b"\n", [""]),
    (b"a\r\nb\x0c\x1cc\xc2\x85\n\n c", ["a", "b\x0c\x1cc\x85", "", " c"]),
    (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", ["a", "\ufeffb"]),
    (b"\xef\xbb\xbf", []),
    (b"\xef\xbb", None),
  ],
)
def test_lines(tmp_path, name, content, lines):
  path = write(tmp_path / name, content)
  assert textfiles.count_lines(path) == (1 if lines is None else len(lines))
  if lines is None:
    with pytest.raises(UserError, match="line 1: invalid UTF-8"):
      list(textfiles.lines(path))
  else:
    assert list(textfiles.lines(path)) == lines


def test_the_digest_is_of_the_text(tmp_path):
  same = [write(tmp_path / "a", b"x\n"), write(tmp_path / "b.gz", b"x\n"), write(tmp_path / "c.gz", b"\xef\xbb\xbfx\n")]
  assert len({textfiles.digest(path) for path in same}) == 1
  assert textfiles.digest(write(tmp_path / "d", b"x")) != textfiles.digest(same[0])


def test_invalid_utf8_is_located(tmp_path):
  path = write(tmp_path / "train.en", b"a\nb\nc\xff\n")
  with pytest.raises(UserError, match=r"train\.en, line 3: invalid UTF-8 \(invalid start byte at byte 1\)"):
    list(textfiles.lines(path))


USES = (textfiles.count_lines, textfiles.digest, lambda path: list(textfiles.lines(path)))


@pytest.mark.parametrize("use", USES)
def test_a_damaged_gzip_file_is_named(tmp_path, use):
  whole = gzip.compress(b"hello\n" * 1000)
  for content in (whole[:-12], whole[:12] + b"\xff" * 8 + whole[20:], b"no gzip"):
    (tmp_path / "train.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"train\.gz is not a whole gzip file"):
      use(tmp_path / "train.gz")


@pytest.mark.parametrize("use", USES)
def test_what_is_no_regular_file_is_refused(tmp_path, use):
  os.mkfifo(tmp_path / "fifo")
  (tmp_path / "zero").symlink_to("/dev/zero")
  for name in ("fifo", "zero"):
    with pytest.raises(UserError, match=f"{name} is not a regular file"):
      use(tmp_path / name)
  with pytest.raises(UserError, match="cannot read .*: Is a directory"):
    use(tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
  def denied(path, flags):
    raise PermissionError(13, "Permission denied")

  path = write(tmp_path / "train.en", b"a")
  monkeypatch.setattr(os, "open", denied)
  with pytest.raises(UserError, match=r"cannot read .*train\.en: Permission denied"):
    textfiles.digest(path)


@pytest.mark.parametrize("use", [USES[0], USES[2]])
def test_a_line_without_end_is_refused_in_bounded_memory(tmp_path, use):
  with gzip.open(tmp_path / "bomb.gz", "wb", 1) as file:
    file.write(b"one\ntwo\n")
    for _ in range(100):
      file.write(b"0" * (1 << 20))
  tracemalloc.start()
  try:
    with pytest.raises(UserError, match=r"bomb\.gz, line 3 is longer than 1,048,576 bytes"):
      use(tmp_path / "bomb.gz")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
  finally:
    tracemalloc.stop()
