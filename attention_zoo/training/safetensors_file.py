"""Parameters in one safetensors file, under names like "params/layer_0/..."; the dimensions stand in the names.

float32 and bfloat16 are stored as they are. int8: whole numbers of -127 to 127, and for each row (all axes but the last
together are rows) the float32 that they are multiplied by, under the same name with "#scale" behind it. Vectors stay
float32: they are few.
"""

import contextlib

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from attention_zoo.errors import UserError
from attention_zoo.training.arrays import ITEMS

DTYPES = ("float32", "bfloat16", "int8")
SCALE = "#scale"
TYPES = {
  "F32": np.float32, "BF16": ml_dtypes.bfloat16, "I8": np.int8, "I32": np.int32, "U32": np.uint32, "BOOL": np.bool_
}  # fmt: skip


def dump(items, dtype="float32", metadata=None) -> bytes:
  """The content of a file with {"params": tree, "variables": tree}. metadata: {text: text} for its header.

  The same values give the same bytes. Other than floating-point arrays keep their type.
  """
  stored = {}
  for path, value in jax.tree.leaves_with_path(items):
    name, value = "/".join(key.key for key in path), np.asarray(value)
    if value.dtype != np.float32 or (dtype == "int8" and value.ndim < 2):
      stored[name] = value
    elif dtype == "int8":
      stored[name], stored[name + SCALE] = _quantize(value)
    else:
      stored[name] = value.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32)
  stored = {name: np.ascontiguousarray(stored[name]) for name in sorted(stored)}
  return safetensors.numpy.save(stored, metadata and dict(sorted(metadata.items())))


def _quantize(value):
  """(int8, float32 scales with a last axis of 1) whose product is nearest to the value."""
  scale = np.abs(value).max(axis=-1, keepdims=True) / 127
  scale[scale == 0] = 1
  return np.rint(value / scale).astype(np.int8), scale


@contextlib.contextmanager
def refused(name):
  """Turns what safetensors raises for a file that is none into a UserError that names it."""
  try:
    yield
  except UserError:
    raise
  except (safetensors.SafetensorError, ValueError, KeyError, OSError) as error:
    raise UserError(f"{name} is not a safetensors file: {error}") from error


def parse(content: bytes, name, expected=None) -> dict:
  """{"params": tree, "variables": tree} of NumPy arrays from what `dump` wrote.

  name: where the content is from, for messages. expected: the tree of shapes and types that the model has, which the
  arrays get; None: any will do, as they are stored. Raises UserError for what is not such a file, and where an array is
  missing, not the model's or of another shape.
  """
  with refused(name):
    stored = {
      key: np.frombuffer(array["data"], TYPES[array["dtype"]]).reshape(array["shape"])
      for key, array in safetensors.deserialize(content)  # it refuses declarations that are not of these very bytes
    }
  found = {}
  for key, value in stored.items():
    if key.endswith(SCALE):
      continue
    if value.dtype == np.int8:
      if key + SCALE not in stored:
        raise UserError(f"{name}: the array {key} is of whole numbers, and what they are multiplied by is missing")
      scale = stored[key + SCALE]
      if scale.shape != (*value.shape[:-1], 1):
        raise UserError(f"{name}: the array {key + SCALE} has shape {scale.shape}, which does not fit {value.shape}")
      value = value * scale
    found[tuple(key.split("/"))] = value
  if expected is not None:
    expected = {tuple(key.key for key in path): leaf for path, leaf in jax.tree.leaves_with_path(expected)}
    for key in sorted(expected):
      if key not in found:
        raise UserError(f"{name} lacks the array {'/'.join(key)} of the model in config.json")
    for key, value in sorted(found.items()):
      if key not in expected:
        raise UserError(f"{name} has the array {'/'.join(key)[:200]}, which the model in config.json has not")
      if value.shape != expected[key].shape:
        raise UserError(
          f"{name}: the array {'/'.join(key)} has shape {value.shape}, but the model wants {expected[key].shape}"
        )
      if value.dtype not in (expected[key].dtype, ml_dtypes.bfloat16):
        wanted = expected[key].dtype
        raise UserError(f"{name}: the array {'/'.join(key)} is {value.dtype}, but the model wants {wanted}")
      found[key] = value.astype(expected[key].dtype)
  items = {item: {} for item in ITEMS}
  for key, value in found.items():
    branch = items
    for part in key[:-1]:
      branch = branch.setdefault(part, {})
      if not isinstance(branch, dict):
        raise UserError(f"{name}: {'/'.join(key)[:200]} is below another array")
    branch[key[-1]] = value
  if set(items) != set(ITEMS):
    raise UserError(f"{name} holds no parameters of a model from here: its arrays have other names")
  return items
