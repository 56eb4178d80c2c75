"""The flash attention kernels, interpreted, against the einsums; what they keep in memory; that they lower for GPUs."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import AbstractDevice, AbstractMesh, NamedSharding, PartitionSpec

from attention_zoo import hardware
from attention_zoo.models.translation import transformer
from attention_zoo.ops import dot_product, masks
from attention_zoo.ops.kernels import flash, flash_kernels
from attention_zoo.ops.kernels.flash import Blocks, Tile, flash_attention
from attention_zoo.ops.variant import Sizes
from tests.ops.against import assert_close, normal

pytestmark = pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")


def tiles(query, key):
  return Blocks(*[Tile(query, key, 4, 2)] * 3)


def draw(seed, B, T, S, N, K, H, dtype=jnp.float32):
  """q, k, v and a cotangent of the output."""
  return [jnp.asarray(x, dtype) for x in normal(seed, (B, T, N, K), (B, S, N, K), (B, S, N, H), (B, T, N, H))]


def value_and_gradients(function, *arrays):
  @jax.jit
  def run(q, k, v, cotangent):
    out, vjp = jax.vjp(function, q, k, v)
    return out, *vjp(cotangent)

  return run(*arrays)


def mask_of(T, causal, query_segments, key_segments):
  mask = masks.causal(T) if causal else True
  return mask if query_segments is None else masks.segments(query_segments, key_segments) & mask


# Two rows; several blocks of 16 in each, the last one ragged; the second row ends in padding.
ASCENDING = np.array([[1] * 3 + [2] * 20 + [3] * 14, [1] * 18 + [2] * 2 + [0] * 17])
NOTHING = np.array([[0] * 37, [5] * 37])
UNSORTED = np.random.default_rng(0).integers(-1, 4, (2, 37))
OTHERS = np.random.default_rng(1).integers(-1, 3, (2, 53))


@pytest.mark.parametrize(
  "causal, query_segments, key_segments, blocks",
  [
    (True, None, None, (16, 32)),
    (True, ASCENDING, ASCENDING, (32, 16)),
    (False, None, OTHERS, (16, 16)),
    (False, UNSORTED, OTHERS, (16, 16)),
    (False, NOTHING, OTHERS, (16, 32)),
  ],
  ids=["causal", "packed", "ragged", "any_order", "nothing"],
)
def test_equals_einsums(causal, query_segments, key_segments, blocks):
  """In value and gradient; the depths are no powers of two."""
  T, S = 37, 37 if key_segments is None else key_segments.shape[1]
  arrays = draw(2, 2, T, S, 2, 8, 24)
  segments = {"query_segments_BT": None, "key_segments_BS": None}
  if query_segments is not None:
    segments = {"query_segments_BT": jnp.asarray(query_segments), "key_segments_BS": jnp.asarray(key_segments)}
  mask = jnp.broadcast_to(mask_of(T, causal, *segments.values()), (2, 1, T, S))
  options = {"causal": causal, "blocks": tiles(*blocks), "interpret": True}
  found = value_and_gradients(functools.partial(flash_attention, **segments, **options), *arrays)
  wanted = value_and_gradients(functools.partial(dot_product.dot_product_attention, mask=mask), *arrays)
  for name, x, y in zip(("out", "dq", "dk", "dv"), found, wanted, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5, err_msg=name)
  blind, unseen = ~np.asarray(mask.any((1, 3))), ~np.asarray(mask.any((1, 2)))
  assert blind.any() == unseen.any() == (query_segments is not None)
  out, dq, dk, dv = map(np.asarray, found)
  assert not out[blind].any() and not dq[blind].any() and not dk[unseen].any() and not dv[unseen].any()


def test_blocks_that_nobody_sees_are_not_visited():
  """Poison there would come out if they were: 0 times NaN is NaN."""
  segments = jnp.repeat(jnp.array([[1, 2, 3, 0]]), 16, 1)
  static = flash_kernels.Static(64, 64, 16, 16, True, True, True)
  for by_key in (False, True):
    bounds = flash_kernels.bounds(static, Tile(16, 16, 4, 2), by_key, segments, segments)
    assert bounds[0, :3].tolist() == [[0, 1], [1, 2], [2, 3]]
    assert bounds[0, 3, 0] >= bounds[0, 3, 1]
  bounds = flash_kernels.bounds(static._replace(segmented=False), Tile(16, 32, 4, 2), False, None, None)
  assert bounds[0].tolist() == [[0, 1], [0, 1], [0, 2], [0, 2]]
  bounds = flash_kernels.bounds(static._replace(segmented=False), Tile(16, 32, 4, 2), True, None, None)
  assert bounds[0].tolist() == [[0, 4], [2, 4]]
  q, k, v, _ = draw(3, 1, 64, 64, 1, 16, 16)
  poisoned = v.at[:, 16:32].set(jnp.nan)
  out = flash_attention(
    q, k, poisoned, query_segments_BT=segments, key_segments_BS=segments, blocks=tiles(16, 16), interpret=True
  )
  assert jnp.isnan(out[:, 16:32]).all() and jnp.isfinite(out[:, :16]).all() and jnp.isfinite(out[:, 32:]).all()


def test_bfloat16():
  q, k, v, _ = draw(4, 2, 37, 37, 1, 16, 16, jnp.bfloat16)
  segments = jnp.asarray(ASCENDING)
  options = {"causal": True, "blocks": tiles(16, 16), "interpret": True}
  names = {"query_segments_BT": segments, "key_segments_BS": segments}
  out = jax.jit(functools.partial(flash_attention, **names, **options))(q, k, v)
  assert out.dtype == jnp.bfloat16
  mask = masks.segments(segments, segments) & masks.causal(37)
  wanted = dot_product.dot_product_attention(*(x.astype(jnp.float32) for x in (q, k, v)), mask=mask)
  assert_close(out, np.asarray(wanted, np.float64), 2e-2)


def sizes_in(jaxpr):
  for eqn in jaxpr.eqns:
    yield from (var.aval.size for var in eqn.outvars)
    for inner in jaxprs_in_params(eqn.params):
      yield from sizes_in(inner)


def test_no_array_of_queries_by_keys():
  """What is kept for the backward pass, and what is made on the way."""
  T, S = 256, 240
  segments = {"query_segments_BT": jnp.ones((1, T), jnp.int32), "key_segments_BS": jnp.ones((1, S), jnp.int32)}

  def run(attention, *arrays):
    out, vjp = jax.vjp(attention, *arrays)
    return vjp(out)

  arrays = [jax.ShapeDtypeStruct((1, n, 1, 16), jnp.float32) for n in (T, S, S)]
  ours = functools.partial(flash_attention, blocks=tiles(32, 32), interpret=True, **segments)
  assert max(sizes_in(jax.make_jaxpr(functools.partial(run, ours))(*arrays).jaxpr)) < T * S / 8
  plain = functools.partial(dot_product.dot_product_attention, mask=masks.segments(*segments.values()))
  assert max(sizes_in(jax.make_jaxpr(functools.partial(run, plain))(*arrays).jaxpr)) == T * S


def gpu_mesh():
  device = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu")
  return jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("x",), abstract_device=device))


def lowered(function, *arrays):
  return jax.jit(function).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize(
  "T, S, K, H, causal, segmented, dtype",
  [
    (256, 256, 64, 64, True, True, jnp.bfloat16),
    (300, 177, 48, 128, False, True, jnp.float16),
    (2100, 2100, 64, 64, True, False, jnp.bfloat16),
    (2048, 2100, 128, 128, False, False, jnp.float32),
  ],
)
def test_lowers_for_gpus(T, S, K, H, causal, segmented, dtype):
  def run(q, k, v, query_segments, key_segments):
    segments = {"query_segments_BT": query_segments, "key_segments_BS": key_segments} if segmented else {}
    out, vjp = jax.vjp(functools.partial(flash_attention, causal=causal, **segments), q, k, v)
    return vjp(out)

  shapes = (1, T, 2, K), (1, S, 2, K), (1, S, 2, H)
  arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
  with gpu_mesh():
    assert hardware.platform() == "gpu"
    text = lowered(run, *arrays, *(jax.ShapeDtypeStruct((1, n), jnp.int32) for n in (T, S)))
  assert text.count("@__gpu$xla.gpu.triton") == 3


def test_rule_for_layers(monkeypatch):
  """When the variant that layers take calls the kernel, and that it then gives the same, without the mask."""
  calls = []

  def interpreted(*arrays, **options):
    calls.append(options["causal"])
    return flash_attention(*arrays, blocks=tiles(16, 16), interpret=True, **options)

  monkeypatch.setattr(flash, "flash_attention", interpreted)
  q, k, v, _ = draw(5, 2, 37, 37, 1, 16, 16, jnp.bfloat16)
  segments, others = jnp.asarray(ASCENDING), jnp.asarray(UNSORTED)
  causal, cross = (dot_product.dot_product(Sizes(16, 1, 16, 16, causal=c)).attend for c in (True, False))
  own, memory = masks.segments(segments, segments) & masks.causal(37), masks.segments(segments, others)
  options = {"segments_BT": segments, "memory_segments_BS": others}
  wanted = causal({}, q, k, v, mask=own, segments_BT=segments), cross({}, q, k, v, mask=memory, **options)
  assert not calls  # a CPU
  monkeypatch.setattr(hardware, "platform", lambda: "gpu")
  found = causal({}, q, k, v, mask=None, segments_BT=segments), cross({}, q, k, v, mask=None, **options)
  assert calls == [True, False]
  for x, y in zip(found, wanted, strict=True):
    assert_close(x, np.asarray(y, np.float64), 3e-2)

  for more in ({"dropout": lambda w: w}, {"return_weights": True}):
    jax.eval_shape(lambda *x, m=more: causal({}, *x, mask=own, segments_BT=segments, **m), q, k, v)
  jax.eval_shape(lambda *x: causal({}, *x), q, k, v)  # whoever gives no segments may mean any mask
  for name in ("einsum", "cudnn"):
    with dot_product.implementation(name):
      jax.eval_shape(lambda *x: causal({}, *x, mask=own, segments_BT=segments), q, k, v)
  assert len(calls) == 2
  with dot_product.implementation("flash"):
    causal({}, q, k, v, mask=own, segments_BT=segments)
    assert len(calls) == 3 and not dot_product._allowed("cudnn")
  with pytest.raises(ValueError, match="must be"), dot_product.implementation("fast"):
    pass
  assert flash.supported(q, k, v)
  assert not flash.supported(*(x.astype(jnp.float32) for x in (q, k, v)))
  assert not flash.supported(q, k, v.astype(jnp.float16))
  assert not flash.supported(q[..., :8], k[..., :8], v)
  assert not flash.supported(q[:, :0], k, v)
  monkeypatch.undo()
  with gpu_mesh():
    assert flash.supported(q, k, v)


def test_a_model_makes_no_mask():
  """All attentions of a Transformer: packed rows of two lengths, forward and backward, as a GPU is given them."""
  sizes = {"num_heads": 2, "d_k": 16, "d_v": 16, "dtype": "bfloat16", "matmul_dtype": "bfloat16"}
  config = dataclasses.replace(transformer.small(), **sizes)
  T, S = 72, 88
  lengths = {name: S if name.startswith("source") else T for name in transformer.BATCH}
  batch = {name: jnp.zeros((2, length), jnp.int32) for name, length in lengths.items()}
  params = jax.eval_shape(lambda: transformer.Model(config).init(jax.random.key(0), batch))

  def gradient(params, batch):
    return jax.grad(lambda params: transformer.Model(config).apply(params, batch).astype(jnp.float32).sum())(params)

  texts = {}
  with gpu_mesh():
    for name in ("flash", "einsum"):
      with dot_product.implementation(name):
        texts[name] = lowered(lambda *x: gradient(*x), params, batch)
  made = {name: re.findall(f"<[0-9x]*(?:{T}x{T}|{S}x{S}|{T}x{S}|{S}x{T})x", text) for name, text in texts.items()}
  assert made["einsum"] and not made["flash"]
  calls = [text.count("@__gpu$xla.gpu.triton") for text in texts.values()]
  assert calls == [9, 0]  # three kernels for each attention: the encoder's, the decoder's, and that between them


def test_several_devices_take_their_own_rows_and_heads():
  """Without one of them reading what another has; the gradients too."""
  if jax.device_count() < 8:
    pytest.skip("needs eight devices")
  arrays = draw(7, 4, 20, 20, 2, 16, 16)
  segments = jnp.asarray(np.tile([[1] * 9 + [2] * 8 + [0] * 3], (4, 1)))

  def run(segments, *arrays):
    names = {"query_segments_BT": segments, "key_segments_BS": segments}
    options = {"causal": True, "blocks": tiles(16, 16), "interpret": True}
    return value_and_gradients(functools.partial(flash_attention, **names, **options), *arrays)

  alone = run(segments, *arrays)
  mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  with jax.set_mesh(mesh):
    rows, heads = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec("data", None, "tensor"))
    placed = jax.device_put(segments, rows), *(jax.device_put(x, heads) for x in arrays)
    compiled = jax.jit(run).lower(*placed).compile()
    split = compiled(*placed)
  assert not re.search("all-(gather|reduce|to-all)|collective-permute", compiled.as_text())
  for x, y in zip(split, alone, strict=True):
    assert x.sharding.is_equivalent_to(heads, 4)
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"causal": True}, "causal attention is of one sequence to itself, got 4 queries and 6 keys"),
    ({"query_segments_BT": jnp.ones((1, 4), jnp.int32)}, "give both or neither"),
    (
      {"query_segments_BT": jnp.ones((1, 4), jnp.int32), "key_segments_BS": jnp.ones((1, 4), jnp.int32)},
      r"key_segments_BS has shape \(1, 4\), wanted BS = \(1, 6\)",
    ),
  ],
)
def test_bad_input(change, message):
  q, k, v, _ = draw(6, 1, 4, 6, 1, 16, 16)
  with pytest.raises(ValueError, match=message):
    flash_attention(q, k, v, **change)
  with pytest.raises(ValueError, match="must have one type"):
    flash_attention(q, k, v.astype(jnp.bfloat16))
