"""The bidirectional language model, and what taggers take from it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.data import words
from attention_zoo.layers import characters
from attention_zoo.models.pretraining import bilm, elmo, taglm
from tests.ops.against import assert_close, assert_same_on_eight_devices, softmax

B, T, W = 2, 5, 5
CONFIG = dataclasses.replace(bilm.small(), num_highway=2)


def random_like(shapes):
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), jnp.float32), shapes)


def batch_of(characters_BTW, segments_BT=None):
  segments_BT = np.ones(characters_BTW.shape[:2], int) if segments_BT is None else np.asarray(segments_BT)
  positions = np.arange(T)[None] - np.argmax(segments_BT[:, :, None] == segments_BT[:, None], -1)
  found = {"characters": characters_BTW, "segments": segments_BT, "positions": positions}
  return {name: jnp.asarray(x, jnp.int32) for name, x in found.items()}


def draw(seed=1, rows=B):
  return np.random.default_rng(seed).integers(1, 257, (rows, T, W))


@pytest.fixture(scope="module")
def made():
  """(parameters, jitted hidden of a batch)."""
  model = bilm.Model(CONFIG)
  params = random_like(jax.eval_shape(model.init, jax.random.key(0), batch_of(draw()))["params"])
  return params, jax.jit(lambda params, batch: model.apply({"params": params}, batch, method="hidden"))


def test_the_marks_of_words_are_those_of_the_data():
  assert characters.NUM_CHARACTERS == words.NUM_CHARACTERS
  np.testing.assert_array_equal(characters.begin_of_text(6), words.special(words.BEGIN_TEXT, 6))
  assert (characters.FILL, characters.END_TEXT) == (words.FILL, words.END_TEXT)


def test_elmos_size():
  """93.6 million, as its authors print it: all but the output, with 4,096 units projected to 512."""
  assert bilm.count_core(bilm.Config(vocab_size=1)) == 93_600_864


def test_each_direction_sees_its_own_side(made):
  params, hidden = made
  characters_BTW = draw()
  first = [np.asarray(x) for x in hidden(params, batch_of(characters_BTW))]
  for t in range(T):
    other_BTW = characters_BTW.copy()
    other_BTW[:, t] = draw(seed=t + 9)[:, t]
    forward_T, backward_T = (
      np.any(np.asarray(x) != y, (0, 2)) for x, y in zip(hidden(params, batch_of(other_BTW)), first, strict=True)
    )
    assert not forward_T[: t + 1].any() and forward_T[t + 1 :].all()  # a word is predicted from those before it
    assert backward_T[: t + 1].all() and not backward_T[t + 1 :].any()  # and the one before from those behind


def test_documents_that_share_a_row_do_not_see_each_other(made):
  params, hidden = made
  characters_BTW = draw()
  packed = hidden(params, batch_of(characters_BTW, [[1, 1, 2, 2, 2]] * B))
  second = hidden(params, batch_of(np.roll(characters_BTW, -2, 1), [[1, 1, 1, 0, 0]] * B))
  for x, alone in zip(packed, second, strict=True):
    assert_close(x[:, 2:], np.asarray(alone)[:, :3], 2e-5)


def test_features_are_the_states_that_predict(made):
  """Of a row <s> w .. </s>: forward at w the state that predicts the next word, backward the one before."""
  params, hidden = made
  begin, end = (words.special(mark, W) for mark in (words.BEGIN_TEXT, words.END_TEXT))
  text_BTW = draw()
  text_BTW[:, -1] = end
  forward_BTD, backward_BTD = hidden(params, batch_of(text_BTW))
  row_BTW = np.concatenate([np.broadcast_to(begin, (B, 1, W)), text_BTW], 1)
  core = bilm.Core(CONFIG)
  layers = core.apply({"params": params["core"]}, jnp.asarray(row_BTW), jnp.ones((B, T + 1), int))
  assert len(layers) == 3 and all(x_BTU.shape == (B, T + 1, 2 * CONFIG.d_model) for x_BTU in layers)
  D = CONFIG.d_model
  assert_close(layers[-1][:, :-1, :D], np.asarray(forward_BTD), 2e-5)
  assert_close(layers[-1][:, 1:, D:], np.asarray(backward_BTD), 2e-5)
  np.testing.assert_array_equal(layers[0][..., :D], layers[0][..., D:])


def test_the_vector_of_a_word_is_kims(made):
  """In float64, from the equations: filters, their largest values, highways, a projection."""
  params, _ = made
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params["core"])
  word = draw()[0, 0]
  x_WD = p["spelling"]["characters"]["table_VD"][word]
  found = []
  for i, (width, number) in enumerate(CONFIG.filters):
    kernel, bias = p["spelling"][f"filters_{i}_kernel_WDF"], p["spelling"][f"filters_{i}_bias_F"]
    places = [[np.sum(x_WD[w : w + width] * kernel[:, :, f]) for w in range(W - width + 1)] for f in range(number)]
    found += [max(np.maximum(x + bias[f], 0) for x in places[f]) for f in range(number)]
  x_F = np.array(found)
  F = len(x_F)
  for i in range(CONFIG.num_highway):
    y = x_F @ p[f"highway_{i}"]["kernel_FA"] + p[f"highway_{i}"]["bias_A"]
    gate = 1 / (1 + np.exp(-y[F:]))
    x_F = gate * np.maximum(y[:F], 0) + (1 - gate) * x_F
  wanted_D = x_F @ p["projection"]["kernel_FD"] + p["projection"]["bias_D"]
  got = bilm.Core(CONFIG).apply({"params": params["core"]}, jnp.asarray(draw()), method="words")
  assert_close(got[0, 0], wanted_D)


def test_bad_configs():
  with pytest.raises(ValueError, match="filter over 7 characters, and model.word_length = 5"):
    bilm.Config(vocab_size=9, word_length=5)
  for filters in ((), ((1, 0),), (3,), ((1, 2, 3),), (("1", 2),)):
    with pytest.raises(ValueError, match=r"model.filters must be pairs \(width, number\)"):
      bilm.Config(vocab_size=9, filters=filters)
  with pytest.raises(ValueError, match="num_layers must be at least 2, got 1"):
    taglm.Config(vocab_size=9, num_layers=1)


# Taggers


def tagger(module, **fields):
  """(parameters, jitted hidden and its gradient)."""
  config = dataclasses.replace(module.small(), **fields)
  model = module.Model(config)
  batch = batch_of(draw()) | {"inputs": jnp.arange(B * T, dtype=jnp.int32).reshape(B, T)}
  batch = {name: batch[name] for name in module.BATCH}
  params = random_like(jax.eval_shape(model.init, jax.random.key(0), batch)["params"])
  hidden = jax.jit(lambda params: model.apply({"params": params}, batch, method="hidden"))
  return config, params, batch, hidden


def test_elmo_is_a_weighted_sum():
  layers = [np.random.default_rng(i).normal(0, 1, (B, T, 4)) for i in range(3)]
  params = {"mix_L": jnp.array([0.5, -1.0, 2.0]), "gamma_1": jnp.array([1.5])}
  got = elmo.ScalarMix(3).apply({"params": params}, [jnp.asarray(x, jnp.float32) for x in layers])
  s = softmax(np.array([0.5, -1.0, 2.0]))
  assert_close(got, 1.5 * sum(s_j * h for s_j, h in zip(s, layers, strict=True)))
  first = elmo.ScalarMix(3).init(jax.random.key(0), [jnp.ones((B, T, 4))] * 3)["params"]
  got = elmo.ScalarMix(3).apply({"params": first}, [jnp.asarray(x, jnp.float32) for x in layers])
  assert_close(got, np.mean(layers, 0))


@pytest.mark.parametrize("module", [elmo, taglm])
def test_a_frozen_language_model_gets_no_gradient(module):
  config, params, _, hidden = tagger(module, lm_tuned=False)
  gradients = jax.grad(lambda params: jnp.square(hidden(params)).sum())(params)
  for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
    name = "/".join(key.key for key in path)
    frozen = name.startswith("bilm/")
    assert gradient.any() != frozen, name
    assert module.learning_rate_factor(config, name, 0) == (0.0 if frozen else 1.0)
    assert module.learning_rate_factor(dataclasses.replace(config, lm_tuned=True), name, 0) == 1.0


def test_taglm_reads_the_language_model_above_its_first_layer():
  """h_{k,1} = [forward; backward; h^LM], put together by hand from the parts."""
  config, params, batch, hidden = tagger(taglm, num_layers=2)
  bound = taglm.Model(config).bind({"params": params})
  x_BTU = bound.words(batch["inputs"], batch["characters"])
  lm_BTU = bound.bilm(batch["characters"], batch["segments"])[-1]
  first, second = bound.layers.layers
  h_BTU = jnp.concatenate([*first(x_BTU, batch["segments"]), lm_BTU], -1)
  assert_close(hidden(params), np.asarray(jnp.concatenate(second(h_BTU, batch["segments"]), -1)))


def test_eight_devices_are_one():
  config, params, _, _ = tagger(elmo)
  inputs_BT, characters_BTW = jnp.arange(8 * T).reshape(8, T) % config.vocab_size, jnp.asarray(draw(rows=8))

  def hidden(inputs_BT, characters_BTW):
    batch = {"inputs": inputs_BT, "characters": characters_BTW, "segments": jnp.ones_like(inputs_BT)}
    return elmo.Model(config).apply({"params": params}, batch, method="hidden")

  assert_same_on_eight_devices(hidden, [inputs_BT, characters_BTW], [("all",), ("all",)], ("all",))
