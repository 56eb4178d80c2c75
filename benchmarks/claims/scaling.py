"""Time and memory of every variant over the length of the sequence."""

import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from attention_zoo.ops import (
  additive,
  convolution,
  graph,
  image,
  local,
  local_2d,
  masks,
  memory_compressed,
  mixture_of_experts,
  position_bias,
  recurrent,
  relative,
)
from attention_zoo.ops.dot_product import dot_product_attention
from attention_zoo.plots.theme import LIGHT
from benchmarks.claims.report import log_slope

TITLE = "Time and memory over the length n"
SOURCE = (
  "The lectures' comparison tables: attention n^2, recurrence and convolution n; local and compressed attention were "
  "made to be linear. One sequence, one head, width 64, float32, forward. Analytic: the exponents of n in the "
  "docstrings' costs, of time and of memory. Measured: the slopes of the last three points of the log-log plot, "
  "of the fastest of several runs and of the compiler's analysis of temporaries and results. A variant is run up to "
  "the length where a run would take more than 1.5 s or 3 GB, and compiled up to 20 GB. "
  "Compression by a fixed stride of 3 has n^2 / 3 logits, and so is linear in memory, where queries go in "
  "chunks, but not in time; to a fixed number of keys it is linear in both."
)
WIDTH, WINDOW, EXPERTS, DEGREE = 64, 128, 8, 16
# Bytes up to which a variant is compiled, though not run.
COMPILED_SHARE = 2e10


@dataclasses.dataclass
class Variant:
  """make(n) -> (function, shapes of its arguments); time and memory: the exponents of n by its docstring."""

  name: str
  make: Callable
  time: int
  memory: int


def attention(function, *parameters, head=(1, WIDTH)):
  """A variant of self-attention with further arrays; their shapes may depend on n."""

  def make(n):
    shapes = [(1, n, *head)] * 3 + [shape(n) if callable(shape) else shape for shape in parameters]
    return function, shapes

  return make


def layer(function, *parameters):
  """A layer of BTD with further arrays of fixed shapes."""
  return lambda n: (function, [(1, n, WIDTH), *parameters])


def picture(function, axes=5):
  """Attention over an image of n pixels, twice as high as it is wide at every other length."""

  def make(n):
    Y = 2 ** ((n.bit_length()) // 2)
    shape = (1, Y, n // Y, 1, WIDTH) if axes == 5 else (1, Y, n // Y, WIDTH)
    return function, [shape] * (3 if axes == 5 else 1)

  return make


def rotary(q, k, v):
  positions = jnp.arange(q.shape[1])[None]
  return dot_product_attention(position_bias.rotate(q, positions), position_bias.rotate(k, positions), v)


def alibi(q, k, v):
  positions = jnp.arange(q.shape[1])
  return dot_product_attention(
    q, k, v, bias=position_bias.alibi_bias(1, positions, positions), mask=causal(q)
  )


def t5(q, k, v, table):
  positions = jnp.arange(q.shape[1])
  return dot_product_attention(q, k, v, bias=position_bias.t5_bias(table, positions, positions))


def causal(q):
  return masks.causal(q.shape[1])


def compressed_to_512(q, k, v, key_kernel, value_kernel):
  stride = max(1, q.shape[1] // 512)
  return memory_compressed.memory_compressed_attention(q, k, v, key_kernel, value_kernel, stride=stride)


def graph_of_chain(q, k, v, table):
  n = q.shape[1]
  types = graph.chain_relations(n, len(table) // 2)[None]
  return graph.graph_attention(q, k, v, types_BTS=types, key_table_RNK=table, value_table_RNH=table)


def graph_of_edges(q, k, v, table):
  """Every node hears its DEGREE predecessors."""
  n = q.shape[1]
  receivers = jnp.repeat(jnp.arange(n), DEGREE)[None]
  types = jnp.tile(jnp.arange(DEGREE), n)[None]
  edges = {"senders_BG": receivers - types, "receivers_BG": receivers, "types_BG": types}
  return graph.edge_attention(q, k, v, **edges, key_table_RNK=table, value_table_RNH=table)


def experts(x, gate, into, out):
  """Rows of 1,024 tokens are groups of their own."""
  groups = x.reshape(-1, 1024, WIDTH)
  gates, _ = mixture_of_experts.noisy_top_k_gates(groups, gate, jnp.zeros_like(gate), k=2)
  capacity = mixture_of_experts.expert_capacity(1024, EXPERTS, k=2, capacity_factor=1.25)
  apply = functools.partial(mixture_of_experts.feed_forward_experts, in_EDF=into, out_EFD=out)
  return mixture_of_experts.mixture_of_experts(groups, gates, apply, capacity=capacity)


def nonlocal_block(form, *parameters):
  """A form of the non-local block, its 1x1 convolutions as one array of matrices."""

  def apply(x, matrices):
    theta, phi, g, z = matrices
    bound = dict(zip(parameters, (theta, phi, theta[0], phi[0]), strict=False))
    return image.nonlocal_block(x, functools.partial(form, **bound), g, z)

  return layer(apply, (4, WIDTH, WIDTH))


def shaw(n):
  return (2 * 16 + 1, 1, WIDTH)


def all_distances(n):
  return (n, 1, WIDTH)


KERNELS = ((3, 1, WIDTH, WIDTH), (3, 1, WIDTH, WIDTH))
WINDOWED = functools.partial(local.sliding_window_attention, left=WINDOW)
BLOCKS = {"block_width": WINDOW, "memory_width": WINDOW}
TILES = {"tile": (8, 16), "flange": (4, 8)}
GATES = lambda count: ((WIDTH, count * WIDTH), (WIDTH, count * WIDTH), (count * WIDTH,))
HALF = lambda function: lambda *arguments: function(*arguments)[0]

VARIANTS = [
  Variant("dot product", attention(dot_product_attention), 2, 2),
  Variant("additive", attention(additive.additive_attention, *[(1, WIDTH, 16)] * 2, (1, 16)), 2, 2),
  Variant("Shaw, gathered", attention(relative.shaw_gather_attention, shaw, shaw), 2, 2),
  Variant("Shaw, skewed", attention(relative.shaw_attention, shaw, shaw), 2, 2),
  Variant("Music Transformer", attention(relative.music_attention, all_distances), 2, 2),
  Variant("T5 bias", attention(t5, (32, 1)), 2, 2),
  Variant("ALiBi", attention(alibi), 2, 2),
  Variant("rotary", attention(rotary), 2, 2),
  Variant("graph, matrix of types", attention(graph_of_chain, (9, 1, WIDTH)), 2, 2),
  Variant("non-local, embedded Gaussian", nonlocal_block(image.embedded_gaussian, "theta_DK", "phi_DK"), 2, 2),
  Variant(
    "non-local, concatenation",
    nonlocal_block(image.concatenation, "theta_DK", "phi_DK", "query_weight_K", "key_weight_K"),
    2,
    2,
  ),
  Variant("compressed, stride 3", attention(memory_compressed.memory_compressed_attention, *KERNELS), 2, 1),
  Variant("compressed, 512 keys", attention(compressed_to_512, *KERNELS), 1, 1),
  Variant("local 1D", attention(functools.partial(local.local_attention_1d, **BLOCKS)), 1, 1),
  Variant("local 1D, masked", attention(functools.partial(local.masked_local_attention_1d, **BLOCKS)), 1, 1),
  Variant("local 2D", picture(functools.partial(local_2d.local_attention_2d, **TILES)), 1, 1),
  Variant("local 2D, masked", picture(functools.partial(local_2d.masked_local_attention_2d, **TILES)), 1, 1),
  Variant("sliding window", attention(WINDOWED), 1, 1),
  Variant("graph, list of edges", attention(graph_of_edges, (DEGREE, 1, WIDTH)), 1, 1),
  Variant("non-local, dot product", nonlocal_block(image.dot_product, "theta_DK", "phi_DK"), 1, 1),
  Variant("mixture of experts", layer(experts, (WIDTH, EXPERTS), (EXPERTS, WIDTH, 256), (EXPERTS, 256, WIDTH)), 1, 1),
  Variant("LSTM", layer(HALF(recurrent.lstm), *GATES(4)), 1, 1),
  Variant("GRU", layer(HALF(recurrent.gru), *GATES(3)), 1, 1),
  Variant("convolution", layer(convolution.conv1d, (3, WIDTH, WIDTH)), 1, 1),
  Variant("separable convolution", layer(convolution.separable_conv1d, (3, WIDTH), (WIDTH, WIDTH)), 1, 1),
]  # fmt: skip


def measure(quick, variants=None):
  variants = variants or (VARIANTS[::6] if quick else VARIANTS)
  lengths = [1024, 2048, 4096] if quick else [2**i for i in range(10, 17)]
  seconds, share = (0.05, 2e8) if quick else (1.5, 3e9)
  curves = {variant.name: _curve(variant, lengths, seconds, share) for variant in variants}
  rows = []
  for variant in variants:
    points = curves[variant.name]
    measured = [_slope(points, key) for key in ("seconds", "bytes")]
    rows.append(
      [
        f"{variant.name}, n to {_reach(points, 'seconds')}, {_reach(points, 'bytes')}",
        f"n^{variant.time}",
        f"{variant.time}, {variant.memory}",
        ", ".join("–" if slope is None else f"{slope:.2f}" for slope in measured),
      ]
    )
  return {"rows": rows, "curves": curves, "exponents": {v.name: [v.time, v.memory] for v in variants}}


def draw(results):
  curves, exponents = results["curves"], results["exponents"]
  colour = {
    name: LIGHT[{(2, 2): "orange", (2, 1): "gold", (1, 1): "blue"}[tuple(exponents[name])]] for name in curves
  }
  figure = Figure(figsize=(12, 0.9 + 0.21 * len(curves)), layout="constrained")
  time_axes, memory_axes, slope_axes = figure.subplots(1, 3)
  for axes, key, unit, label in (
    (time_axes, "seconds", 1, "seconds a run"),
    (memory_axes, "bytes", 1e6, "megabytes of temporaries and result"),
  ):
    for name, points in curves.items():
      lengths, values = _known(points, key)
      axes.loglog(lengths, np.array(values) / unit, ".-", color=colour[name], lw=1, alpha=0.8)
    ticks = [1024 * 4**i for i in range(4)]
    axes.set_xticks(ticks, [f"{n // 1024}k" for n in ticks])
    axes.minorticks_off()
    axes.set(xlabel="length n", ylabel=label)
  for name, color in (("n²", "orange"), ("n² in time, n in memory", "gold"), ("n", "blue")):
    time_axes.plot([], [], color=LIGHT[color], label=name)
  time_axes.legend(title="by the docstring")
  for y, (name, points) in enumerate(curves.items()):
    for key, style in (
      ("bytes", {"marker": "s", "mfc": "none", "ms": 8}),
      ("seconds", {"marker": "o", "ms": 5}),
    ):
      if (slope := _slope(points, key)) is not None:
        slope_axes.plot(slope, y, color=colour[name], **style)
  slope_axes.plot([], [], "o", color=LIGHT["muted"], label="time")
  slope_axes.plot([], [], "s", color=LIGHT["muted"], mfc="none", label="memory")
  slope_axes.set_yticks(range(len(curves)), curves)
  slope_axes.set(xlabel="fitted exponent of n", xlim=(0, 2.6), ylim=(len(curves) - 0.5, -0.5))
  slope_axes.legend(loc="upper left")
  return figure


def _known(points, key):
  """Lengths and values of the points that have a value."""
  known = [point for point in points if point[key] is not None]
  return [point["n"] for point in known], [point[key] for point in known]


def _reach(points, key):
  lengths, _ = _known(points, key)
  return f"{lengths[-1] // 1024}k" if lengths else "none"


def _slope(points, key):
  """The fitted exponent over the last three points, or None where there are fewer."""
  lengths, values = _known(points, key)
  return log_slope(lengths[-3:], values[-3:]) if len(values) > 2 else None


def _curve(variant, lengths, seconds, share):
  """Points {n, bytes, seconds} of one variant; seconds is None from where a run would break the budget."""
  points, running = [], True
  for n in lengths:
    before = points[-1] if points else None
    growth = n / before["n"] if before else None
    if before and before["bytes"] * growth**variant.memory > COMPILED_SHARE:
      break
    function, shapes = variant.make(n)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    compiled = jax.jit(function).lower(*arguments).compile()
    memory = compiled.memory_analysis()
    point = {"n": n, "bytes": memory.temp_size_in_bytes + memory.output_size_in_bytes, "seconds": None}
    running = running and point["bytes"] <= share
    running = running and not (before and before["seconds"] * growth**variant.time > seconds)
    if running:
      rng = np.random.default_rng(0)
      inputs = [jnp.asarray(rng.standard_normal(shape, np.float32) / shape[-1] ** 0.5) for shape in shapes]
      point["seconds"] = _fastest(compiled, inputs)
    points.append(point)
  return points


def _fastest(compiled, inputs):
  """The shortest of several runs: at least three, or what half a second has room for."""
  jax.block_until_ready(compiled(*inputs))
  start, times = time.perf_counter(), []
  while len(times) < 3 or (len(times) < 20 and time.perf_counter() - start < 0.5):
    before = time.perf_counter()
    jax.block_until_ready(compiled(*inputs))
    times.append(time.perf_counter() - before)
  return min(times)
