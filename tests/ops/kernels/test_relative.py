"""The kernels of relative attention: equal to `ops/relative.py` in Pallas's interpreter, and compiled for TPUs.

No test runs one on a TPU.
"""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from attention_zoo.ops import adapters, masks, position_bias, relative
from attention_zoo.ops.dot_product import dot_product_attention
from attention_zoo.ops.kernels import relative as kernels
from attention_zoo.ops.kernels import relative_tpu
from attention_zoo.ops.variant import Sizes, make
from attention_zoo.training import aot, sharding
from tests.ops.against import assert_bfloat16, assert_close, normal

B, T, N, K, H = 2, 19, 2, 4, 3
W = 8
HOW = {"width": W, "interpret": True}
SEGMENTS = jnp.array([[1] * 7 + [2] * 9 + [0] * 3, [3] * T])
PACKED = {"query_segments_BT": SEGMENTS, "key_segments_BS": SEGMENTS}
MASK = masks.segments(SEGMENTS, SEGMENTS)
tpu_compile = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


def with_bias(bias, causal):
  """Dot-product attention with the bias as an array, as `adapters.biased` calls it; and the kernel's."""

  def old(q, k, v, *p):
    t, s = jnp.arange(q.shape[1]) + k.shape[1] - q.shape[1], jnp.arange(k.shape[1])
    mask = masks.causal(q.shape[1], k.shape[1], k.shape[1] - q.shape[1]) if causal else None
    return dot_product_attention(q, k, v, bias=bias(p, t, s), mask=mask)

  def new(q, k, v, *p, **how):
    return kernels.biased_attention(q, k, v, functools.partial(bias, p), causal=causal, **how)

  return old, new


def together(q, k, v, table, bias_NR, content, position):
  """A table of all heads, a bias of each, and the two of Transformer-XL."""
  bias = relative.skew(jnp.broadcast_to(bias_NR[None, :, None], (1, N, T, 2 * T - 1)), T)
  biases = {"content_bias_NK": content, "position_bias_NK": position}
  return relative.skewed_attention(q, k, v, table, bias=bias, mask=MASK, **biases)


def together_in_tiles(q, k, v, table, bias_NR, content, position, **how):
  biases = {"content_bias_NK": content, "position_bias_NK": position}
  return kernels.skewed_attention(q, k, v, table, bias_NR=bias_NR, **biases, **PACKED, **how)


T5 = with_bias(lambda p, t, s: position_bias.t5_bias(*p, t, s, max_distance=10), False)
ALIBI = with_bias(lambda p, t, s: position_bias.alibi_bias(N, t, s), True)
# name -> (function of arrays, the kernel's, number of queries, of keys, shapes of its parameters)
CASES = {
  "music": (relative.music_attention, kernels.music_attention, T, T, [(T + 2, N, K)]),
  "music, segments": (
    functools.partial(relative.music_attention, mask=MASK),
    functools.partial(kernels.music_attention, **PACKED),
    T,
    T,
    [(T, 1, K)],
  ),
  "all at once": (together, together_in_tiles, T, T, [(2 * T - 1, 1, K), (N, 2 * T - 1), (N, K), (N, K)]),
  "bidirectional, more queries": (
    relative.music_bidirectional_attention,
    kernels.music_bidirectional_attention,
    T,
    2 * W,
    [(2 * T - 1, N, K)],
  ),
  "shaw": (relative.shaw_attention, kernels.shaw_attention, T, T, [(7, 1, K), (7, 1, H)]),
  "shaw, causal": (
    functools.partial(relative.shaw_attention, mask=masks.causal(T)),
    functools.partial(kernels.shaw_attention, causal=True),
    T,
    T,
    [(49, N, K), (49, N, H)],
  ),
  "transformer_xl, memory": (
    relative.transformer_xl_attention,
    kernels.transformer_xl_attention,
    T - 8,
    T,
    [(T + 2, N, K), (N, K), (N, K)],
  ),
  "t5, more keys": (*T5, W, T, [(8, N)]),
  "alibi": (*ALIBI, T, T, []),
}


def arrays(name):
  _, _, queries, keys, shapes = CASES[name]
  return [jnp.float32(x) for x in normal(0, (B, queries, N, K), (B, keys, N, K), (B, keys, N, H), *shapes)]


@pytest.mark.parametrize(
  "name, gpu", [*((name, False) for name in CASES), *((name, True) for name in ("all at once", "shaw"))]
)
def test_equal_in_value_and_gradient(name, gpu):
  inputs = arrays(name)
  (gradient,) = normal(1, (B, inputs[0].shape[1], N, H))
  results = []
  for function in (CASES[name][0], functools.partial(CASES[name][1], gpu=gpu, **HOW)):

    @jax.jit
    def both(gradient, *inputs, function=function):
      out, vjp = jax.vjp(function, *inputs)
      return out, *vjp(gradient)

    results.append(both(jnp.float32(gradient), *inputs))
  for wanted, found in zip(*results, strict=True):
    assert jnp.abs(wanted).max() > 0.1
    assert_close(found, np.asarray(wanted, np.float64))


@pytest.mark.parametrize("width", [8, 24])
def test_skewing_in_a_tile(width):
  x_WU, y_WW = (jnp.float32(x) for x in normal(2, (width, 2 * width), (width, width)))
  i, j = np.indices((width, width))
  assert (jax.jit(relative_tpu.skew)(x_WU) == x_WU[i, j - i + width - 1]).all()
  wanted = np.zeros(x_WU.shape, np.float32)
  wanted[i, j - i + width - 1] = y_WW
  assert (jax.jit(relative_tpu.unskew)(y_WW) == wanted).all()


def test_bfloat16():
  q, k, v, table = (np.asarray(x, np.float64) for x in arrays("music"))
  oracle = lambda *x: np.asarray(relative.music_attention(*map(jnp.float32, x)), np.float64)
  assert_bfloat16(lambda *x: kernels.music_attention(*x, **HOW), oracle, q, k, v, table, bound=2e-2)
  half = [jax.ShapeDtypeStruct(x.shape, jnp.bfloat16) for x in (q, k, v, table)]
  loss = lambda *x: kernels.music_attention(*x, **HOW).astype(jnp.float32).sum()
  assert {x.dtype for x in jax.eval_shape(jax.grad(loss, range(4)), *half)} == {jnp.dtype(jnp.bfloat16)}


def test_devices_take_their_rows_and_heads():
  mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
  assert kernels.HEAD_AXIS in sharding.AXES and set(sharding.AXES) == {kernels.HEAD_AXIS, *sharding.BATCH_AXES}
  inputs = arrays("music, segments")
  old, new = CASES["music, segments"][:2]
  gradient = lambda function: jax.grad(lambda *x: jnp.sin(function(*x)).sum(), range(4))
  alone = jax.jit(gradient(old))(*inputs)
  with jax.set_mesh(mesh):
    together = jax.jit(gradient(functools.partial(new, **HOW)))(*inputs)
    assert not together[0].sharding.is_fully_replicated
  for a, b in zip(alone, together, strict=True):
    assert_close(b, np.asarray(a, np.float64))


# Memory


def largest(jaxpr):
  """Elements of the largest array outside of kernels, and the longest dimension of a tile inside of them."""
  size = tile = 0
  for eqn in jaxpr.eqns:
    size = max([size, *(x.aval.size for x in eqn.outvars)])
    if eqn.primitive.name == "pallas_call":
      blocks = [eqn.params["jaxpr"].invars, *(inner.outvars for inner in every_equation(eqn.params["jaxpr"]))]
      tile = max([tile, *(max(getattr(x.aval, "shape", None) or (0,)) for xs in blocks for x in xs)])
    else:
      found = [largest(inner) for inner in core.jaxprs_in_params(eqn.params)]
      size, tile = max([size, *(x[0] for x in found)]), max([tile, *(x[1] for x in found)])
  return size, tile


def every_equation(jaxpr):
  for eqn in jaxpr.eqns:
    yield eqn
    for inner in core.jaxprs_in_params(eqn.params):
      yield from every_equation(inner)


def test_no_array_of_all_pairs():
  L = 4096
  x, table = jax.ShapeDtypeStruct((1, L, 1, 8), jnp.float32), jax.ShapeDtypeStruct((9, 1, 8), jnp.float32)

  def traced(function):
    loss = lambda *x: function(*x).sum()
    return jax.make_jaxpr(jax.grad(loss, range(5)))(x, x, x, table, table).jaxpr

  assert largest(traced(relative.shaw_attention))[0] >= L * L
  size, tile = largest(traced(functools.partial(kernels.shaw_attention, width=128)))
  assert size < 10 * L * 8 and tile == 2 * 128


# The rule


def kernels_of(devices, function, *shapes, **mesh):
  """How many kernels are in the program traced for these devices."""
  mesh = mesh or {"data": len(devices)}
  grid = np.array(devices).reshape(*mesh.values())
  with jax.set_mesh(Mesh(grid, tuple(mesh), axis_types=(AxisType.Auto,) * len(mesh))):
    own = jax.jit(lambda *x: function(*x))  # what was traced before is not asked again
    jaxpr = own.trace(*(jax.ShapeDtypeStruct(*x) for x in shapes)).jaxpr
  return sum(eqn.primitive.name == "pallas_call" for eqn in every_equation(jaxpr.jaxpr))


@pytest.mark.tpu_compile
@tpu_compile
def test_who_runs_the_kernels(monkeypatch):
  tpus, _ = aot.topology_devices("v5e:2x2")
  L, half = kernels.WIDTH, jnp.bfloat16
  qkv, table = [((4, L, 2, 64), half)] * 3, ((L, 2, 64), half)
  music = relative.music_attention
  assert kernels_of(tpus, music, *qkv, table) == 1
  assert kernels_of(jax.devices()[:4], music, *qkv, table) == 0
  assert kernels_of(tpus, music, *qkv, table, data=2, tensor=2) == 1
  assert kernels_of(tpus, music, *[((2, L, 2, 64), half)] * 3, table) == 0  # four devices do not divide two rows
  assert kernels_of(tpus, music, *[((4, L - 1, 2, 64), half)] * 3, table) == 0
  assert kernels_of(tpus, functools.partial(music, return_weights=True), *qkv, table) == 0
  assert kernels_of(tpus, functools.partial(music, mask=masks.causal(L)), *qkv, table) == 0
  assert kernels_of(tpus, functools.partial(music, dropout=lambda x: x), *qkv, table) == 0
  assert kernels_of(tpus, music, *[(shape, jnp.float16) for shape, _ in qkv], table) == 0
  monkeypatch.setattr(kernels, "_device_kind", lambda: "TPU v4")
  assert kernels_of(tpus, music, *qkv, table) == 0


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["shaw", "music", "transformer_xl", "t5", "alibi"])
@pytest.mark.tpu_compile
@tpu_compile
def test_layers_run_the_kernels_by_their_segments(name, causal):
  tpus, _ = aot.topology_devices("v5e:2x2")
  L = kernels.WIDTH
  variant = make(name, Sizes(64, 2, 32, 32, max_length=L, causal=causal))
  p = {name: jnp.zeros(parameter.shape) for name, parameter in variant.parameters.items()}

  def attend(q, k, v, segments, mask, **options):
    return variant.attend(p, q, k, v, segments_BT=segments, mask=mask, **options)

  shapes = [((4, L, 2, 32), jnp.float32)] * 3 + [((4, L), jnp.int32), ((4, 1, L, L), jnp.bool_)]
  assert kernels_of(tpus, attend, *shapes) == 1
  assert kernels_of(tpus, functools.partial(attend, return_weights=True), *shapes) == 0
  assert kernels_of(tpus, functools.partial(attend, dropout=lambda x: x), *shapes) == 0
  assert kernels_of(jax.devices()[:4], attend, *shapes) == 0


@pytest.mark.parametrize(
  "name, causal",
  [("shaw", True), ("music", False), ("music", True), ("transformer_xl", False), ("t5", False), ("alibi", True)],
)
def test_layers_say_the_same_by_segments(name, causal, monkeypatch):
  """What each attention hands to the kernels gives what it computes by its mask."""

  class Interpreted:
    def __getattr__(self, name):
      return functools.partial(getattr(kernels, name), **HOW)

  variant = make(name, Sizes(N * K, N, K, H, max_length=T + 1, causal=causal))
  p = {name: jnp.float32(normal(3, parameter.shape)[0]) for name, parameter in variant.parameters.items()}
  q, k, v = arrays("music")[:3]

  def attend(q, k, v):
    return variant.attend(p, q, k, v, segments_BT=SEGMENTS, mask=MASK & masks.causal(T) if causal else MASK)

  wanted = jax.jit(attend)(q, k, v)
  monkeypatch.setattr(adapters, "relative_kernels", lambda *qkv, **options: Interpreted())
  found = jax.jit(lambda q, k, v: attend(q, k, v))(q, k, v)
  assert jnp.abs(wanted[0, -1]).max() == 0 < jnp.abs(wanted[0, 0]).max()
  assert_close(found, np.asarray(wanted, np.float64))


# Compiled, forward and backward


@pytest.mark.parametrize("name", ["music", "all at once", "shaw"])
def test_lowered_for_gpus(name):
  device = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu")
  inputs = [jax.ShapeDtypeStruct(x.shape, jnp.bfloat16) for x in arrays(name)]
  deep = [jax.ShapeDtypeStruct((*x.shape[:-1], 16), x.dtype) if x.shape[-1] in (K, H) else x for x in inputs]
  loss = lambda *x: CASES[name][1](*x).astype(jnp.float32).sum()
  with jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("x",), abstract_device=device)):
    gradients = jax.jit(jax.grad(loss, range(len(deep)))).trace(*deep)
    assert gradients.lower(lowering_platforms=("cuda",)).as_text().count("xla.gpu.triton") == 4
    with pytest.raises(ValueError, match="wanted 16, 32, 64 or 128"):
      jax.eval_shape(loss, *inputs)


def compiled(function, *shapes, devices=1, **mesh):
  """`memory_analysis` of the program that computes value and gradients on v5e chips."""
  tpus, _ = aot.topology_devices("v5e:2x2")
  mesh = mesh or {"data": 1}
  grid = np.array(tpus[:devices]).reshape(*mesh.values())
  mesh = Mesh(grid, tuple(mesh), axis_types=(AxisType.Auto,) * len(mesh))
  specs = [P("data") if len(shape) == 4 else P() for shape, _ in shapes]
  inputs = [
    jax.ShapeDtypeStruct(*x, sharding=NamedSharding(mesh, spec)) for x, spec in zip(shapes, specs, strict=True)
  ]
  floats = [i for i, (_, dtype) in enumerate(shapes) if dtype != jnp.int32]
  with jax.set_mesh(mesh), aot.without_cache():
    both = jax.value_and_grad(lambda *x: function(*x).astype(jnp.float32).sum(), floats)
    return jax.jit(both).trace(*inputs).lower().compile().memory_analysis()


@pytest.mark.tpu_compile
@tpu_compile
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_compiles_with_everything_there_is(dtype):
  """Two tables, two biases, segments, a ragged length, four chips."""
  L = 1000

  def function(q, k, v, keys, values, bias, segments):
    packed = {"query_segments_BT": segments, "key_segments_BS": segments}
    every = {"value_table_RNH": values, "bias_NR": bias, "causal": True} | packed
    return kernels.relative_attention(q, k, v, keys, position_BTNK=q + 1, **every)

  shapes = [((2, L, 4, 64), dtype)] * 3 + [((L, 1, 64), dtype)] * 2 + [((4, L), jnp.float32), ((2, L), jnp.int32)]
  assert compiled(function, *shapes, devices=4, data=2, fsdp=1, tensor=2).output_size_in_bytes > 0


@pytest.mark.tpu_compile
@tpu_compile
def test_memory_grows_with_the_length():
  """Twice the length, twice the memory; the compiler keeps what it can in a memory on the chip, 128 MiB, uncounted."""

  def needed(L):
    shapes = [(1, L, 8, 64)] * 3 + [(L, 8, 64), (8, 64), (8, 64)]
    found = compiled(relative.transformer_xl_attention, *((shape, jnp.bfloat16) for shape in shapes))
    return found.temp_size_in_bytes

  short, long = needed(16384), needed(32768)
  assert long < 2 * short + 2 * 128 * 2**20
  assert long < 32768 * 32768  # one byte for each pair of one head


def test_products_of_kernels_are_counted():
  L, heads, depth = 256, 3, 64
  shapes = [(1, L, heads, depth)] * 3 + [(2 * L - 1, heads, depth)]
  inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  traced = jax.make_jaxpr(functools.partial(kernels.music_bidirectional_attention, width=128))(*inputs)
  assert aot.matmul_flops(traced.jaxpr) == heads * 2 * L * L * depth * (1 + 2 + 1)  # of the table twice as much
