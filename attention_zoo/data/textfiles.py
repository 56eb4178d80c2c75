"""Reading text files: UTF-8, plain or gzipped (.gz), with or without a byte-order mark, in bounded memory."""

import codecs
import contextlib
import gzip
import hashlib
import itertools
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from attention_zoo import files
from attention_zoo.errors import UserError

LONGEST_LINE = 1 << 20  # bytes; no sentence has as many


@contextlib.contextmanager
def open_text(path) -> Iterator[BinaryIO]:
  """The file's content, unzipped and without a byte-order mark.

  path: local or on Cloud Storage (gs://). Raises UserError that names the file for what cannot be read, what is no
  regular file (reading a pipe or a device may never end), and whatever goes wrong while it is read.
  """
  path = files.expand(path)
  try:
    with files.open_regular(path) if files.is_local(path) else path.open("rb") as file:
      unzipped = gzip.open(file) if path.name.endswith(".gz") else file
      if unzipped.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        unzipped.seek(0)
      yield unzipped
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise UserError(f"{path} is not a whole gzip file: {error}") from error
  except OSError as error:
    raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def digest(path) -> bytes:
  """SHA-256 of the text, so that neither zipping nor a byte-order mark changes it."""
  found = hashlib.sha256()
  with open_text(path) as file:
    while block := file.read(1 << 20):
      found.update(block)
  return found.digest()


def count_lines(path) -> int:
  """The number of lines; what stands behind the last line end is one. Raises UserError for a line over LONGEST_LINE."""
  return sum(1 for _ in raw_lines(path))


def lines(path) -> Iterator[str]:
  """The lines, which end at "\\n" or "\\r\\n" and nowhere else.
  Raises UserError for invalid UTF-8 and a line over LONGEST_LINE."""
  for number, line in enumerate(raw_lines(path), 1):
    try:
      yield line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
      raise UserError(f"{path}, line {number}: invalid UTF-8 ({error.reason} at byte {error.start})") from error


def raw_lines(path) -> Iterator[bytes]:
  """The lines as they are, with their ends. Raises UserError for a line over LONGEST_LINE."""
  with open_text(path) as file:
    for number in itertools.count(1):
      line = file.readline(LONGEST_LINE + 1)
      if len(line) > LONGEST_LINE:
        raise UserError(
          f"{path}, line {number} is longer than {LONGEST_LINE:,} bytes: is this text, with one sentence a line?"
        )
      if not line:
        return
      yield line
