"""The Transformer against the paper's equations, and what must hold of every variant of it."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from attention_zoo.layers.dropout import Dropout
from attention_zoo.models.translation import transformer
from tests.models.translation import reference_transformer as reference
from tests.models.translation.transformer_cases import (
  BOS,
  KEYS,
  MODELS,
  POST,
  TARGET_LENGTHS,
  Case,
  alone,
  assert_close,
  lay_out,
  packed,
  random_parameters,
  sentences,
)


@pytest.fixture(scope="module", params=MODELS)
def case(request):
  return Case(MODELS[request.param])


def test_finite(case):
  logits_BTV, gradient = case.logits_and_gradient(case.params, alone())
  assert logits_BTV.shape == (8, 7, 11) and logits_BTV.dtype == jnp.float32
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((logits_BTV, gradient)))
  assert all(leaf.dtype == jnp.float32 and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_parameters_are_counted(case):
  assert sum(leaf.size for leaf in jax.tree.leaves(case.params)) == transformer.parameter_count(case.config)


def test_outputs_hang_on_the_past_of_their_own_sentence_and_on_nothing_else(case):
  batch = packed(garbage=3)
  _, slopes = case.logits_and_jacobians(case.params, batch)
  segments_BT = np.asarray(batch["target_segments"])
  T = segments_BT.shape[1]
  real_BT1 = segments_BT[:, :, None] > 0
  sees_BTS = real_BT1 & (segments_BT[:, :, None] == np.asarray(batch["source_segments"])[:, None, :])
  past_BTT = real_BT1 & (segments_BT[:, :, None] == segments_BT[:, None, :]) & np.tri(T, dtype=bool)[None]
  past_BTT |= np.eye(T, dtype=bool)[None]  # padding hangs on itself: the residual connection
  np.testing.assert_array_equal(np.asarray(slopes["source"]).swapaxes(0, 1) != 0, sees_BTS)
  np.testing.assert_array_equal(np.asarray(slopes["target"]).swapaxes(0, 1) != 0, past_BTT)


def test_padding_and_companions_change_nothing(case):
  """Neither what stands in the padding, nor the other rows of the batch and their order."""
  order = [7, 2, 2, 0, 5, 4, 1, 3]
  shuffled = np.asarray(case.logits_and_gradient(case.params, alone(order, garbage=5))[0])
  for row, i in enumerate(order):
    real = slice(TARGET_LENGTHS[i])
    assert_close(shuffled[row, real], case.logits[i, real], case.tolerance)


def test_batch_size_and_length_change_nothing(case):
  pairs = sentences()
  longer = lay_out([[pair] for pair in pairs[:4]], 12, 14)
  logits_BTV = np.asarray(case.logits_and_jacobians(case.params, longer)[0])
  for i in range(4):
    real = slice(TARGET_LENGTHS[i])
    assert_close(logits_BTV[i, real], case.logits[i, real], case.tolerance)


def test_packing_changes_nothing(case):
  logits_BTV = np.asarray(case.logits_and_jacobians(case.params, packed(garbage=4))[0])
  for i in range(8):
    start = TARGET_LENGTHS[i - 1] if i % 2 else 0
    own = logits_BTV[i // 2, start : start + TARGET_LENGTHS[i]]
    assert_close(own, case.logits[i, : TARGET_LENGTHS[i]], case.tolerance)


def test_cached_decoding_equals_teacher_forcing(case):
  """Two sentences, four beams that die and multiply at every step; every hypothesis there ever was is compared."""
  B, J, T = 2, 4, 7
  rng = np.random.default_rng(2)
  batch = alone((3, 4))
  decoding = transformer.decoding(case.config, case.params, batch, num_beams=J)
  cache, step = decoding.grow(decoding.cache, T), jax.jit(decoding.step)
  inputs_BJT = np.zeros((B, J, T), np.int32)
  forced = {key: jnp.repeat(batch[key], J, axis=0) for key in KEYS}
  forced["target_segments"] = jnp.ones((B * J, T), jnp.int32)
  forced["target_positions"] = jnp.broadcast_to(jnp.arange(T), (B * J, T))
  for t in range(T):
    inputs_BJT[:, :, t] = rng.integers(2, 11, (B, J)) if t else BOS
    logits_BJTV, cache = step(inputs_BJT[:, :, t, None], jnp.int32(t), cache)
    forced["inputs"] = jnp.asarray(inputs_BJT.reshape(-1, T))
    wanted = case.logits_and_gradient(case.params, forced)[0][:, t].reshape(B, J, -1)
    assert logits_BJTV.dtype == jnp.float32
    assert_close(logits_BJTV[:, :, 0], wanted, case.tolerance)
    parents_BJ = rng.integers(0, J, (B, J))
    cache = decoding.reorder(cache, parents_BJ)
    inputs_BJT = np.take_along_axis(inputs_BJT, parents_BJ[..., None], 1)


def test_jit_equals_no_jit(case):
  assert_close(case.unjitted[0], case.logits, case.tolerance)


def test_one_device_equals_eight(case):
  mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
  params = jax.device_put(case.params, NamedSharding(mesh, PartitionSpec()))
  batch = jax.device_put(alone(), NamedSharding(mesh, PartitionSpec("data")))
  if case.config == POST:
    many, one = (case.logits_and_gradient(*place) for place in ((params, batch), (case.params, alone())))
  else:
    many, one = (jax.jit(case.apply)(params, batch),), (case.logits,)
  assert len(many[0].sharding.device_set) == 8
  jax.tree.map(functools.partial(assert_close, tolerance=case.tolerance), many, one)


# Against the paper's equations


def in_float64(params):
  return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def test_equals_the_papers_equations(case):
  if case.config.residual != "post" or not case.exact:
    pytest.skip("the reference has post-LN and float64")
  for i, (source, inputs) in enumerate(sentences()):
    wanted = reference.transformer(in_float64(case.params), source, inputs)
    assert_close(case.logits[i, : len(inputs)], wanted, 1e-5)


@pytest.mark.parametrize("attention_dropout", [0.0, 0.4])
def test_dropout_stands_where_the_paper_has_it(attention_dropout):
  """The same masks in both, taken in the order of computation: a missing, moved or extra one shows in the logits."""
  case = Case(dataclasses.replace(POST, dropout=0.3, attention_dropout=attention_dropout))
  rng = np.random.default_rng(3)
  masks = []

  def mask(next_function, args, kwargs, context):
    if not isinstance(context.module, Dropout):
      return next_function(*args, **kwargs)
    (x, train) = (*args, *kwargs.values())
    assert train is True
    assert context.module.rate == (0.3 if x.ndim == 3 else 0.4)
    masks.append(rng.choice([0.0, 0.5, 2.0], x.shape))
    return x * jnp.asarray(masks[-1], x.dtype)

  source, inputs = sentences()[3]
  with jax.disable_jit(), nn.intercept_methods(mask):  # under jit, layers that are alike run once
    logits_BTV = case.model.apply({"params": case.params}, lay_out([[(source, inputs)]], 5, 7), train=True)
  unused = iter(masks)

  def drop(x):
    factors = next(unused, None)
    assert factors is not None and factors[0].shape == x.shape
    return x * factors[0]

  options = {"drop_weights": drop} if attention_dropout else {}
  wanted = reference.transformer(in_float64(case.params), source, inputs, drop=drop, **options)
  assert next(unused, None) is None
  assert_close(logits_BTV[0], wanted, 1e-5)


def test_dropout_is_off_without_train_and_a_function_of_its_key():
  case = Case(POST)
  model = transformer.Transformer(dataclasses.replace(POST, dropout=0.3))
  np.testing.assert_array_equal(jax.jit(model.apply)({"params": case.params}, alone()), case.logits)
  train = jax.jit(lambda key: model.apply({"params": case.params}, alone(), train=True, rngs={"dropout": key}))
  first, again, other = (np.asarray(train(jax.random.key(i))) for i in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 0.1 and np.abs(first - case.logits).max() > 0.1


def test_remat_keeps_less_and_changes_no_gradient():
  params, batch = Case(POST).params, packed()

  def pull_back(remat):
    model = transformer.Transformer(dataclasses.replace(POST, dropout=0.3, remat=remat))
    apply = functools.partial(model.apply, batch=batch, train=True, rngs={"dropout": jax.random.key(0)})
    return jax.jit(lambda params: jax.vjp(lambda params: apply({"params": params}), params))(params)

  (plain_BTV, plain), (remat_BTV, remat) = pull_back(False), pull_back(True)
  assert_close(remat_BTV, plain_BTV, 1e-5)
  gradient = [jax.jit(lambda pull: pull(jnp.cos(plain_BTV)))(pull) for pull in (plain, remat)]
  jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), *gradient)
  kept = [sum(leaf.nbytes for leaf in jax.tree.leaves(pull)) for pull in (plain, remat)]
  assert kept[1] < kept[0] / 2, kept


def test_weights_that_are_sown_made_the_output(case):
  """They are a distribution over exactly the keys that may be seen,
  and value and output kernels make the rest of it."""
  if not case.exact:
    pytest.skip("what is rounded in between is not the sum of its parts")
  batch = alone()
  _, intermediates, seen = case.unjitted
  assert len(seen) == case.config.num_encoder_layers + 2 * case.config.num_decoder_layers
  sides = {key: np.asarray(batch[f"{key}_segments"]) for key in ("source", "target")}
  for path, (memory, out) in seen.items():
    stack, _, kind = path
    queries = sides["source" if stack == "encoder" else "target"]
    keys = sides["target" if (stack, kind) == ("decoder", "self_attention") else "source"]
    allowed_BTS = (queries[:, :, None] > 0) & (queries[:, :, None] == keys[:, None, :])
    if (stack, kind) == ("decoder", "self_attention"):
      allowed_BTS &= np.tri(7, dtype=bool)[None]
    params, sown = case.params, intermediates
    for name in path:
      params, sown = params[name], sown[name]
    (weights_BNTS,) = sown["weights"]
    np.testing.assert_array_equal(
      np.asarray(weights_BNTS) > 0, np.broadcast_to(allowed_BTS[:, None], weights_BNTS.shape)
    )
    assert_close(weights_BNTS.sum(-1), np.broadcast_to(allowed_BTS.any(-1)[:, None], weights_BNTS.shape[:3]), 1e-6)
    value, output = params["value"]["kernel_DNH"], params["output"]["kernel_NHD"]
    assert_close(out, np.einsum("BNTS,BSD,DNH,NHE->BTE", weights_BNTS, memory, value, output), 1e-5)


# Positions, scales and first values


def test_learned_positions_end_with_a_clear_message():
  model = transformer.Transformer(dataclasses.replace(POST, positions="learned", max_length=8))
  run = lambda S, T: jax.eval_shape(lambda: model.init(jax.random.key(0), lay_out([], S, T)))
  run(8, 8)
  for S, T in ((9, 8), (8, 9)):
    with pytest.raises(
      ValueError, match=r"end at model\.max_length = 8, but the sequence may be 9 long.*raise|shorten"
    ):
      run(S, T)

  def decode(max_length):
    decoding = transformer.decoding(model.config, random_parameters(model), alone(), num_beams=2)
    assert decoding.max_length == 8
    return decoding.step(jnp.ones((8, 2, 1), jnp.int32), 0, decoding.grow(decoding.cache, max_length))

  jax.eval_shape(lambda: decode(8))
  with pytest.raises(ValueError, match=r"model\.max_length = 8.*9 long"):
    jax.eval_shape(lambda: decode(9))


@pytest.mark.parametrize("field", ["residual", "positions", "position_mode", "dtype", "matmul_dtype"])
def test_unknown_choices_are_named(field):
  with pytest.raises(ValueError, match=rf"model\.{field} must be one of .*, got 'other'"):
    dataclasses.replace(POST, **{field: "other"})


def test_embeddings_are_scaled_by_the_root_of_d_model(case):
  tokens, zeros = jnp.arange(11)[None], jnp.zeros((1, 11), jnp.int32)
  out, _ = case.model.apply({"params": case.params}, tokens, zeros, "target", 11, method="embed")
  if case.config.positions == "learned":
    first = case.params["target_positions"]["table_TD"][0]
  else:
    first = np.tile([0.0, 1.0], 4)  # the sine and the cosine of 0
  assert out.dtype == case.config.dtype
  wanted = np.asarray(case.params["embedding"]["table_VD"]) * np.sqrt(8) + np.asarray(first)[None]
  assert_close(out[0], wanted, 1e-6 if out.dtype == jnp.float32 else 2e-2)


def test_first_values():
  """Embeddings: deviation d_model^-0.5. Kernels: uniform within sqrt(6 / (fan_in + fan_out)) of the flat matrix."""
  config = transformer.Config(
    500, d_model=32, d_ff=48, num_heads=4, d_k=6, d_v=20, num_encoder_layers=1, num_decoder_layers=1, residual="pre",
    positions="learned", max_length=400,
  )  # fmt: skip
  params = jax.jit(transformer.Transformer(config).init)(jax.random.key(0), alone())["params"]
  fans = {"query": 32 + 4 * 6, "key": 32 + 4 * 6, "value": 32 + 4 * 20, "output": 4 * 20 + 32, "wi": 80, "wo": 80}
  checked = []
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    owner, leaf_name = name.split("/")[-2:]
    kind = leaf_name.partition("_")[0]
    checked.append(kind)
    if kind == "table":
      assert abs(leaf.std() * 32**0.5 - 1) < 0.03 and abs(leaf.mean()) < 0.01, name
    elif kind == "kernel":
      bound = np.sqrt(6 / fans[owner])
      assert 0.97 * bound < np.abs(leaf).max() <= bound * (1 + 1e-6), name
      assert abs(leaf.std() / (bound / np.sqrt(3)) - 1) < 0.06, name
    else:
      assert (leaf == (kind == "scale")).all(), name
  assert {kind: checked.count(kind) for kind in checked} == {"table": 3, "kernel": 16, "bias": 11, "scale": 7}
