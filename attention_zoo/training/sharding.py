"""Meshes and placement: which device holds which part of a parameter, and which rows of a batch.

The mesh has four axes. `replica` joins slices (or other groups with a slow network between them), `data`
splits the batch, `fsdp` splits the batch and the parameters (ZeRO, Rajbhandari et al. 2020), `tensor` splits
single matrix products (Megatron-LM, Shoeybi et al. 2019). Every parameter's place follows from the first rule
of the chosen set whose pattern is found in its path; nothing is guessed, and what does not fit is an error
that names the leaf.
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

# Ordered (pattern, place) lists; the first pattern found in the '/'-joined path wins. The leaves' dimensions: table [V, D];
# query, key, value [D, N, K]; output [N, H, D]; wi [D, F] and [F]; wo [F, D] and [D]; experts_in [E, D, F] and _out
# [E, F, D]. Those of one place share a rule, so that no rule is idle where a model has experts instead of wi and wo.
_SMALL = r"_norm/(scale|bias)$|wo/bias$|_positions/(table|joined/kernel)$|_attention/\w+$|feed_forward/(gate|noise)$"
_INTO = r"attention/(query|key|value)/kernel$|wi/kernel$"  # the first product of a sub-layer
_EXPERTS = r"experts_(in|out)$"
RULES = {
  "data_parallel": [(r"", P())],
  "fsdp": [
    (rf"{_SMALL}|wi/bias$", P()),
    (rf"{_INTO}|{_EXPERTS}", P("fsdp")),
    (r"embedding/table$|wo/kernel$", P(None, "fsdp")),
    (r"attention/output/kernel$", P(None, None, "fsdp")),
  ],
  "tensor_parallel": [
    (_SMALL, P()),
    (_INTO, P(None, "tensor")),
    (rf"embedding/table$|attention/output/kernel$|wi/bias$|wo/kernel$|{_EXPERTS}", P("tensor")),
  ],
  "fsdp+tensor_parallel": [
    (rf"{_SMALL}|wi/bias$", P()),
    (_INTO, P("fsdp", "tensor")),
    (rf"embedding/table$|wo/kernel$|{_EXPERTS}", P("tensor", "fsdp")),
    (r"attention/output/kernel$", P("tensor", None, "fsdp")),
  ],
}


def rules_of(config_mesh) -> list:
  """The rule set that config.mesh.rules names; UserError where there is none, or it leaves an axis idle."""
  if config_mesh.rules not in RULES:
    raise UserError(f"config.mesh.rules = {config_mesh.rules!r} is not one of {', '.join(RULES)}")
  rules = RULES[config_mesh.rules]
  used = {axis for _, spec in rules for axis in _axes(spec)}
  if config_mesh.tensor > 1 and "tensor" not in used:
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


def _axes(spec) -> list[str]:
  """The mesh axes that a PartitionSpec names."""
  return [
    axis for entry in spec if entry is not None for axis in (entry if isinstance(entry, tuple) else (entry,))
  ]


def path_name(path) -> str:
  """'encoder/layer_0/...' for a key path of jax.tree_util."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def shardings(rules, tree, mesh: Mesh):
  """The NamedSharding of each parameter.

  rules: ordered (pattern, PartitionSpec) list. tree: parameters, or anything with their paths and `.shape`.
  Raises UserError for a leaf that no rule matches, a rule that is the first match of no leaf, a PartitionSpec
  longer than the leaf's rank, and a dimension that its mesh axes do not divide.
  """
  unused = {pattern for pattern, _ in rules}

  def place(path, leaf):
    name = path_name(path)
    pattern, spec = next(
      ((pattern, spec) for pattern, spec in rules if re.search(pattern, name)), (None, None)
    )
    if pattern is None:
      raise UserError(f"no sharding rule matches the parameter {name} {leaf.shape}")
    unused.discard(pattern)
    if len(spec) > len(leaf.shape):
      raise UserError(
        f"sharding rule {pattern!r} -> {spec} has more dimensions than the parameter {name} {leaf.shape}"
      )
    for dimension, (size, entry) in enumerate(zip(leaf.shape, spec, strict=False)):
      parts = math.prod(mesh.shape[axis] for axis in _axes((entry,)))
      if size % parts:
        raise UserError(
          f"dimension {dimension} of the parameter {name} {leaf.shape} is not divisible by the {parts} "
          f"devices of the mesh axis {entry!r} (sharding rule {pattern!r} -> {spec})"
        )
    return NamedSharding(mesh, spec)

  placed = jax.tree_util.tree_map_with_path(place, tree)
  if unused:
    raise UserError(f"sharding rule {sorted(unused)[0]!r} matches no parameter")
  return placed


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
