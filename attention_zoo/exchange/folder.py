"""A trained model as a folder that anybody can keep, send and open: what `export --format=zoo` writes.

  model.safetensors                          the parameters, one set of them (`training/safetensors_file.py`)
  config.json, text.json, tokenizer.model    those of the run, without the folders its files lay in
  unknown_dictionary.txt, ...                files that the config names (the task's `attachments`), by their fields
  card.json, README.md                       what it is and how good it is: for programs, for people
  SHA256SUMS                                 of all these; `sha256sum -c SHA256SUMS` checks them, and so does loading

`attention_zoo.load`, and with it translate, evaluate and sample, open it like a run; config.train.init_from takes it
too.
"""

import hashlib
import json

import jax
from etils import epath

from attention_zoo import files
from attention_zoo.data import identity
from attention_zoo.exchange import card
from attention_zoo.training import config as config_lib
from attention_zoo.training import safetensors_file
from attention_zoo.training.exported import PARAMETERS, SUMS

MOST = 1 << 26  # bytes of a file that a config names


def write(run, to, dtype="float32", origin="") -> dict:
  """Writes a loaded run to the new folder `to`; returns its card.

  run: what `attention_zoo.load` returned. dtype: of the stored parameters, one of `safetensors_file.DTYPES`. origin:
  where the parameters are from, if they were not trained here. The same run gives the same bytes. Raises UserError
  where `to` exists.
  """
  source = epath.Path(run.task.workdir)
  content = safetensors_file.dump(
    {"params": jax.device_get(run.params), "variables": jax.device_get(run.variables)}, dtype, {"format": "np"}
  )
  config, attached = card.published(run)
  about = card.make(run, dtype, origin)
  with files.new_folder(to) as folder:
    if said := identity.published(source):  # a task without text has none
      files.write_text(folder / identity.TEXT, said)
      files.write_bytes(folder / identity.MODEL, (source / identity.MODEL).read_bytes())
    for name, path in attached.items():
      files.write_bytes(folder / name, files.read_bytes(path, MOST))
    files.write_text(folder / "config.json", config_lib.to_json(config))
    files.write_bytes(folder / PARAMETERS, content)
    files.write_text(folder / "card.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    files.write_text(folder / "README.md", card.text(about))
    write_sums(folder)
  return about


def write_sums(folder) -> None:
  """Writes the checksums of all other files of a local folder, those in folders of it too."""
  names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
  lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
  files.write_text(folder / SUMS, "".join(lines))
