"""Global and local attention on stacked LSTMs against loops written from the paper."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.models.seq2seq import luong
from tests.models.seq2seq import cases


def attend(config, p, h, memory, t):
  """(context, weights), eq. 7 to 10."""
  a, S = p.get("cross_attention"), len(memory)
  if config.score == "dot":
    score = [h @ m for m in memory]
  elif config.score == "general":
    score = [h @ a["general_FK"] @ m for m in memory]
  else:
    score = [a["score_K"] @ np.tanh(h @ a["query_FK"] + m @ a["key_UK"]) for m in memory]
  score, factor, inside = np.array(score), np.ones(S), np.ones(S, bool)
  if config.attention != "global":
    place = min(t, S - 1)
    if config.attention == "local-p":
      place = S * cases.sigmoid(a["position_K"] @ np.tanh(h @ a["position_FK"]))
      factor = np.exp(-((np.arange(S) - place) ** 2) / (2 * (config.window / 2) ** 2))
    inside = np.abs(np.arange(S) - place) <= config.window
  weights = np.zeros(S)
  weights[inside] = cases.softmax(score[inside])
  weights *= factor
  return sum(w * m for w, m in zip(weights, memory, strict=True)), weights


def loops(config, p, source, inputs):
  xs, states = list(p["source_embedding"]["table_VD"][source]), []
  for i in range(config.num_layers):
    found = cases.read("lstm", p["encoder"][f"layer_{i}"], xs, reverse=config.reverse_source)
    states.append(found[0 if config.reverse_source else -1])
    xs = [state[0] for state in found]
  fed, logits = np.zeros(config.d_hidden), []
  for t, token in enumerate(inputs):
    y = p["target_embedding"]["table_VD"][token]
    extra = [fed] if config.input_feeding else []
    states[0] = cases.lstm(p["decoder_0"], y, states[0], extra)
    for i in range(1, config.num_layers):
      states[i] = cases.lstm(p[f"decoder_{i}"], None, states[i], [states[i - 1][0]])
    h = states[-1][0]
    context, _ = attend(config, p, h, xs, t)
    fed = np.tanh(np.concatenate([context, h]) @ p["combine_UF"])
    logits.append(p["output"]["table_VD"] @ fed)
  return np.array(logits)


@pytest.mark.parametrize(
  ("attention", "score", "feeding", "reverse"),
  [
    ("global", "dot", False, False),
    ("global", "concat", True, False),
    ("local-m", "general", True, True),
    ("local-p", "general", True, True),
    ("local-p", "concat", False, False),
  ],
)
def test_is_the_papers_equations(attention, score, feeding, reverse):
  config = dataclasses.replace(
    luong.small(), attention=attention, score=score, window=1, input_feeding=feeding, reverse_source=reverse
  )
  params = cases.random_parameters(luong, config)
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == luong.parameter_count(config)
  cases.assert_is_the_papers(luong, config, functools.partial(loops, config))


def test_one_device_equals_eight():
  config = dataclasses.replace(luong.small(), attention="local-p", score="concat", window=2)
  cases.assert_one_device_equals_eight(luong, config)


@pytest.mark.parametrize("attention", ["local-m", "local-p"])
def test_weights_to_look_at_are_distributions(attention):
  """Those of local-p are, too, though its Gaussian takes something away: pictures are drawn of nothing else."""
  config = dataclasses.replace(luong.small(), attention=attention, window=2)
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), cases.random_parameters(luong, config))
  batch = cases.rows(cases.PAIRS, S=10, T=8)
  _, seen = luong.Model(config).apply({"params": params}, batch, mutable=["intermediates"])
  sums_T = np.asarray(seen["intermediates"]["cross_attention"]["weights"][0])[0, 0].sum(-1)
  np.testing.assert_allclose(sums_T, batch["target_segments"][0] > 0, rtol=1e-5)


@pytest.mark.parametrize("feeding", [True, False])
def test_local_decoding_equals_teacher_forcing(feeding):
  """Positions count from the beginning of a sentence; two beams of one text."""
  config = dataclasses.replace(luong.small(), attention="local-p", window=2, input_feeding=feeding)
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), cases.random_parameters(luong, config))
  batch = cases.rows(cases.PAIRS[:1], cases.PAIRS[1:], S=7, T=4)
  forced = luong.Model(config).apply({"params": params}, batch)
  decoding = luong.decoding(config, params, batch, num_beams=2)
  cache, step = decoding.cache, jax.jit(decoding.step)
  for t in range(4):
    tokens = jnp.repeat(batch["inputs"][:, None, t : t + 1], 2, 1)
    logits, cache = step(tokens, jnp.int32(t), cache)
    for row, length in enumerate([4, 3]):
      if t < length:
        np.testing.assert_allclose(logits[row, :, 0], np.repeat(forced[row, None, t], 2, 0), rtol=2e-5, atol=2e-5)


def test_dropout_of_layers_is_drawn_for_every_position():
  """Each layer's input is dropped by the same rate, and without `train` nothing is."""
  config = dataclasses.replace(luong.small(), dropout=0.5)
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), cases.random_parameters(luong, config))
  batch, model = cases.rows(cases.PAIRS, S=10, T=8), luong.Model(config)
  run = jax.jit(lambda key: model.apply({"params": params}, batch, train=True, rngs={"dropout": key}))
  first, again, other = (np.asarray(run(jax.random.key(i))) for i in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  whole = np.asarray(model.apply({"params": params}, batch))
  assert np.abs(first - other).max() > 0.1 and np.abs(first - whole).max() > 0.1


def test_unknown_choices_are_told():
  for field, value in (("attention", "local"), ("score", "location")):
    with pytest.raises(ValueError, match=rf"model\.{field} must be one of .* got '{value}'"):
      dataclasses.replace(luong.small(), **{field: value})
