"""The kernels of relative attention on a GPU: are they right, and how fast beside skewing and cuDNN without positions?

  python -m benchmarks.relative_gpu [--tiny] [--limit=150] [--out=DIRECTORY]

Errors are of a bfloat16 program against the einsums in float32, relative to the norm of each array: of the kernels and,
beside them, of the einsums themselves in bfloat16. Times are forward and backward. --tiny: in Pallas's interpreter, on
any machine. This command has not been run on a GPU; what a shorter one showed stands in benchmarks/README.md, H100.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo import files
from attention_zoo.ops import masks, relative
from attention_zoo.ops.kernels import relative as kernels
from benchmarks import common
from benchmarks.accelerator.part import seconds

COLUMNS = ("what", "kernels", "skewing", "cuDNN, no positions")
SIZES = ((4, 1024), (4, 2048), (2, 4096), (1, 8192), (1, 16384), (1, 32768))  # rows, length
MOST_PAIRS = 16384  # where skewing still finds room


def arrays(seed, *shapes):
  return [jax.random.normal(key, shape, jnp.bfloat16) for key, shape in zip(
    jax.random.split(jax.random.key(seed), len(shapes)), shapes, strict=True
  )]  # fmt: skip


def value_and_gradients(function):
  def both(cotangent, *inputs):
    out, vjp = jax.vjp(function, *inputs)
    return out, *vjp(cotangent.astype(out.dtype))

  return jax.jit(both)


def errors(name, old, new, *inputs):
  """One row: the largest relative error of value and gradients of each side, and whether a second run is the same."""
  (cotangent,) = arrays(1, inputs[0].shape)
  with jax.default_matmul_precision("highest"):
    wanted = value_and_gradients(old)(cotangent, *(x.astype(jnp.float32) for x in inputs))
  found = []
  for function in (new, old):
    run = value_and_gradients(function)
    outs = run(cotangent, *inputs)
    off = [jnp.linalg.norm((x - y).ravel()) / jnp.linalg.norm(y.ravel()) for x, y in zip(outs, wanted, strict=True)]
    same = all(bool((x == y).all()) for x, y in zip(outs, run(cotangent, *inputs), strict=True))
    found.append(f"{float(max(off)):.1e}{'' if same else ', not the same twice'}")
  return (f"error: {name}", *found, "")


def milliseconds(function, *inputs):
  try:
    run = value_and_gradients(function)
    return f"{1e3 * seconds(lambda: run(*inputs), rounds=3, at_least=0.05):,.2f} ms"
  except jax.errors.JaxRuntimeError as error:
    return f"failed: {str(error).splitlines()[0][:60]}"


def main(argv=None):
  options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  options.add_argument("--tiny", action="store_true", help="the smallest sizes, interpreted, to see that it works")
  options.add_argument("--limit", type=float, default=150, help="seconds after which nothing new is begun")
  options.add_argument("--out", type=files.expand, default=common.RESULTS, help="directory of the JSON file")
  chosen = options.parse_args(argv)
  end = time.monotonic() + chosen.limit
  how = {"gpu": True} | ({"interpret": True, "width": 16} if chosen.tiny else {})
  B, L, N, K = (1, 20, 1, 16) if chosen.tiny else (2, 500, 4, 64)
  q, k, v = arrays(0, *[(B, L, N, K)] * 3)
  segments = jnp.asarray(np.sort(np.random.default_rng(0).integers(1, 5, (B, L)), 1)).at[:, -L // 10 :].set(0)
  packed = functools.partial(relative.music_attention, mask=masks.segments(segments, segments))
  new = lambda name, **more: functools.partial(getattr(kernels, name), **how, **more)
  cases = {
    "Music Transformer": (relative.music_attention, new("music_attention"), [(L, N, K)]),
    "the same, packed": (packed, new("music_attention", query_segments_BT=segments, key_segments_BS=segments),
                         [(L, N, K)]),
    "Shaw, both tables": (relative.shaw_attention, new("shaw_attention"), [(33, 1, K)] * 2),
    "Transformer-XL": (relative.transformer_xl_attention, new("transformer_xl_attention"), [(L, N, K), (N, K), (N, K)]),
  }  # fmt: skip
  rows = [errors(name, old, kernel, q, k, v, *arrays(2, *shapes)) for name, (old, kernel, shapes) in cases.items()]
  for B, L in () if chosen.tiny else SIZES:
    if time.monotonic() > end:
      break
    inputs = arrays(3, *[(B, L, 8, 64)] * 4, (L, 8, 64))
    skewing = functools.partial(relative.music_attention, mask=masks.causal(L))
    plain = lambda q, k, v, table: jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")
    rows.append((
      f"{B} rows of {L:,}, 8 heads of 64",
      milliseconds(new("music_attention"), *inputs),
      milliseconds(skewing, *inputs) if L <= MOST_PAIRS else "not run: L x L",
      milliseconds(plain, *inputs),
    ))  # fmt: skip
  title, notes = "Relative attention on a GPU, bfloat16", ("times: Music Transformer's, forward and backward",)
  common.publish("relative_gpu", title, COLUMNS, rows, notes, {"environment": common.environment()}, chosen.out)


if __name__ == "__main__":
  main()
