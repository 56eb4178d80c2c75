"""Compiling a training step for hardware that is not there: does it fit, what does it send, how fast at best.

libtpu compiles for any TPU topology on any machine (jax.experimental.topologies). Nothing is run; memory and
traffic come from the compiled program (`training/hlo.py`), arithmetic from the step as it was traced, and the
step time is a bound from stated chip data, not a measurement.
"""

import collections
import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from attention_zoo.errors import UserError
from attention_zoo.training import distributed, hlo, sharding
from attention_zoo.training import step as step_lib
from attention_zoo.training.optimizer import make_optimizer


@dataclasses.dataclass(frozen=True)
class Chip:
  """A chip's bf16 FLOP/s, HBM that a program may use, and bytes/s of HBM, of all links and of its share of the
  data-centre network, one way. None where nothing is known of its speed."""

  flops: float | None
  hbm: float
  hbm_bandwidth: float | None = None
  links: float | None = None
  network: float | None = None


# Google Cloud's TPU pages (2026); HBM is what the compiler lets a program have. The network: v5e 6.4 Tbit/s for 256
# chips, v5p 50 Gbit/s a chip, v6e 4 x 200 Gbit/s for a host of 8 chips.
CHIPS = {
  "v5e": Chip(197e12, 15.75 * 2**30, 819e9, 200e9, 3.125e9),
  "v5p": Chip(459e12, 95.74 * 2**30, 2765e9, 600e9, 6.25e9),
  "v6e": Chip(918e12, 31.25 * 2**30, 1638e9, 400e9, 12.5e9),
}


def local_devices():
  """(devices, Chip) of this machine, of whose speed nothing is known."""
  devices = jax.devices()
  return devices, Chip(None, (devices[0].memory_stats() or {}).get("bytes_limit", math.inf))


def topology_devices(topology: str, num_slices=1):
  """(devices, chip name) of a topology like "v5e:4x4". UserError for one that libtpu does not know."""
  from jax.experimental import topologies

  kind = topology.partition(":")[0]
  if kind not in CHIPS:
    raise UserError(
      f"--topology={topology!r}: chips known here are {', '.join(CHIPS)}; write for example v5e:4x4, or local for the "
      "devices of this machine"
    )
  distributed.hush_libtpu()
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # Several may compile at a time.
  options = {"num_slices": num_slices} if num_slices > 1 else {}
  try:
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
  except Exception as error:  # libtpu's own types, and what JAX raises without it
    hint = "pip install -e '.[tpu]'" if not importlib.util.find_spec("libtpu") else "see --help"
    raise UserError(f"--topology={topology!r}: {str(error).splitlines()[0][:300]} ({hint})") from error
  return found.devices, kind


class Step(NamedTuple):
  """A training step, compiled or not: where it does not fit, `program` is None and `complaint` XLA's message."""

  program: Any
  complaint: str
  abstract: step_lib.State
  flops: float  # of the matrix products of all chips together
  units: int  # tokens, pixels, ... of a global batch
  unit: str
  devices: int


def compile_seconds(jaxpr, devices) -> float | None:
  """The processor's seconds that XLA may take, None where nothing is known of it.

  Measured on v5e:2x4: 176, 229 and 414 s for base of 1, 2 and 6 layers, 221 s for 2 under fsdp, 178 s for big of 1; a
  model a quarter as wide as base took a third of what this says.
  """
  return 120 + 0.028 * _equations(jaxpr) if devices[0].platform == "tpu" else None


def _equations(jaxpr) -> int:
  return sum(1 + sum(map(_equations, core.jaxprs_in_params(eqn.params))) for eqn in jaxpr.eqns)


def compile_step(task, config, devices, chip: Chip, phase=lambda name, estimate=None: contextlib.nullcontext()) -> Step:
  """Compiles the very training step that `loop.train` runs.

  phase: called as phase(name, the processor's seconds that it may take, or None), returns a context manager that the
  phase runs in.
  Raises UserError for a mesh or batch that does not fit the devices.
  """
  mesh = sharding.make_mesh(config.mesh, devices)
  optimizer = make_optimizer(config.optimizer)
  abstract = step_lib.abstract_state(task, optimizer, config, mesh)
  shapes = task.batch_shapes()
  for name, shape in shapes.items():
    sharding.check_rows(name, shape.shape, mesh, config.train.accumulate)
  rows = sharding.batch_sharding(mesh)
  batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows) for name, x in shapes.items()}
  stop = jax.ShapeDtypeStruct((mesh.size,), jnp.int32, sharding=NamedSharding(mesh, P(sharding.AXES)))
  step = step_lib.make_train_step(task, optimizer, config, abstract, mesh)
  with jax.set_mesh(mesh):  # which also tells whoever asks `hardware.platform` what is compiled for
    with phase("tracing"):
      traced = step.trace(abstract, batch, stop)
    with phase("lowering"):
      lowered = traced.lower()
  flops = matmul_flops(traced.jaxpr.jaxpr)
  found = Step(None, "", abstract, flops, task.batch_units(), task.unit, mesh.size)
  if (state := bytes_per_device(abstract)) > chip.hbm:
    return found._replace(
      complaint=f"the state alone takes {state / 2**30:.2f}G of {chip.hbm / 2**30:.2f}G of HBM"
    )
  try:
    with without_cache(), phase("compiling", compile_seconds(traced.jaxpr.jaxpr, devices)):
      return found._replace(program=lowered.compile())
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return found._replace(complaint=str(error).removeprefix("RESOURCE_EXHAUSTED: "))


def matmul_flops(jaxpr) -> float:
  """Operations of all matrix products and convolutions. (XLA's own count has a loop's body once.)"""
  return math.fsum(operations for _, operations in products(jaxpr))


def products(jaxpr, scope=(), times=1):
  """(scope, operations) of each matrix product and convolution of a traced program, those in a scan as often as it
  runs. scope: the names around it, the outermost first; Flax gives each module's."""
  for eqn in jaxpr.eqns:
    here = (*scope, *filter(None, str(eqn.source_info.name_stack).split("/")))
    if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
      left, right, out = (x.aval.shape for x in (*eqn.invars, *eqn.outvars))
      if eqn.primitive.name == "dot_general":
        summed = math.prod(left[axis] for axis in eqn.params["dimension_numbers"][0][0])
      else:
        summed = math.prod(right) / right[eqn.params["dimension_numbers"].rhs_spec[0]]
      yield here, times * 2 * math.prod(out) * summed
    again = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
    if eqn.primitive.name == "pallas_call":  # tiles that a kernel skips count too
      again = math.prod(eqn.params["grid_mapping"].grid)
    if eqn.primitive.name == "shard_map":  # traced with the shapes of one device
      again = math.prod(eqn.params["mesh"].shape[axis] for axis in eqn.params["newly_manual_axes"])
    for part in core.jaxprs_in_params(eqn.params):
      yield from products(part, here, times * again)


@contextlib.contextmanager
def without_cache():
  """The persistent compilation cache writes programs for hardware that is not there, but cannot read them."""
  from jax.experimental.compilation_cache import compilation_cache

  enabled = jax.config.jax_enable_compilation_cache
  jax.config.update("jax_enable_compilation_cache", False)
  compilation_cache.reset_cache()  # JAX asks once a process whether there is one
  try:
    yield
  finally:
    jax.config.update("jax_enable_compilation_cache", enabled)
    compilation_cache.reset_cache()


def bytes_per_device(tree) -> int:
  """Bytes of one device's part of a tree of ShapeDtypeStruct with shardings."""
  leaves = jax.tree.leaves(tree)
  return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


def largest_buffers(step: Step, count=5) -> list[tuple[str, int]]:
  """(name, bytes on one device) of the largest leaves of the state, and of what XLA names when it gives up."""
  leaves = jax.tree_util.tree_leaves_with_path(step.abstract)
  buffers = [(sharding.path_name(path), bytes_per_device(leaf)) for path, leaf in leaves]
  for size, unit, text in re.findall(
    r"Size: ([\d.]+)([KMG]?)\n(.*?)(?=\n\s*\n|$)", step.complaint, re.DOTALL
  ):
    shape = re.search(r"Shape: (\S+\])", text)
    operator = re.search(r'op_name="([^"]*)"', text)
    name = " ".join(found[1] for found in (shape, operator) if found)
    buffers.append((name or "XLA's own", int(float(size) * 2 ** {"": 0, "K": 10, "M": 20, "G": 30}[unit])))
  return sorted(buffers, key=lambda buffer: -buffer[1])[:count]


def report(step: Step, chip: Chip) -> dict:
  """Memory of one chip, collectives, arithmetic, and the roofline of a step.

  The bound is the slowest of arithmetic, HBM, links and network, each at its published peak and all at once:
  real steps are slower. MFU is the part of it in which the matrix units would work.
  """
  found = {
    "devices": step.devices,
    "units": step.units,
    "unit": step.unit,
    "parameter_bytes": bytes_per_device(step.abstract.params),
    "optimizer_bytes": bytes_per_device(step.abstract.opt_state),
    "hbm_bytes": chip.hbm,
    "flops_per_device": step.flops / step.devices,
    "fits": step.program is not None,
    "complaint": step.complaint.partition("\n")[0],
  }
  if not found["fits"]:
    return found
  memory = step.program.memory_analysis()
  state = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
  peak = state + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
  if peak > chip.hbm:  # XLA says so itself only of TPUs
    return found | {"fits": False, "complaint": f"it takes {peak / 2**30:.2f}G of {chip.hbm / 2**30:.2f}G"}
  program = hlo.Program(step.program.as_text())
  sent = collections.defaultdict(lambda: [0, 0, 0.0])
  for x in program.collectives():
    sent[x.kind] = [a + b for a, b in zip(sent[x.kind], (x.times, x.times * x.bytes, x.sent), strict=True)]
  between = sent.get("between slices", [0, 0, 0.0])[2]
  found |= {
    "activation_bytes": memory.temp_size_in_bytes,
    "peak_bytes": peak,
    "collectives": dict(sent),
    "unknown_loops": program.unknown_loops,
  }
  if chip.flops is None:
    return found
  seconds = {
    "arithmetic": found["flops_per_device"] / chip.flops,
    "HBM": program.hbm_bytes() / chip.hbm_bandwidth,
    "links": (sum(x[2] for x in sent.values()) - between) / chip.links,
    "network between slices": between / chip.network,
  }
  bound = max(seconds.values())
  return found | {
    "seconds": seconds,
    "step_seconds": bound,
    "mfu": seconds["arithmetic"] / bound,
    "units_per_second": step.units / bound,
  }


def rows(found: dict) -> list[tuple[str, str, str]]:
  """The report as (name, value, note) rows."""
  mib = lambda size: f"{size / 2**20:,.1f} MiB"
  known = found["hbm_bytes"] < math.inf
  hbm = f"of {mib(found['hbm_bytes'])}: {'fits' if found['fits'] else 'DOES NOT FIT'}" if known else ""
  table = [
    ("chips", str(found["devices"]), f"{found['units']:,} {found['unit']} a step"),
    ("parameters", mib(found["parameter_bytes"]), "a chip"),
    ("optimizer state", mib(found["optimizer_bytes"]), "a chip"),
  ]
  if not found["fits"]:
    return [*table, ("peak", "", hbm), ("compiler", found["complaint"], "")]
  table += [
    ("activations and temporaries", mib(found["activation_bytes"]), "a chip"),
    ("peak", mib(found["peak_bytes"]), hbm),
    ("matrix products", f"{found['flops_per_device'] / 1e9:,.1f} GFLOP", "a chip and step"),
  ]
  table += [
    (kind, f"{count} x", f"{mib(size)} a step, of which a chip sends {mib(sent)}")
    for kind, (count, size, sent) in found["collectives"].items()
  ]
  if found["unknown_loops"]:
    table.append(("loops of unknown length", str(found["unknown_loops"]), "counted as if they ran once"))
  if "seconds" not in found:
    return table
  table += [
    (f"bound by {name}", f"{1e3 * value:,.2f} ms", "") for name, value in found["seconds"].items() if value
  ]
  return [
    *table,
    ("step, at best", f"{1e3 * found['step_seconds']:,.2f} ms", f"MFU at most {found['mfu']:.0%}"),
    (f"{found['unit']}/s, at best", f"{found['units_per_second']:,.0f}", "prediction, not run"),
  ]
