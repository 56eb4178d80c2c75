"""Meshes and placement: which device holds which part of a parameter, and which rows of a batch.

The mesh has four axes. `replica` joins slices (or other groups with a slow network between them), `data`
splits the batch, `fsdp` splits the batch and the parameters (ZeRO, Rajbhandari et al. 2020), `tensor` splits
single matrix products (Megatron-LM, Shoeybi et al. 2019).

Every parameter is named with its dimensions (`kernel_DNK`, `table_VD`), and a rule set says over which mesh axis a
letter is split. A new model needs no new rule. Nothing is guessed: what does not fit is an error that names the leaf.
"""

import functools
import math
import re

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from attention_zoo.errors import UserError

AXES = ("replica", "data", "fsdp", "tensor")
BATCH_AXES = ("replica", "data", "fsdp")

# Letter -> mesh axis. Megatron-LM: `tensor` splits the columns of a sub-layer's first product and the rows of its
# second (heads N, d_ff F), the vocabulary V, and experts E. `fsdp` splits d_model D, which nearly every matrix has.
_TENSOR = dict.fromkeys("NFVE", "tensor")
RULES = {
  "data_parallel": {},
  "fsdp": {"D": "fsdp"},
  "tensor_parallel": _TENSOR,
  "fsdp+tensor_parallel": {"D": "fsdp"} | _TENSOR,
}
# Paths of leaves that no rule set splits: positions are small and looked up at every layer or step,
# and every device chooses the experts of all its tokens.
REPLICATED = r"positions/|(gate|noise)_DE$"


def rules_of(config_mesh) -> dict[str, str]:
  """The rule set that config.mesh.rules names; UserError where there is none, or it leaves an axis idle."""
  if config_mesh.rules not in RULES:
    raise UserError(f"config.mesh.rules = {config_mesh.rules!r} is not one of {', '.join(RULES)}")
  rules = RULES[config_mesh.rules]
  if config_mesh.tensor > 1 and "tensor" not in rules.values():
    raise UserError(
      f"config.mesh.tensor = {config_mesh.tensor}, but the rules {config_mesh.rules!r} split nothing over "
      "it: set config.mesh.tensor=1 or choose tensor_parallel"
    )
  return rules


def make_mesh(config_mesh, devices=None) -> Mesh:
  """A mesh of all devices, or those given, of config.mesh's sizes; data = -1 takes what the others leave."""
  devices = jax.devices() if devices is None else devices
  sizes = {axis: config_mesh[axis] for axis in AXES}
  others = math.prod(size for axis, size in sizes.items() if axis != "data")
  if sizes["data"] == -1 and others:
    sizes["data"] = len(devices) // others
  if math.prod(sizes.values()) != len(devices):
    shape = ", ".join(f"{axis} {config_mesh[axis]}" for axis in AXES)
    raise UserError(
      f"config.mesh ({shape}) does not fit {len(devices)} devices: the product must be {len(devices)}"
    )
  # Only slices of TPUs are joined by a slow network for sure. Elsewhere JAX calls each machine a slice of its own.
  on_tpu = devices[0].platform == "tpu"
  slices = len({getattr(device, "slice_index", 0) for device in devices}) if on_tpu else 1
  if slices > 1 and sizes["replica"] != slices:
    raise UserError(
      f"the devices lie in {slices} slices: set config.mesh.replica={slices}, not {sizes['replica']}"
    )
  if slices == 1:
    shape = tuple(sizes.values())
    grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
  else:
    inside, between = (1, *(sizes[axis] for axis in AXES[1:])), (slices, 1, 1, 1)
    grid = mesh_utils.create_hybrid_device_mesh(inside, between, devices, allow_split_physical_axes=True)
  return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def path_name(path) -> str:
  """'decoder/layer_0/...' for a key path of jax.tree_util."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def shardings(rules, tree, mesh: Mesh):
  """The NamedSharding of each parameter.

  rules: letter -> mesh axis. tree: parameters, or anything with their paths and `.shape`. A leaf's name ends in its
  dimensions; a digit is a dimension of that size. Each axis splits the first dimension of a leaf whose letter it stands
  for. `fsdp` leaves vectors whole: to gather one costs more than it saves. A vector without letters (the scale of a
  normalisation) lies everywhere.
  Raises UserError for a leaf of more dimensions that does not name them, or names others than it has; for a dimension
  that its mesh axis does not divide; and for an axis of the mesh that splits no leaf.
  """
  idle = {axis for axis in rules.values() if mesh.shape[axis] > 1}

  def place(path, leaf):
    name = path_name(path)
    spec = [None] * len(leaf.shape)
    letters = "" if re.search(REPLICATED, name) else _letters(name, leaf.shape)
    for dimension, letter in enumerate(letters):
      axis = rules.get(letter)
      if axis is None or axis in spec or (axis == "fsdp" and len(letters) == 1):
        continue
      if leaf.shape[dimension] % mesh.shape[axis]:
        raise UserError(
          f"dimension {letter} of the parameter {name} {leaf.shape} is not divisible by the {mesh.shape[axis]} devices "
          f"of the mesh axis {axis}: choose another size, another config.mesh.{axis}, or other config.mesh.rules"
        )
      spec[dimension] = axis
    idle.difference_update(spec)
    while spec and spec[-1] is None:
      spec.pop()
    return NamedSharding(mesh, P(*spec))

  placed = jax.tree_util.tree_map_with_path(place, tree)
  if idle:
    axis = sorted(idle)[0]
    raise UserError(
      f"config.mesh.{axis} = {mesh.shape[axis]} splits no parameter of this model: set config.mesh.{axis}=1 "
      "or choose other config.mesh.rules"
    )
  return placed


def _letters(name, shape) -> str:
  """The dimensions at the end of a leaf's name: "wi/kernel_DF" -> "DF"; "" for a vector that does not name its own."""
  match = re.search(r"_([A-Z0-9]*[A-Z][A-Z0-9]*)$", name)
  if not match and len(shape) < 2:
    return ""
  letters = match[1] if match else ""
  if len(letters) != len(shape) or any(c.isdigit() and int(c) != n for c, n in zip(letters, shape, strict=True)):
    raise UserError(
      f"the name of the parameter {name} {shape} must end in its dimensions, one letter (or digit: the size) each, as "
      "kernel_DF does"
    )
  return letters


def optimizer_shardings(params, param_shardings, opt_state, mesh: Mesh):
  """The NamedSharding of each leaf of the optimizer's state.

  A leaf whose path ends in a parameter's path and which has its shape (Adam's mu and nu) lies where the
  parameter lies. All else is small and replicated: counts, Adafactor's and SM3's row and column statistics.
  """
  leaves = jax.tree_util.tree_leaves_with_path(params)
  places = {
    path: (leaf.shape, place)
    for (path, leaf), place in zip(leaves, jax.tree.leaves(param_shardings), strict=True)
  }

  def place(path, leaf):
    for start in range(len(path)):
      shape, sharding = places.get(path[start:], (None, None))
      if shape == leaf.shape:
        return sharding
    return NamedSharding(mesh, P())

  return jax.tree_util.tree_map_with_path(place, opt_state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows over replica, data and fsdp; the devices of a tensor group share their rows."""
  return NamedSharding(mesh, P(BATCH_AXES))


def keep_rows(rows: int):
  """A Flax interceptor: whatever a module returns for `rows` rows stays split by rows, as the batch is.

  Left alone, XLA may rather move activations to where the parts of a parameter lie (under fsdp, features of the
  embedding) than gather the parameter. Does nothing where no mesh is set (`jax.set_mesh`).
  """
  mesh = jax.sharding.get_abstract_mesh()
  axes = tuple(axis for axis in BATCH_AXES if mesh.shape.get(axis, 1) > 1)

  def place(x):
    if x.ndim < 2 or x.shape[0] != rows:
      return x
    return jax.lax.with_sharding_constraint(x, P(axes, *(P.UNCONSTRAINED,) * (x.ndim - 1)))

  def intercept(method, args, kwargs, context):
    out = method(*args, **kwargs)
    return jax.tree.map(place, out) if axes and context.method_name == "__call__" else out

  return intercept


def gather_rows(table):
  """A table [V, D] with its rows whole, for lookups: XLA cannot well move what it looks up in parts of rows."""
  if jax.sharding.get_abstract_mesh().empty:
    return table
  return jax.lax.with_sharding_constraint(table, P(P.UNCONSTRAINED, None))


def flags(mesh: Mesh, value: int) -> jax.Array:
  """One int for each device of the mesh, those of this process holding `value`.

  For each device and not each row of a batch: processes of one tensor group share rows, but need not agree.
  """
  everywhere = NamedSharding(mesh, P(AXES))
  return jax.make_array_from_callback((mesh.size,), everywhere, lambda _: np.full(1, value, np.int32))


def local_mesh() -> Mesh:
  """All devices of this process, sharing rows: for using trained parameters."""
  devices = np.array(jax.local_devices()).reshape(1, -1, 1, 1)
  return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_devices(mesh: Mesh) -> int:
  """Into how many parts the rows of a batch are split."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


@functools.lru_cache
def process_rows(mesh: Mesh, process=None) -> tuple[tuple[int, ...], int]:
  """(parts, count): of the `count` equal parts of every batch's rows, those that this process feeds, ascending.

  A torus of TPUs need not give a process neighbouring parts. Processes whose devices work on the same rows (a tensor
  group that spans them) get the same ones.
  """
  process = jax.process_index() if process is None else process
  parts = {}
  for (*coordinates, _), device in np.ndenumerate(mesh.devices):
    row = np.ravel_multi_index(coordinates, mesh.devices.shape[:-1])
    parts.setdefault(device.process_index, set()).add(int(row))
  groups = {tuple(sorted(rows)) for rows in parts.values()}
  if sum(map(len, groups)) != batch_devices(mesh) or len({len(group) for group in groups}) != 1:
    raise UserError(
      f"the mesh {dict(mesh.shape)} gives some processes overlapping rows of the batch: let "
      "config.mesh.tensor be a divisor or a multiple of the devices of one process"
    )
  return tuple(sorted(parts[process])), batch_devices(mesh)


def local_rows(array: np.ndarray, mesh: Mesh) -> np.ndarray:
  """The rows of a global array that this process feeds (`process_rows`)."""
  parts, count = process_rows(mesh)
  return array.reshape(count, -1, *array.shape[1:])[list(parts)].reshape(-1, *array.shape[1:])


def check_rows(name, shape, mesh: Mesh, accumulate=1) -> None:
  """Raises UserError unless a global batch of this shape, rows first, splits evenly."""
  parts, rows = batch_devices(mesh) * accumulate, shape[0]
  if rows % parts:
    micro = f" x {accumulate} accumulated micro-batches" if accumulate > 1 else ""
    tokens = math.ceil(rows / parts) * parts * math.prod(shape[1:])
    fewer = f", or set config.data.row_multiple={parts}, which leaves some out" if rows > parts else ""
    raise UserError(
      f"the batch's {name} has {rows} rows, which {batch_devices(mesh)} devices{micro} cannot share evenly: "
      f"choose config.data.batch_tokens (for example {tokens}) and row_length so that the rows are a multiple "
      f"of {parts}{fewer}"
    )


def put_batch(batch: dict, mesh: Mesh, accumulate=1) -> dict:
  """Global arrays from this process' rows (`process_rows`) of a batch of numpy arrays."""
  parts, count = process_rows(mesh)
  for name, rows in batch.items():
    check_rows(name, (rows.shape[0] * count // len(parts), *rows.shape[1:]), mesh, accumulate)
  return jax.make_array_from_process_local_data(batch_sharding(mesh), batch)
