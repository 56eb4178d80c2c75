"""Memory of relative attention with and without its kernel, as XLA's compiler for TPUs plans it.

  python -m benchmarks.relative_memory [--tiny] [--out=DIRECTORY]

Music Transformer's causal attention, value and gradients, one row of a batch, for one v5e chip. Nothing is run, no TPU
is needed, but libtpu is. Writes relative_memory.json and relative_kernel.md.
"""

import argparse
import os
import pathlib
import re

from attention_zoo import files
from benchmarks import common

HERE = pathlib.Path(__file__).parent
N, K = 8, 64
LENGTHS = (2048, 4096, 8192, 16384, 32768)
SIDES = {"kernel": "kernels.relative.music_attention", "skewing": "skew, an array [N, L, L]"}
COLUMNS = ("L", "kernel: temporaries", "kernel: in all", "skewing: temporaries", "skewing: in all")


def compile_side(side, L):
  """{"bytes": of arguments, results and temporaries, "temporary_bytes" where they are known, "fits"}."""
  import jax
  import jax.numpy as jnp
  from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

  from attention_zoo.ops import masks, relative
  from attention_zoo.ops.kernels import relative as kernels
  from attention_zoo.training import aot

  function = kernels.music_attention
  if side == "skewing":  # what runs where a mask is given
    function = lambda *x: relative.music_attention(*x, mask=masks.causal(L))
  devices, _ = aot.topology_devices("v5e:2x2")
  mesh = Mesh(devices[:1], ("data",), axis_types=(AxisType.Auto,))
  place = NamedSharding(mesh, PartitionSpec())
  shapes = [(1, L, N, K)] * 3 + [(L, N, K)]
  inputs = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place) for shape in shapes]
  both = jax.value_and_grad(lambda *x: function(*x).astype(jnp.float32).sum(), range(4))
  with jax.set_mesh(mesh), aot.without_cache():
    lowered = jax.jit(both).lower(*inputs)
    try:
      memory = lowered.compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
      beside = re.search(r"temporaries \(([\d.]+)([MG])\)", str(error))
      used = beside or re.search(r"Used ([\d.]+)([MG]) of", str(error))
      if not used:
        raise
      size = float(used[1]) * 2 ** {"M": 20, "G": 30}[used[2]]
      arguments = 2 * sum(x.size * x.dtype.itemsize for x in inputs) if beside else 0  # and their gradients
      return {"bytes": size + arguments, "temporary_bytes": size if beside else None, "fits": False}
  temporary = memory.temp_size_in_bytes
  whole = temporary + memory.argument_size_in_bytes + memory.output_size_in_bytes
  return {"bytes": whole, "temporary_bytes": temporary, "fits": True}


def row(L, found):
  mib = lambda size: f"{size / 2**20:,.0f} MiB"
  cells = [f"{L:,}"]
  for side in SIDES:
    one = found[side]
    cells.append("" if one["temporary_bytes"] is None else mib(one["temporary_bytes"]))
    cells.append(mib(one["bytes"]) + ("" if one["fits"] else ": DOES NOT FIT"))
  return cells


NOTES = (
  "planned by the compiler for one v5e chip (15.75 GiB); nothing was run on a TPU, and nothing is said of speed",
  f"one row of {N} heads of {K}, bfloat16; value and gradients of queries, keys, values and table",
  "the compiler keeps temporaries in the chip's 128 MiB of VMEM where it can, and these it does not count",
)


def report(rows):
  """relative_kernel.md."""
  lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
  table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
  return f"""# Relative attention without L x L: memory

**Nothing here has been run on a TPU.** The figures are what XLA's compiler plans for one v5e chip (15.75 GiB), value
and gradients of Music Transformer's causal attention, {N} heads of {K}, bfloat16, one row. `python -m
benchmarks.relative_memory` makes this table. "Skewing" is `ops/relative.py` as it runs on CPUs and GPUs: the logits and
the skewed product are arrays [N, L, L]. "Kernel" is `ops/kernels/relative.py`, which skews in the tile. Of speed
nothing is known: the kernels compute each tile once forward and three times backward, and multiply the queries with
twice as many rows of the table as a tile has keys.

{table}

Temporaries are beside arguments and results. The compiler keeps what it can of them in the chip's VMEM, 128 MiB, and
does not count that: hence the zeros, and a growth that looks a little more than linear until VMEM is small beside it.
A head of 64 takes 128 lanes in HBM, so that half of most of the kernel's arrays is padding.
"""


def main(argv=None):
  options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  options.add_argument("--tiny", action="store_true", help="the smallest lengths, to see that it works")
  options.add_argument("--out", type=files.expand, help="directory of both files; default: where they are kept")
  arguments = options.parse_args(argv)
  os.environ["JAX_PLATFORMS"] = "cpu"
  lengths = (512,) if arguments.tiny else LENGTHS
  found = {L: {side: compile_side(side, L) for side in SIDES} for L in lengths}
  rows = [row(L, found[L]) for L in lengths]
  results = {"environment": common.environment(), "sides": SIDES, "found": found}
  title = "Memory of relative attention, forward and backward"
  common.publish("relative_memory", title, COLUMNS, rows, NOTES, results, arguments.out or common.RESULTS)
  files.write_text((arguments.out or HERE) / "relative_kernel.md", report(rows))


if __name__ == "__main__":
  main()
