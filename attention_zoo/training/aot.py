"""Compiling a training step for hardware that is not there: does it fit, what does it send, how fast can it be.

libtpu compiles for any TPU topology on any machine (jax.experimental.topologies). Nothing is run; every figure comes
from the compiled program, and the step time is a bound from stated chip data, not a measurement.
"""

import dataclasses
import math
import os
import re

import jax
import jax.numpy as jnp

from attention_zoo.errors import UserError
from attention_zoo.training import loop, sharding
from attention_zoo.training.optimizer import make_optimizer


@dataclasses.dataclass(frozen=True)
class Chip:
  """Published figures of one chip: bf16 FLOP/s, bytes of HBM, HBM bytes/s, interconnect bytes/s (all links, one way)."""

  flops: float
  hbm: float
  hbm_bandwidth: float
  interconnect: float


# Google Cloud's TPU system architecture pages, 2025.
CHIPS = {
  "v4": Chip(275e12, 32e9, 1228e9, 300e9),
  "v5e": Chip(197e12, 16e9, 819e9, 200e9),
  "v5p": Chip(459e12, 95e9, 2765e9, 600e9),
  "v6e": Chip(918e12, 32e9, 1640e9, 448e9),
}

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
_COLLECTIVE = re.compile(
  r"= (?P<shape>\([^)]*\)|\S+) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)


def topology_devices(topology: str, num_slices=1):
  """(devices, chip name) of a topology like "v5e:4x4". UserError for one that libtpu does not know."""
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  from jax.experimental import topologies

  kind = topology.partition(":")[0]
  if kind not in CHIPS:
    raise UserError(f"--topology={topology!r}: chips known here are {', '.join(CHIPS)}; write for example v5e:4x4")
  options = {"num_slices": num_slices} if num_slices > 1 else {}
  try:
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
  except Exception as error:  # libtpu's own types, and ImportError without it
    hint = "pip install libtpu" if "libtpu" in str(error) or isinstance(error, ImportError) else "see --help"
    raise UserError(f"--topology={topology!r}: {str(error).splitlines()[0][:300]} ({hint})") from error
  return found.devices, kind


def compile_step(task, config, devices):
  """(compiled step, mesh, abstract state) of the very training step that `loop.train` runs."""
  mesh = sharding.make_mesh(config.mesh, devices)
  optimizer = make_optimizer(config.optimizer, config.model.d_model)
  abstract = loop.abstract_state(task, optimizer, sharding.rules_of(config.mesh), mesh)
  shapes = task.batch_shapes()
  for name, shape in shapes.items():
    sharding.check_rows(name, shape.shape[0], mesh, config.train.accumulate)
  rows = sharding.batch_sharding(mesh)
  batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows) for name, x in shapes.items()}
  stop = jax.ShapeDtypeStruct((sharding.batch_devices(mesh),), jnp.int32, sharding=rows)
  step = loop.make_train_step(task, optimizer, config, abstract, mesh)
  with jax.set_mesh(mesh):
    return step.lower(abstract, batch, stop).compile(), mesh, abstract


def bytes_per_device(tree) -> int:
  """Bytes of one device's part of a tree of ShapeDtypeStruct with shardings."""
  leaves = jax.tree.leaves(tree)
  return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


def collectives(hlo: str) -> dict[str, tuple[int, int]]:
  """{kind: (how many, bytes of their results on one device)} of a compiled program's text."""
  found = {}
  for match in _COLLECTIVE.finditer(hlo):
    size = sum(
      _BYTES.get(kind, 4) * math.prod(int(n) for n in dims.split(",") if n)
      for kind, dims in re.findall(r"(\w+)\[([\d,]*)\]", match["shape"])
    )
    count, total = found.get(match["kind"], (0, 0))
    found[match["kind"]] = (count + 1, total + size)
  return found


def largest_buffers(abstract, count=5) -> list[tuple[str, int]]:
  """(name, bytes on one device) of the largest leaves of the state."""
  leaves = jax.tree_util.tree_leaves_with_path(abstract)
  sizes = [(jax.tree_util.keystr(path, simple=True, separator="/"), bytes_per_device(leaf)) for path, leaf in leaves]
  return sorted(sizes, key=lambda pair: -pair[1])[:count]


def report(compiled, abstract, chip: Chip, tokens: int) -> dict:
  """Memory of one chip, collectives, FLOPs, and the roofline of a step, from the compiled program.

  tokens: target tokens of a global batch. The bound is the slowest of arithmetic, HBM traffic and interconnect
  traffic, each at its published peak: real steps are slower.
  """
  memory = compiled.memory_analysis()
  cost = compiled.cost_analysis()
  sent = collectives(compiled.as_text())
  devices = len(jax.tree.leaves(abstract)[0].sharding.device_set)
  peak = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
  peak += memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
  flops = cost.get("flops", 0.0)
  seconds = {
    "arithmetic": flops / chip.flops,
    "HBM": cost.get("bytes accessed", 0.0) / chip.hbm_bandwidth,
    # A ring all-reduce sends each byte twice, the others once.
    "interconnect": sum(size * (2 if kind == "all-reduce" else 1) for kind, (_, size) in sent.items())
    / chip.interconnect,
  }
  bound = max(seconds.values())
  return {
    "devices": devices,
    "parameter_bytes": bytes_per_device(abstract.params),
    "optimizer_bytes": bytes_per_device(abstract.opt_state),
    "activation_bytes": memory.temp_size_in_bytes,
    "peak_bytes": peak,
    "hbm_bytes": chip.hbm,
    "fits": peak <= chip.hbm,
    "collectives": sent,
    "flops_per_device": flops,
    "seconds": seconds,
    "step_seconds_bound": bound,
    "mfu_bound": seconds["arithmetic"] / bound if bound else 0.0,
    "tokens_per_second_bound": tokens / bound if bound else 0.0,
  }


def rows(found: dict) -> list[tuple[str, str, str]]:
  """The report as (name, value, note) rows."""
  mib = lambda size: f"{size / 2**20:,.1f} MiB"
  table = [
    ("chips", str(found["devices"]), ""),
    ("parameters", mib(found["parameter_bytes"]), "a chip"),
    ("optimizer state", mib(found["optimizer_bytes"]), "a chip"),
    ("activations and temporaries", mib(found["activation_bytes"]), "a chip"),
    ("peak", mib(found["peak_bytes"]), f"of {mib(found['hbm_bytes'])}: {'fits' if found['fits'] else 'DOES NOT FIT'}"),
    ("arithmetic", f"{found['flops_per_device'] / 1e9:,.1f} GFLOP", "a chip and step"),
  ]
  table += [(kind, f"{count} x", f"{mib(size)} a step") for kind, (count, size) in found["collectives"].items()]
  table += [(f"bound by {name}", f"{1e3 * value:,.2f} ms", "") for name, value in found["seconds"].items()]
  table += [
    ("step, at best", f"{1e3 * found['step_seconds_bound']:,.2f} ms", f"MFU {found['mfu_bound']:.0%}"),
    ("target tokens/s, at best", f"{found['tokens_per_second_bound']:,.0f}", "prediction, not run"),
  ]
  return table
