"""Checksums of a checkpoint: what was changed, cut short or lost is found before it is used.

DIRECTORY/checksums.json maps every file to [bytes, CRC-32]. It is written when all other files are complete and before
the directory counts as a checkpoint: before it gets its final name, on gs:// before its success marker. There the files
are read back once for it, and once more before they are loaded.
"""

import concurrent.futures
import json
import os
import stat
import zlib

from etils import epath

from attention_zoo import files
from attention_zoo.errors import UserError

CHECKSUMS = "checksums.json"
METADATA = "_CHECKPOINT_METADATA"
MOST_JSON = 1 << 26
BLOCK = 1 << 20


class _Damaged(Exception):
  """Something is proven to be wrong."""


def write(directory) -> None:
  """Writes the checksums of all files in a directory."""
  folder = _Folder(directory)
  names = sorted(folder.names() - {CHECKSUMS})
  sums = dict(zip(names, _checksums(folder, names), strict=True))
  (epath.Path(directory) / CHECKSUMS).write_text(json.dumps(sums))


def damage(directory, items=None) -> str:
  """What is proven to be wrong with a checkpoint's files, in a few words; '' where nothing is.

  items: check only the files of these items and those beside the items. Raises UserError where something cannot be
  read: missing rights, a failing disk or too many open files say nothing about the checkpoint. What an earlier version
  left unchecked stays so: the metadata, and everything on gs://.
  """
  try:
    return _damage(_Folder(directory), items)
  except _Damaged as error:
    return str(error)
  except FileNotFoundError as error:
    return f"{error.filename or error} is missing"
  except OSError as error:
    raise unreadable(directory, error) from error


def _damage(folder, items) -> str:
  found = folder.names()
  if CHECKSUMS not in found:
    return f"{CHECKSUMS} is missing" if folder.local or not found else ""
  sums = _read_sums(folder)

  def asked(name):
    return "/" not in name or items is None or name.split("/")[0] in items

  names = sorted(filter(asked, sums))
  if not any("/" in name for name in names):
    return f"{CHECKSUMS} lists no file of it"
  for name in names:
    if name not in found:  # so that a name like ../x or /dev/zero is never opened
      return f"{name} is missing"
  for name in sorted(filter(asked, found - set(sums))):
    if "/" in name and not name.endswith("/" + METADATA):
      return f"{name} is not listed in {CHECKSUMS}"
  for name, got in zip(names, _checksums(folder, names, sums), strict=True):
    if got != sums[name]:
      return f"{name} is not as it was written"
  if METADATA in found:
    _metadata_bytes(folder, METADATA)
  return ""


def unreadable(path, error: OSError) -> Exception:
  """What to raise where a file cannot be read: a UserError, or the error itself where a bucket is out of reach."""
  if not files.is_local(path) and error.errno is None:
    return error  # it may be gone at the next try, and exit code 2 would end all tries
  return UserError(f"cannot read {error.filename or path}: {error.strerror or error}")


def list_files(directory) -> set[str]:
  """The names of all files below a directory, but for hidden ones; none where there is none. Raises OSError."""
  return _Folder(directory).names(strict=False)


class _Folder:
  """The files of a directory on a local disk or in a bucket."""

  def __init__(self, directory):
    self.local = files.is_local(directory)
    self._root = os.fspath(directory)
    if not self.local:
      import fsspec

      # epath keeps listings, and the files are written by others.
      self._system, self._root = fsspec.core.url_to_fs(self._root, use_listings_cache=False, skip_instance_cache=True)

  def names(self, strict=True) -> set[str]:
    """strict: links, pipes and devices are damage, and what vanishes meanwhile is an error."""
    if not self.local:
      paths = self._system.find(self._root)
      return {
        name for path in paths if not os.path.basename(name := path[len(self._root) :].strip("/")).startswith(".")
      }
    found = set()

    def fail(error):
      if strict or not isinstance(error, FileNotFoundError):
        raise error

    for root, folders, names in os.walk(self._root, onerror=fail):
      for name in [*folders, *names]:
        path = os.path.join(root, name)
        inside = os.path.relpath(path, self._root)
        try:
          mode = os.lstat(path).st_mode
        except FileNotFoundError as error:
          fail(error)
          continue
        if strict and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
          raise _Damaged(f"{inside} is not a regular file")
        if stat.S_ISREG(mode) and not name.startswith("."):
          found.add(inside)
    return found

  def open(self, name):
    path = f"{self._root}/{name}"
    return open(path, "rb") if self.local else self._system.open(path, "rb")


def _read_sums(folder) -> dict[str, list[int]]:
  sums = _read_json(folder, CHECKSUMS)
  if not isinstance(sums, dict) or not all(
    isinstance(pair, list) and [type(number) for number in pair] == [int, int] for pair in sums.values()
  ):
    raise _Damaged(f"{CHECKSUMS} is not a list of checksums")
  return sums


def _read_json(folder, name):
  with folder.open(name) as file:
    content = file.read(MOST_JSON)
  try:
    return files.parse_json(content, name)
  except UserError as error:
    raise _Damaged(f"{name} cannot be read ({error})") from error


def _metadata_bytes(folder, name) -> bytes:
  """Orbax's metadata without the one field that it adds after the checksums are taken."""
  value = _read_json(folder, name)
  if not isinstance(value, dict):
    raise _Damaged(f"{name} cannot be read (it is no JSON object)")
  value.pop("commit_timestamp_nsecs", None)
  return json.dumps(value, sort_keys=True).encode()


def _checksums(folder, names, sums=None) -> list[list[int]]:
  """[bytes, CRC-32] of each file, in order. sums: those expected; of a larger file no more is read than shows it."""

  def one(name):
    if os.path.basename(name) == METADATA:
      content = _metadata_bytes(folder, name)
      return [len(content), zlib.crc32(content)]
    most = sums[name][0] + 1 if sums else None
    size = total = 0
    with folder.open(name) as file:
      while block := file.read(BLOCK if most is None else max(min(BLOCK, most - size), 0)):
        size += len(block)
        total = zlib.crc32(block, total)
    return [size, total]

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    return list(pool.map(one, names))
