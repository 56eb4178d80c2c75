"""Whether a run's folder can be opened without harm: asked of every folder, because somebody else may have made it.

Pipes and devices never end, links lead elsewhere, a config can describe a model that takes years to compile, and a
small file can unpack to more than the memory. Only names, sizes and declarations are looked at, before any array is
read. What is wrong is a UserError of one line.

A bucket (gs://) has no pipes or links, but the sizes of what lies there are not checked: only the config is, and what
the arrays declare. Copy a run that you do not trust from there to a disk, and open it there.
"""

import ast
import contextlib
import fnmatch
import hashlib
import math
import os
import pathlib

import jax
import ml_collections
from etils import epath

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training import arrays, checkpoints, checksums

MOST_FILES, DEEPEST = 200_000, 16
# Of files by name, but for parameters: a file of holes takes no room, and for ever to read.
MOST_BYTES = {"*.json": 1 << 26, "tokenizer.model": 1 << 26, "_*": 1 << 28, "*.npy": 1 << 36}
# Far above what anyone has published, and low enough that nothing is allocated or unrolled for ever.
MOST = {
  "decode.beam_size": 128,
  "decode.search": 2**31 - 1,  # its seed; the task holds the sizes to less
  "decode.extra_length": 1 << 13,
  "decode.max_tokens": 1 << 16,
  "*.row_length": 1 << 16,
  "*.batch_tokens": 1 << 22,
  "data.seed": 2**63 - 1,
  "train.*": 2**63 - 1,
  "model.num_*layers": 1 << 12,  # each is traced
  "optimizer.*": 2**63 - 1,
  "*": 1 << 20,
}
SMALL = 1 << 26  # bytes of parameters that any machine can hold
STATE = 12  # a checkpoint takes less than so many times its parameters: two moments, averages, lists
UNPACKED = 32  # trained parameters hardly shrink when they are packed; nothing but zeros shrinks more than this


# The folder


def check_folder(path, also=None) -> None:
  """Raises UserError unless a local folder holds nothing but regular files, folders, and links that stay in it.

  also: another folder whose files links may lead to.
  """
  if not files.is_local(path) or not os.path.isdir(path):
    return
  root = pathlib.Path(os.path.realpath(path))
  folders, count = [(root, 0)], 0
  while folders:
    folder, depth = folders.pop()
    try:
      with os.scandir(folder) as entries:
        for entry in entries:
          count += 1
          with contextlib.suppress(FileNotFoundError):  # training deletes old checkpoints meanwhile
            _check_entry(entry, root, also)
          if entry.is_dir(follow_symlinks=False):
            folders.append((entry.path, depth + 1))
    except FileNotFoundError:
      continue
    except OSError as error:
      raise UserError(f"cannot read {folder}: {error.strerror or error}") from error
    if count > MOST_FILES or depth > DEEPEST:
      raise UserError(
        f"{path} is not a run: it has more than {MOST_FILES:,} files, or folders nested over {DEEPEST} deep"
      )


def _check_entry(entry, root, also):
  if entry.is_symlink():
    target = pathlib.Path(os.path.realpath(entry.path))
    inside = target.is_relative_to(root) or (also is not None and target.parent == also and target.is_file())
    if not inside or not target.exists() or pathlib.Path(entry.path).is_relative_to(target):
      raise UserError(
        f"{entry.path} is a link to {os.readlink(entry.path)}, which is not a file or folder of the run: "
        "put what it should lead to in its place"
      )
  elif not entry.is_dir() and not entry.is_file():
    raise UserError(f"{entry.path} is neither a file nor a folder, but a pipe, a socket or a device: remove it")
  for pattern, most in MOST_BYTES.items():
    if fnmatch.fnmatch(entry.name, pattern) and entry.is_file() and entry.stat().st_size > most:
      raise UserError(f"{entry.path} has {entry.stat().st_size:,} bytes; no run needs more than {most:,} there")


# The config


def check_digest(workdir) -> None:
  """Raises UserError where config.json is not the one that versions.json was written with.

  With one digit changed it would still be a config, and give other answers."""
  path, noted = epath.Path(workdir) / "config.json", epath.Path(workdir) / "versions.json"
  expected = files.read_json(noted) if noted.exists() else {}
  expected = expected.get("config.json") if isinstance(expected, dict) else None
  if expected not in (None, digest(files.read_bytes(path, MOST_BYTES["*.json"]))):
    raise UserError(f"{path} is not as training wrote it: bring that back, or delete {noted} to use it as it is")


def digest(content: bytes) -> str:
  return "sha256:" + hashlib.sha256(content).hexdigest()


def check_ranges(config) -> None:
  """Raises UserError for a number that would keep a machine busy for ever, also among the options of a text."""
  for group, fields in config.items():
    for name, value in fields.items() if isinstance(fields, ml_collections.ConfigDict) else ():
      path = f"{group}.{name}"
      most = next(most for pattern, most in MOST.items() if fnmatch.fnmatch(path, pattern))
      for number in _numbers(value):
        if abs(number) > most:
          shown = number if abs(number) < 10**30 else "a number of more than 30 digits"
          raise UserError(f"config.{path} = {shown}: more than {most:,} is no run's")


def _numbers(value):
  """All whole numbers in a value of a config; a text may hold some, like "sliding_window(width=16)"."""
  if isinstance(value, str):
    try:
      tree = ast.parse(value[:10_000], mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
      return
    yield from (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is int)
  elif isinstance(value, (tuple, list)):
    for item in value:
      yield from _numbers(item)
  elif type(value) is int:
    yield value


# The parameters


def abstract_items(task, workdir) -> dict:
  """{"params": the tree of shapes that the task's parameters have, "variables": likewise}, without computing any.

  Raises UserError where the config's sizes do not go together, or name more layers than any checkpoint has arrays.
  Likewise for checkpoints larger than any of this model.
  """
  workdir = epath.Path(workdir)
  directories = [workdir / "average", *(workdir / "checkpoints" / str(step) for step in checkpoints.steps(workdir))]
  counts = []
  for directory in directories:
    with contextlib.suppress(UserError):  # of one that is not there, or damaged: it is refused if it is chosen
      counts.append(len(arrays.array_keys(directory / "params")))
  if not counts:
    return dict.fromkeys(arrays.ITEMS, {})  # nothing can be loaded, and what is chosen says why
  shapes = model_shapes(task, max(counts), f"no checkpoint in {workdir}")
  most = STATE * size_of(shapes) + SMALL
  for directory in directories:
    if (size := _size(directory)) > most:
      raise UserError(f"{directory} has {size:,} bytes; a checkpoint of the model in config.json has at most {most:,}")
  return shapes


def model_shapes(task, most_arrays, where) -> dict:
  """{"params": the tree of shapes that the task's parameters have, "variables": likewise}, without computing any.

  Raises UserError where the config's sizes do not go together, or name more layers than there are arrays: each would be
  traced, before its parameters are missed. where: "no file ..." that has more than so many, for the message.
  """
  for name, value in task.config.model.items():
    if fnmatch.fnmatch(name, "num_*layers") and value > most_arrays:
      raise UserError(f"config.model.{name} = {value}, but {where} has more than {most_arrays} arrays")
  try:
    return jax.eval_shape(task.init, jax.random.key(0))._asdict()
  except UserError:
    raise
  except Exception as error:  # sizes that do not go together fail wherever they meet
    raise UserError(f"config.model describes no model: {_line(error)}") from error


def size_of(shapes) -> int:
  """Bytes of all arrays of these shapes."""
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _size(directory) -> int:
  """Bytes of all files of a local directory."""
  if not files.is_local(directory):
    return 0
  size = 0
  for name in checksums.list_files(directory):
    with contextlib.suppress(FileNotFoundError):
      size += os.path.getsize(os.path.join(directory, name))
  return size


def read_params(directory, expected=None):
  """`arrays.read_params`, if the arrays are those that are expected, and hold what they promise.

  directory: .../params or .../variables. expected: the model's own tree of shapes; None: any will do. Raises
  UserError that names the array which is missing, not the model's, of another shape or of another type, and
  for what cannot be read.
  """
  keys = arrays.array_keys(directory)
  if expected is not None:
    expected = {tuple(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(expected)}
    _compare(directory, expected, keys)
  try:
    unpacked = 0
    for key, array in zip(keys, arrays.open_arrays(directory, keys), strict=True):
      name, shape, dtype = "/".join(key), array.shape, array.dtype.numpy_dtype
      if expected and shape != expected[key].shape:
        raise UserError(f"{directory}: the array {name} has shape {shape}, but the model wants {expected[key].shape}")
      if expected and dtype != expected[key].dtype:
        raise UserError(f"{directory}: the array {name} is {dtype}, but the model wants {expected[key].dtype}")
      pieces = array.chunk_layout.read_chunk.shape or ()  # what is unpacked at once, whatever the shape
      if any(piece > max(size, 1) for piece, size in zip(pieces, shape, strict=True)):
        raise UserError(f"{directory}: the array {name} has shape {shape}, but is stored in pieces of {pieces}")
      unpacked += math.prod(shape) * dtype.itemsize
    if files.is_local(directory) and unpacked > max(SMALL, UNPACKED * (packed := _size(directory))):
      raise UserError(f"{directory} has {packed:,} bytes, too few for its arrays, which would take {unpacked:,}")
    return arrays.read_params(directory)
  except UserError:
    raise
  except Exception as error:  # of TensorStore, which has many ways to say that files are not in order
    raise UserError(f"{directory} cannot be read: {_line(error)}") from error


def _compare(directory, expected, found):
  if missing := ["/".join(key) for key in sorted(set(expected) - set(found))]:
    raise UserError(
      f"{directory} lacks the array {missing[0]} of the model in config.json ({len(missing)} are missing)"
    )
  if more := ["/".join(key) for key in sorted(set(found) - set(expected))]:
    raise UserError(
      f"{directory} has the array {more[0][:200]}, which the model in config.json has not ({len(more)} are too many)"
    )


def _line(error) -> str:
  """The first line of what an exception says."""
  return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
