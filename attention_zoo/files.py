"""Files that people name: paths with `~`, reading within bounds, and writing that leaves a file whole or as it was.

Only the standard library, so that every room may import it; etils is imported for paths like gs://bucket/file.
"""

import contextlib
import json
import os
import pathlib
import re
import secrets
import shutil
import stat
import time

from attention_zoo.errors import UserError

_REMAINS = re.compile(r"\..+\.([0-9a-f]{12}|[a-z0-9_]{8})\.tmp")  # temporary files of `replacing`, folders of tempfile
_IDLE = 60  # seconds after which nobody is writing in a temporary folder any more


def is_local(path) -> bool:
  return "://" not in str(path)


def expand(path):
  """The path that a person wrote: pathlib.Path with a leading `~` or `~user` replaced,
  or epath.Path for gs:// and its like."""
  if not is_local(path):
    from etils import epath

    return epath.Path(path)
  try:
    return pathlib.Path(path).expanduser()
  except RuntimeError as error:  # ~nobody-of-this-name
    raise UserError(f"{path}: there is no such user ({error})") from error


def exists(path) -> bool:
  """Whether there is such a file or folder. False also for a name that is too long for one,
  and in a folder that is closed to us."""
  try:
    return expand(path).exists()
  except OSError:
    return False


def open_regular(path):
  """A local regular file, open for reading bytes. Raises UserError for a pipe or a device:
  reading one may never end."""
  file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")  # a pipe without a writer would wait for one
  if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
    file.close()
    raise UserError(f"{path} is not a regular file")
  return file


def read_bytes(path, most: int) -> bytes:
  """The content of a regular file of at most `most` bytes.

  Raises UserError for anything else.
  """
  try:
    if not is_local(path):
      path = expand(path)
      if path.stat().length > most:
        raise UserError(f"{path} has more than {most:,} bytes")
      return path.read_bytes()
    with open_regular(expand(path)) as file:
      content = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)  # read() makes room for all that is asked for
  except OSError as error:
    raise UserError(f"cannot read {path}: {error.strerror or error}") from error
  if len(content) > most:
    raise UserError(f"{path} has more than {most:,} bytes")
  return content


def read_json(path, most: int = 1 << 20, depth: int = 32):
  """The value in a JSON file. Raises UserError as `read_bytes` does,
  and for what is no JSON or nested deeper than `depth`."""
  return parse_json(read_bytes(path, most), path, depth)


def parse_json(text: str | bytes, name, depth: int = 32):
  """The value of a JSON text. name: where it stands, for the UserError."""
  try:
    value = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise UserError(f"{name} is not valid JSON: {error}") from error
  level = [value]
  for _ in range(depth):
    children = ((x.values() if isinstance(x, dict) else x) for x in level if isinstance(x, (dict, list)))
    level = [child for some in children for child in some]
  if level:
    raise UserError(f"{name} is nested more than {depth} deep")
  return value


@contextlib.contextmanager
def replacing(path):
  """Yields a temporary path beside `path`; what was written there becomes `path` when the block ends without an error.

  path: local. A symbolic link is followed; the mode of a file that exists is kept; a file with several hard links, a
  device or a pipe is written in place, because renaming would cut it off from its other names.
  Raises UserError where the file cannot be written.
  """
  target = pathlib.Path(os.path.realpath(expand(path)))
  temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    before = target.stat() if target.exists() else None
    if before is None or stat.S_ISREG(before.st_mode):
      beside = temporary
    else:  # /dev/null has no folder to keep a file in
      import tempfile

      handle, name = tempfile.mkstemp()
      os.close(handle)
      beside = temporary = pathlib.Path(name)
    try:
      yield beside
      if before is None:
        os.replace(temporary, target)
      elif stat.S_ISREG(before.st_mode) and before.st_nlink == 1:
        shutil.copymode(target, temporary)
        os.replace(temporary, target)
      else:
        with open(temporary, "rb") as source, open(target, "wb") as sink:
          shutil.copyfileobj(source, sink)
    finally:
      with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
  except OSError as error:
    raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def check_new(path):
  """The path. Raises UserError unless it is a local one where nothing is."""
  path = expand(path)
  if not is_local(path):
    raise UserError(f"{path}: write to a new local folder, and copy that to the bucket")
  if os.path.lexists(path):
    raise UserError(f"{path} exists: export to a new folder, or move that one away")
  return path


@contextlib.contextmanager
def new_folder(path):
  """Yields a hidden folder beside `path`, which becomes `path` when the block ends without an error, or else goes.

  path: local; nothing may be there. Raises UserError as `check_new` does, and where it cannot be written.
  """
  path = check_new(path)
  folder = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.tmp")
  with writing(path):
    try:
      folder.mkdir(parents=True)
      yield folder
      folder.rename(path)
    except BaseException:
      shutil.rmtree(folder, ignore_errors=True)
      raise


def write_bytes(path, data: bytes) -> None:
  """Writes a file whole or not at all. Raises UserError where it cannot be written.
  Remote stores do so by themselves."""
  if is_local(path):
    with replacing(path) as temporary:
      temporary.write_bytes(data)
    return
  try:
    path = expand(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  except OSError as error:
    raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def write_text(path, text: str) -> None:
  """`write_bytes` of the text in UTF-8."""
  write_bytes(path, text.encode())


def remove_remains(directory) -> None:
  """Deletes the temporary files that killed processes left in a local directory;
  call it while nobody else writes there.

  Temporary folders go once nothing has been written in them for a minute: an evaluation may be at work in them.
  """
  for path in pathlib.Path(directory).iterdir() if os.path.isdir(directory) else ():
    if not _REMAINS.fullmatch(path.name):
      continue
    with contextlib.suppress(OSError):  # not ours to delete: it harms nobody
      if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
      elif time.time() - max(part.stat().st_mtime for part in (path, *path.iterdir())) > _IDLE:
        shutil.rmtree(path)


@contextlib.contextmanager
def writing(path):
  """Turns an OSError of the block into a UserError that names `path`;
  a bucket out of reach may come back, and stays one."""
  try:
    yield
  except OSError as error:
    if not is_local(path) and error.errno is None:
      raise
    raise UserError(f"cannot write {path}: {error.strerror or error}") from error


class Appender:
  """A file that grows. Object stores cannot append: there the whole, which is small, is written again.

  start: what the file holds at first. Raises UserError where it cannot be written.
  """

  def __init__(self, path, start=b""):
    self._path, self._bytes = expand(path), start
    with writing(path):
      self._path.parent.mkdir(parents=True, exist_ok=True)
      if is_local(path):
        write_bytes(self._path, start)
        self._file = open(self._path, "ab")

  def append(self, data: bytes) -> None:
    with writing(self._path):
      if is_local(self._path):
        self._file.write(data)
        self._file.flush()
      else:
        self._bytes += data
        self._path.write_bytes(self._bytes)

  def close(self) -> None:
    if is_local(self._path):
      with contextlib.suppress(OSError):  # of what could not be written, which `append` has told
        self._file.close()
