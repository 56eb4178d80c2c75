"""What disks and buckets do to those who use them: paths, room, errors, and checkpoints that go while they are read."""

import contextlib
import glob
import os
import pathlib
import re
import shutil
import time

from etils import epath

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training import checksums


class Gone(UserError):
  """A checkpoint that is not there, or was deleted while it was read: training keeps the newest ones only."""


class _LocalPath(type(epath.Path("/"))):
  """A path whose own characters are no pattern: Orbax asks it for `glob("ocdbt.process_*")`,
  and finds nothing in [2]."""

  def glob(self, pattern):
    return iter([type(self)(found) for found in glob.glob(os.path.join(glob.escape(os.fspath(self)), pattern))])


def absolute(path) -> epath.Path:
  """The path as Orbax needs it. Raises UserError for patterns in a bucket, where Orbax would look for others."""
  if files.is_local(path):
    return _LocalPath(pathlib.Path(path).absolute())
  if found := sorted(set("*?[]") & set(str(path))):
    raise UserError(f"{path}: Cloud Storage takes {' '.join(found)} for a pattern; choose another name")
  return epath.Path(path)


def target(path) -> epath.Path:
  """Where a symbolic link leads; any other path as it is."""
  return epath.Path(os.path.realpath(path) if os.path.islink(path) else path)


def no_room(directory, needed) -> str:
  """Writers in many threads fail in many ways on a full disk: better not to begin. '' where there is room."""
  free = shutil.disk_usage(directory).free if files.is_local(directory) else needed
  return f"it takes {needed:,} bytes and {free:,} are free" if free < needed else ""


def error_number(error) -> int | None:
  """The system's error number, which TensorStore puts into its text."""
  number = error.errno if isinstance(error, OSError) else re.search(r"os_error_code='(\d+)'", str(error))
  return int(number[1]) if isinstance(number, re.Match) else number


def reason(error) -> str:
  """What went wrong while writing, in a few words."""
  number = error_number(error)
  return os.strerror(number) if number else str(error).strip().splitlines()[0][:300]


def forbidden(directory, error) -> UserError | None:
  """What to say where a bucket refuses what Orbax asks for beside its files: the bucket's metadata."""
  if getattr(error, "code", None) != 403:
    return None
  return UserError(
    f"{directory}: the account may not do that ({str(error).strip()[:300]}). It needs roles/storage.objectAdmin and "
    "roles/storage.legacyBucketReader on the bucket"
  )


@contextlib.contextmanager
def reading(directory):
  """Around all that reads a checkpoint or an average, which another process may delete or replace meanwhile.

  Whatever is met on the way becomes `Gone` then. Otherwise, what cannot be read is a UserError.
  """
  before = _identity(directory)
  try:
    yield
  except Gone:
    raise
  except Exception as error:
    if _identity(directory) != before or _vanishes(directory):
      raise Gone(
        f"{directory} is gone, or was replaced while it was read: training keeps its newest checkpoints only "
        "(config.train.keep)"
      ) from error
    if isinstance(error, UserError):
      raise
    if isinstance(error, OSError):
      raise checksums.unreadable(directory, error) from error
    if error_number(error):
      raise UserError(f"cannot read {directory}: {reason(error)}") from error
    if problem := checksums.damage(directory):  # since it was last looked at
      raise UserError(f"{directory} is damaged: {problem}") from error
    if isinstance(error, ValueError):  # as TensorStore says everything
      raise UserError(f"{directory} cannot be read: {reason(error)}") from error
    raise


def _identity(directory):
  """What is another one once a directory was replaced."""
  try:
    if files.is_local(directory):
      return os.stat(directory).st_ino
    return (epath.Path(directory) / checksums.CHECKSUMS).read_bytes()
  except OSError:
    return None


def _vanishes(directory) -> bool:
  """Whether somebody is deleting the directory: its files go one after the other."""
  before, unchanged = None, 0
  try:
    while unchanged < 3:
      now = checksums.list_files(directory)
      if not now:
        return True
      unchanged = unchanged + 1 if now == before else 0
      before = now
      time.sleep(0.1)
  except OSError:
    pass
  return False
