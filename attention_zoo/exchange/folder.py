"""A trained model as a folder of six files that anybody can keep, send and open: what `export --format=zoo` writes.

  model.safetensors                          the parameters, one set of them (`exchange/arrays.py`)
  config.json, text.json, tokenizer.model    as they stand in the run's directory
  card.json, README.md                       what it is and how good it is: for programs, for people
  SHA256SUMS                                 of all these; `sha256sum -c SHA256SUMS` checks them, and so does loading

`attention_zoo.load`, and with it translate, evaluate and sample, open it like a run; config.train.init_from takes it
too.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile

import jax
import safetensors
from etils import epath

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.exchange import arrays, card
from attention_zoo.training import loading, untrusted

PARAMETERS, SUMS = "model.safetensors", "SHA256SUMS"
COPIED = ("config.json", "text.json", "tokenizer.model")
OPTIONAL = ("text.json", "tokenizer.model")  # a task without text has none
EXPORTED = "exported"  # what such a folder's only set of parameters is called


def is_exported(path) -> bool:
  """Whether this is a folder of this kind, whole or not."""
  return (epath.Path(path) / PARAMETERS).exists()


def write(run, to, dtype="float32") -> dict:
  """Writes a loaded run to the new folder `to`; returns its card.

  run: what `attention_zoo.load` returned. dtype: of the stored parameters, one of `arrays.DTYPES`. The same run gives
  the same bytes. Raises UserError where `to` exists.
  """
  source = epath.Path(run.task.workdir)
  content = arrays.dump(
    {"params": jax.device_get(run.params), "variables": jax.device_get(run.variables)}, dtype, {"format": "np"}
  )
  about = card.make(run, dtype)
  with new_folder(to) as folder:
    for name in COPIED:
      if (source / name).exists() or name not in OPTIONAL:
        files.write_bytes(folder / name, (source / name).read_bytes())
    files.write_bytes(folder / PARAMETERS, content)
    files.write_text(folder / "card.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    files.write_text(folder / "README.md", card.text(about))
    write_sums(folder)
  return about


def check_new(to):
  """The path `to`. Raises UserError unless it is a local one where nothing is."""
  to = files.expand(to)
  if not files.is_local(to):
    raise UserError(f"{to}: export to a local folder, and copy that to the bucket")
  if os.path.lexists(to):
    raise UserError(f"{to} exists: export to a new folder, or move that one away")
  return to


@contextlib.contextmanager
def new_folder(to):
  """Yields a hidden folder beside `to`, which becomes `to` when the block ends without an error, and goes otherwise."""
  to = check_new(to)
  with files.writing(to):
    to.parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=f".{to.name[:100]}.", dir=to.parent)
    try:
      yield files.expand(folder)
      os.chmod(folder, 0o777 & ~_umask())
      os.rename(folder, to)
    except BaseException:
      shutil.rmtree(folder, ignore_errors=True)
      raise


def _umask() -> int:
  mask = os.umask(0)
  os.umask(mask)
  return mask


def write_sums(folder) -> None:
  """Writes the checksums of all other files of a local folder, those in folders of it too."""
  names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
  lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
  files.write_text(folder / SUMS, "".join(lines))


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
  where = f"{path}/{PARAMETERS}"
  if not files.is_local(path):
    return read(path, untrusted.model_shapes(task, 1 << 20, where))
  with arrays.refused(where), safetensors.safe_open(os.fspath(epath.Path(path) / PARAMETERS), "numpy") as file:
    shapes = untrusted.model_shapes(task, len(file.keys()), where)
  return read(path, shapes, most=2 * untrusted.size_of(shapes) + untrusted.SMALL)


def read(path, expected=None, most=1 << 40) -> loading.Loaded:
  """`load` without a task. expected: the tree of shapes that the parameters and variables have; None: any will do.

  most: bytes that the parameters' file may have.
  """
  sums = read_sums(path)
  for name in sums:
    if name != PARAMETERS:
      check(path, sums, name)
  about = files.read_json(epath.Path(path) / "card.json")
  steps = about.get("steps") if isinstance(about, dict) else None
  if not isinstance(steps, list) or not steps or any(type(step) is not int for step in steps):
    raise UserError(f"{path}/card.json is not the card of an exported model: it names no steps")
  items = arrays.parse(check(path, sums, PARAMETERS, most), f"{path}/{PARAMETERS}", expected)
  return loading.Loaded(EXPORTED, steps, **items)
