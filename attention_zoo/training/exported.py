"""Reading an exported folder: one set of parameters in safetensors beside config, vocabulary, card and checksums.

`exchange/folder.py` writes such a folder and says what is in it.
"""

import hashlib
import os
import re

import safetensors
from etils import epath

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training import loading, safetensors_file, untrusted

PARAMETERS, SUMS = "model.safetensors", "SHA256SUMS"
EXPORTED = "exported"  # what such a folder's only set of parameters is called


def is_exported(path) -> bool:
  """Whether this is a folder of this kind, whole or not."""
  return (epath.Path(path) / PARAMETERS).exists()


def read_sums(path) -> dict[str, str]:
  """{name: SHA-256} of the folder's files. Raises UserError for what is no such list."""
  text = files.read_bytes(epath.Path(path) / SUMS, 1 << 20).decode(errors="replace")
  found = [re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9_.-]+)", line) for line in text.splitlines()]
  if not found or not all(found):
    raise UserError(f"{path}/{SUMS} is not a list of checksums: export again, or copy the folder once more")
  return {match[2]: match[1] for match in found}


def check(path, sums, name, most=1 << 26) -> bytes:
  """The content of one of the folder's files. Raises UserError where it is not as it was written."""
  content = files.read_bytes(epath.Path(path) / name, most)
  if hashlib.sha256(content).hexdigest() != sums.get(name):
    raise UserError(f"{path}/{name} is not as it was written ({SUMS} has another checksum): copy the folder once more")
  return content


def load(path, task) -> loading.Loaded:
  """The parameters of an exported folder, after every file in it was checked.

  task: made from the folder's config. Raises UserError for what is missing, changed, damaged or not the model's; a
  file larger than the model is not read.
  """
  file = epath.Path(path) / PARAMETERS
  where = str(file)
  if not files.is_local(path):
    return read(path, untrusted.model_shapes(task, 1 << 20, where))
  with safetensors_file.refused(where), safetensors.safe_open(os.fspath(file), "numpy") as header:
    count = sum(0 not in header.get_slice(name).get_shape() for name in header.keys())
    shapes = untrusted.model_shapes(task, count, where)
  return read(path, shapes, most=2 * untrusted.size_of(shapes) + untrusted.SMALL)


def check_small(path) -> dict[str, str]:
  """`read_sums`, after every file but the parameters was checked: before anything is made of them."""
  sums = read_sums(path)
  present = {name for name in ("text.json", "tokenizer.model") if (epath.Path(path) / name).exists()}
  if missing := sorted({"config.json", "card.json", PARAMETERS, *present} - set(sums)):
    raise UserError(f"{path}/{SUMS} lacks {missing[0]}: export again, or copy the folder once more")
  for name in sums:
    if name != PARAMETERS:
      check(path, sums, name)
  return sums


def read(path, expected=None, most=1 << 40) -> loading.Loaded:
  """`load` without a task. expected: the tree of shapes that the parameters and variables have; None: any will do.

  most: bytes that the parameters' file may have; on a local disk also no more than it takes there, for one of holes.
  """
  sums = check_small(path)
  about = files.read_json(epath.Path(path) / "card.json")
  steps = about.get("steps") if isinstance(about, dict) else None
  if not isinstance(steps, list) or not steps or any(type(step) is not int for step in steps):
    raise UserError(f"{path}/card.json is not the card of an exported model: it names no steps")
  file = epath.Path(path) / PARAMETERS
  if files.is_local(path) and _is_of_holes(file):
    size = os.stat(file).st_size
    raise UserError(f"{file} has {size:,} bytes, of which the disk holds hardly any: copy it once more")
  items = safetensors_file.parse(check(path, sums, PARAMETERS, most), f"{path}/{PARAMETERS}", expected)
  return loading.Loaded(EXPORTED, steps, **items)


def _is_of_holes(file) -> bool:
  """Whether a local file is far larger than what the disk holds of it. Some disks pack what they hold."""
  found = os.stat(file)
  return untrusted.UNPACKED * 512 * found.st_blocks + (1 << 20) < found.st_size
