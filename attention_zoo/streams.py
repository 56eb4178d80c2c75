"""Text in and out of the entry points, always UTF-8: lines, JSON lines, `.gz`;
standard streams that may be closed or full."""

import codecs
import contextlib
import gzip
import io
import json
import os
import sys
import zlib

from attention_zoo import files
from attention_zoo.errors import UserError

_MOST = 1 << 30  # bytes of an input, unzipped: it is read as a whole


class _Output(io.TextIOWrapper):
  """Standard output that is full, or whose reader has gone, is a UserError wherever something is printed."""

  def write(self, text):
    with self._told():
      return super().write(text)

  def flush(self):
    with self._told():
      super().flush()

  @contextlib.contextmanager
  def _told(self):
    try:
      yield
    except OSError as error:
      os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # Python tries again when it exits.
      raise UserError(f"cannot write standard output: {error.strerror}") from error


def prepare() -> None:
  """Makes the standard streams UTF-8, whatever the locale says; errors of standard output become UserError.

  The numbers of streams that the caller closed are kept from being given to files.
  """
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
  if sys.stderr is None:  # print would take standard output in its place
    sys.stderr = open(os.devnull, "w", encoding="utf-8")
  for stream, errors in ((sys.stdin, "strict"), (sys.stderr, "backslashreplace")):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(encoding="utf-8", errors=errors)
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout = _Output(
      sys.stdout.buffer, encoding="utf-8", errors="surrogateescape",  # names of files may hold any bytes
      line_buffering=sys.stdout.line_buffering, write_through=sys.stdout.write_through,
    )  # fmt: skip


def read_lines(name=None) -> list[str]:
  """Lines of a file, unzipped if its name ends with .gz, or of standard input, without their ends.

  A byte-order mark at the beginning is left out. UserError for what cannot be read, what is too large for one reading
  (a small .gz may unpack to anything), and for invalid UTF-8.
  """
  lines = _content(name).removeprefix(codecs.BOM_UTF8).split(b"\n")
  if lines[-1] == b"":
    lines.pop()
  text = []
  for number, line in enumerate(lines, 1):
    try:
      text.append(line.decode().removesuffix("\r"))
    except UnicodeDecodeError as error:
      raise UserError(f"{name or 'standard input'}, line {number}: not valid UTF-8 ({error.reason})") from error
  return text


def _content(name) -> bytes:
  if not name and sys.stdin is None:
    raise UserError("cannot read standard input: it is closed")
  try:
    with files.expand(name).open("rb") if name else contextlib.nullcontext(sys.stdin.buffer) as file:
      content = (gzip.open(file) if str(name or "").endswith(".gz") else file).read(_MOST + 1)
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise UserError(f"{name} is not a whole gzip file: {error}") from error
  except OSError as error:
    raise UserError(f"cannot read {name or 'standard input'}: {error.strerror or error}") from error
  if len(content) > _MOST:
    raise UserError(f"{name or 'standard input'} has more than {_MOST:,} bytes of text: cut it into several files")
  return content


def read_records(name=None, field=None) -> list[dict]:
  """One dict a line that has a string under `field` ("source" by default): JSON lines as they are,
  other lines as {field: line}.

  The input is JSON lines if `field` is given or the name ends with .jsonl or .jsonl.gz; each line is then an object
  with that field, or a string. An empty line is an empty string. UserError names the line that is neither.
  """
  lines = read_lines(name)
  if field is None and not str(name or "").endswith((".jsonl", ".jsonl.gz")):
    return [{"source": line} for line in lines]
  field = field or "source"
  return [_record(line, field, f"{name or 'standard input'}, line {number}") for number, line in enumerate(lines, 1)]


def _record(line, field, where) -> dict:
  value = files.parse_json(line, where) if line.strip() else ""
  record = {field: value} if isinstance(value, str) else value
  if not isinstance(record, dict) or field not in record:
    found = (
      f"an object with the fields {', '.join(record)}" if isinstance(record, dict) else f"a {type(value).__name__}"
    )
    raise UserError(f"{where}: wanted an object with the field {field!r}, not {found} (--field names another)")
  if not isinstance(record[field], str):
    raise UserError(f"{where}: the field {field!r} must be a string, not a {type(record[field]).__name__}")
  try:
    json.dumps(record, ensure_ascii=False).encode()
  except UnicodeEncodeError as error:
    raise UserError(
      f"{where}: half a surrogate pair (U+{ord(error.object[error.start]):04X}) is no character"
    ) from None
  return record


def write_lines(lines, name=None) -> None:
  """Writes each as one line, to a file (whole or not at all, zipped if its name ends with .gz) or standard output.

  UserError where it cannot.
  """
  # Byte pieces can spell a line end, and what is one line in must be one line out.
  write_text("".join(line.replace("\n", " ") + "\n" for line in lines), name)


def write_text(text, name=None) -> None:
  """Writes a text to a file (whole or not at all, zipped if its name ends with .gz) or standard output;
  UserError likewise."""
  if name:
    data = text.encode()
    return files.write_bytes(name, gzip.compress(data, mtime=0) if str(name).endswith(".gz") else data)
  _check_open()
  sys.stdout.write(text)
  sys.stdout.flush()


class Typed:
  """A text on standard output that grows. begin: what stands there from the start."""

  def __init__(self, begin):
    self._shown = 0
    write_text(begin)

  def show(self, text) -> None:
    """The text so far, of which only what is new is written."""
    write_text(text[self._shown :])
    self._shown = max(self._shown, len(text))

  def end(self, text) -> None:
    self.show(text + "\n")


def _check_open():
  if sys.stdout is None:
    raise UserError("cannot write standard output: it is closed")


def check_output(name=None) -> None:
  """Raises UserError where `write_lines` would, as far as that can be seen before the work is done."""
  if not name:
    return _check_open()
  if not files.is_local(name):
    return
  path = files.expand(name).absolute()
  with files.writing(name):  # its folder may be closed to us, or its name too long
    if path.is_dir():
      raise UserError(f"cannot write {name}: it is a directory")
    nearest = next(parent for parent in path.parents if os.path.lexists(parent))
    if not nearest.is_dir():
      raise UserError(f"cannot write {name}: {nearest} is not a directory")
    if not os.access(path if path.exists() else nearest, os.W_OK):
      raise UserError(f"cannot write {name}: permission denied")
