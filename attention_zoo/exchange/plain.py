"""The parameters alone, for whoever reads safetensors: model.safetensors, and names.json that explains each array."""

import json

import jax
import safetensors

from attention_zoo import files
from attention_zoo.exchange.folder import write_sums
from attention_zoo.training import safetensors_file
from attention_zoo.training.exported import PARAMETERS


def write(run, to, dtype="float32") -> None:
  """Writes a loaded run's parameters to the new folder `to`. dtype: one of `safetensors_file.DTYPES`.

  names.json: {name: {"shape": sizes, "axes": a letter for each, "type": as it is in the model}}. The letters are those
  of the paper: D is d_model, F d_ff, V the vocabulary, N the heads, K and H their d_k and d_v. "scale", where there is
  one, is the array that this one of whole numbers is multiplied by.
  """
  items = jax.device_get({"params": run.params, "variables": run.variables})
  names = {}
  for path, value in jax.tree.leaves_with_path(items):
    leaf = path[-1].key.rpartition("_")[2]
    axes = leaf if leaf.isupper() and len(leaf) == value.ndim else ""
    names["/".join(key.key for key in path)] = {"shape": value.shape, "axes": axes, "type": str(value.dtype)}
  content = safetensors_file.dump(items, dtype, {"format": "np"})
  for name, _ in safetensors.deserialize(content):
    if name.endswith(safetensors_file.SCALE):
      names[name.removesuffix(safetensors_file.SCALE)]["scale"] = name
  with files.new_folder(to) as folder:
    files.write_bytes(folder / PARAMETERS, content)
    files.write_text(folder / "names.json", json.dumps(names, indent=1) + "\n")
    write_sums(folder)
