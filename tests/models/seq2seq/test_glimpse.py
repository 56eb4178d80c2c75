"""The glimpse model against loops, and where its gradients end."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.models.seq2seq import glimpse
from tests.models.seq2seq import cases

WHOLE = dataclasses.replace(glimpse.small(), glimpse=100)


def attend(p, h, memory):
  weights = cases.softmax(np.array([h @ p["general_FK"] @ m for m in memory]))
  return sum(w * m for w, m in zip(weights, memory, strict=True))


def loops(config, p, source, inputs):
  xs, states = list(p["source_embedding"]["table_VD"][source]), []
  for i in range(config.num_layers):
    found = cases.read("lstm", p["encoder"][f"layer_{i}"], xs)
    states.append(found[-1])
    xs = [state[0] for state in found]
  history, logits = [], []
  for token in inputs:
    x = p["target_embedding"]["table_VD"][token]
    for i in range(config.num_layers):
      states[i] = cases.lstm(p["decoder"]["stack"][f"layer_{i}"], x, states[i])
      x = states[i][0]
    history.append(x)
    both = attend(p["cross_attention"], x, xs), attend(p["decoder"]["attention"], x, history)
    logits.append(p["output"]["table_VD"] @ np.tanh(np.concatenate([*both, x]) @ p["combine_UF"]))
  return np.array(logits)


def test_is_the_equations_of_its_docstring():
  cases.assert_is_the_papers(glimpse, WHOLE, functools.partial(loops, WHOLE))


def test_one_device_equals_eight():
  cases.assert_one_device_equals_eight(glimpse, glimpse.small())


def gradient(config, params, batch, positions):
  """Of the logits at these target positions, weighted at random, by the parameters."""
  weights = jnp.asarray(np.random.default_rng(1).normal(size=(config.vocab_size,)), jnp.float32)

  def value(params):
    return (glimpse.Model(config).apply({"params": params}, batch)[0, positions] * weights[None]).sum()

  return jax.jit(jax.grad(value))(params)


def case(inputs):
  """Parameters and one pair whose target tokens all differ, so that each has a row of the embedding of its own."""
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), cases.random_parameters(glimpse, WHOLE))
  return params, cases.rows([([5, 7, 2], inputs)], S=4, T=len(inputs))


def test_glimpses_do_not_change_what_is_computed():
  params, batch = case([1, 4, 9, 3, 8, 6])
  found = [
    glimpse.Model(dataclasses.replace(WHOLE, glimpse=length)).apply({"params": params}, batch)
    for length in (1, 2, 3, 100)
  ]
  for other in found[:3]:
    np.testing.assert_allclose(other, found[3], rtol=1e-6, atol=1e-6)


def test_gradients_end_where_a_glimpse_begins():
  inputs = [1, 4, 9, 3, 8, 6, 10]
  params, batch = case(inputs)
  both = [gradient(config, params, batch, jnp.array([5])) for config in (WHOLE, dataclasses.replace(WHOLE, glimpse=3))]
  whole, parted = (found["target_embedding"]["table_VD"] for found in both)
  for t, token in enumerate(inputs):
    assert whole[token].any() == (t <= 5)
    assert parted[token].any() == (3 <= t <= 5), t


def test_a_later_glimpse_learns_as_if_all_before_it_were_constants():
  """Its gradients are those of a model whose decoder is handed the state and the history as arrays."""
  inputs, config = [1, 4, 9, 3, 8, 6], dataclasses.replace(WHOLE, glimpse=3)
  params, batch = case(inputs)
  weights = jnp.asarray(np.random.default_rng(1).normal(size=(config.vocab_size,)), jnp.float32)
  found = gradient(config, params, batch, jnp.array([3, 4, 5]))

  def steps(params, state, history, tokens, first):
    """Decoding, a position after the other, of the parameters' model."""
    model = glimpse.Model(config)
    run = functools.partial(model.apply, {"params": params})
    source = batch["source"][:1], batch["source_segments"][:1], None
    read, (begun, _) = run(*source, method="start")
    state = begun if state is None else state
    total = 0.0
    for t, token in enumerate(tokens, first):
      logits, (state, history), _ = run(jnp.full((1, 1, 1), token), t, read, (state, history), method="step")
      total += (logits[0, 0, 0] * weights).sum()
    return total, (state, history)

  room = jnp.zeros((1, 1, 6, config.d_hidden))
  _, (state, history) = steps(params, None, room, inputs[:3], 0)
  wanted = jax.grad(lambda params: steps(params, state, history, inputs[3:], 3)[0])(params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), found, wanted)


def test_the_history_is_each_beams_own():
  """Two beams that have drawn different tokens, changed over: the next logits follow them."""
  config = glimpse.small()
  params, batch = case([1, 4, 9])
  decoding = glimpse.decoding(config, params, batch, num_beams=2)
  _, cache = decoding.step(jnp.array([[[4], [7]]]), jnp.int32(0), decoding.grow(decoding.cache, 3))
  swapped = jax.tree.map(lambda x: x[:, ::-1], cache)
  logits, _ = decoding.step(jnp.full((1, 2, 1), 5), jnp.int32(1), cache)
  other, _ = decoding.step(jnp.full((1, 2, 1), 5), jnp.int32(1), swapped)
  assert np.abs(logits[:, 0] - logits[:, 1]).max() > 1e-3
  np.testing.assert_allclose(other, logits[:, ::-1], rtol=1e-5, atol=1e-6)


def test_parameters_of_other_sizes_are_counted():
  config = dataclasses.replace(glimpse.small(), num_layers=3, d_hidden=5)
  found = jax.tree.leaves(cases.random_parameters(glimpse, config))
  assert sum(leaf.size for leaf in found) == glimpse.parameter_count(config)


def test_a_glimpse_has_a_token():
  with pytest.raises(ValueError, match=r"model\.glimpse must be at least 1, got 0"):
    dataclasses.replace(glimpse.small(), glimpse=0)
