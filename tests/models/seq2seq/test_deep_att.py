"""Deep-Att against loops written from the paper."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.models.seq2seq import deep_att
from tests.models.seq2seq import cases


def recur(p, fed, state):
  """r: the state after a step whose gates got `fed` from below."""
  return cases.lstm({"recurrent_FA": p["recurrent_FA"], "bias_A": fed}, None, state)


def upper(f, h):
  return np.concatenate([f[: len(f) // 2], h])


def column(p, name, xs, reverse):
  zeros = np.zeros(6)
  for k in range(3):
    layer, state = p[f"{name}_{k}"], (zeros, zeros)
    f, h = [x @ layer["kernel_DA"] + layer["bias_A"] for x in xs], [None] * len(xs)
    for t in reversed(range(len(xs))) if reverse else range(len(xs)):
      state = recur(layer, f[t], state)
      h[t] = state[0]
    xs = [upper(*pair) for pair in zip(f, h, strict=True)]
    reverse = not reverse
  return h, f


def loops(p, source, inputs):
  xs = p["source_embedding"]["table_VD"][source]
  both = [*column(p, "encoder_first", xs, False), *column(p, "encoder_second", xs, True)]
  memory = [np.concatenate(parts) @ p["interface_UK"] for parts in zip(*both, strict=True)]
  a, zeros = p["cross_attention"], np.zeros(6)
  states, logits = [(zeros, zeros)] * 2, []
  for token in inputs:
    y = states[0][0]  # the first layer's output of the step before
    score = [a["score_K"] @ np.tanh(y @ a["query_FK"] + m @ a["key_UK"]) for m in memory]
    context = sum(w * m for w, m in zip(cases.softmax(np.array(score)), memory, strict=True))
    layer = p["decoder_0"]
    f = p["target_embedding"]["table_VD"][token] @ layer["kernel_DA"] + context @ layer["context_UA"] + layer["bias_A"]
    states[0] = recur(layer, f, states[0])
    layer, x = p["decoder_1"], upper(f, states[0][0])
    f = x @ layer["kernel_DA"] + layer["bias_A"]
    states[1] = recur(layer, f, states[1])
    logits.append(p["output"]["table_VD"] @ upper(f, states[1][0]))
  return np.array(logits)


def test_is_the_papers_equations():
  cases.assert_is_the_papers(deep_att, deep_att.small(), loops)


def test_one_device_equals_eight():
  cases.assert_one_device_equals_eight(deep_att, deep_att.small(), scale=0.5)


def test_the_fast_forward_path_is_linear():
  """With recurrent outputs that are 0 (gates shut by their biases) the output is affine in the embedding."""
  config = dataclasses.replace(deep_att.small(), num_encoder_layers=1, num_decoder_layers=3)
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), cases.random_parameters(deep_att, config))
  shut = np.where(np.arange(24) >= 18, -1e4, 0)  # o, which is not in the half that goes up
  for k in range(3):
    params[f"decoder_{k}"]["bias_A"] += shut
  params["cross_attention"]["query_FK"] *= 0  # the same context at every step
  batch = cases.rows(cases.PAIRS[:1], S=3, T=4)

  def outputs(scale):
    table = params["target_embedding"]["table_VD"] * scale
    changed = params | {"target_embedding": {"table_VD": table}}
    return deep_att.Model(config).apply({"params": changed}, batch, method="hidden")

  zero, one, two = outputs(0.0), outputs(1.0), outputs(2.0)
  assert np.abs(one - zero).max() > 0.1
  np.testing.assert_allclose(two - one, one - zero, rtol=1e-4, atol=1e-4)


def test_the_paper_attends_to_1280_units():
  config = deep_att.Config(vocab_size=30_000)
  assert (config.d_interface, config.d_attended) == (5120, 1280)


@pytest.mark.parametrize("field", ["num_encoder_layers", "num_decoder_layers"])
def test_one_layer_is_the_least(field):
  config = dataclasses.replace(deep_att.small(), **{field: 1})
  found = jax.tree.leaves(cases.random_parameters(deep_att, config))
  assert sum(leaf.size for leaf in found) == deep_att.parameter_count(config)
  with pytest.raises(ValueError, match=rf"model\.{field} must be at least 1, got 0"):
    dataclasses.replace(config, **{field: 0})
