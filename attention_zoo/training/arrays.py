"""The arrays of a checkpoint or average, read without the mesh, the optimizer and the devices of the past."""

import hashlib
import os

import jax
import numpy as np
import tensorstore
from etils import epath

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training import checksums

ITEMS = ("params", "variables")  # what a trained model consists of


def read_items(directory, read=None) -> dict:
  """{"params": tree, "variables": tree or {}} of a checkpoint or average.
  read: reads one such directory, or `read_params`."""
  directory, read = epath.Path(directory), read or read_params
  return {name: read(directory / name) if name == "params" or (directory / name).exists() else {} for name in ITEMS}


def digest(params, variables) -> str:
  """SHA-256 of all names, shapes, types and values: the same for the same trained model, wherever it lies."""
  found = hashlib.sha256()
  for path, value in jax.tree.leaves_with_path({"params": params, "variables": variables}):
    value = np.ascontiguousarray(jax.device_get(value))
    found.update(f"{jax.tree_util.keystr(path)} {value.shape} {value.dtype}\n".encode())
    found.update(value.view(np.uint8).data if value.ndim else value.tobytes())
  return found.hexdigest()


def abstract_params(directory) -> dict:
  """The nested dict of a params directory with a jax.ShapeDtypeStruct for each array."""
  keys = array_keys(directory)
  return _nested(keys, [jax.ShapeDtypeStruct(x.shape, x.dtype.numpy_dtype) for x in open_arrays(directory, keys)])


def array_keys(directory) -> list[tuple[str, ...]]:
  """The keys of each array of a params directory, as Orbax's list of them says. Raises UserError where that is none."""
  path = epath.Path(directory) / "_METADATA"
  try:
    entries = files.read_json(path, checksums.MOST_JSON)["tree_metadata"].values()
    keys = [tuple(str(key["key"]) for key in entry["key_metadata"]) for entry in entries]
    _nested(keys, keys)
    return keys
  except (KeyError, TypeError, AttributeError, IndexError) as error:
    raise UserError(f"{path} is not a list of arrays") from error


def read_params(directory, part=None) -> dict:
  """Nested dict of numpy arrays from a params directory. part: what to read of `abstract_params`, or all."""
  part = abstract_params(directory) if part is None else part
  keys = [tuple(key.key for key in path) for path, _ in jax.tree.leaves_with_path(part)]
  return _nested(keys, _all([array.read() for array in open_arrays(directory, keys)]))


def _nested(keys, values) -> dict:
  tree = {}
  for key, value in zip(keys, values, strict=True):
    branch = tree
    for name in key[:-1]:
      branch = branch.setdefault(name, {})
    branch[key[-1]] = value
  return tree


def open_arrays(directory, keys) -> list:
  """Arrays that Orbax wrote, their headers read. It reads them too, but where one fails it leaves the others behind,
  to print tracebacks."""
  local = files.is_local(directory)
  base = {"driver": "file", "path": f"{os.path.abspath(directory)}/"} if local else f"{directory}/"
  context = tensorstore.Context()
  return _all(
    [
      tensorstore.open(
        {
          "driver": "zarr",
          "kvstore": {"driver": "ocdbt", "base": base, "path": ".".join(key)},
          "fill_missing_data_reads": False,  # a piece that is not there is an error, and not zeros
        },
        open=True,
        read=True,
        context=context,
      )
      for key in keys
    ]
  )


def _all(futures) -> list:
  """Their results, when all are done, also where one of them failed."""
  for future in futures:
    future.exception()
  return [future.result() for future in futures]
