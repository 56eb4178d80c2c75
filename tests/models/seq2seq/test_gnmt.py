"""GNMT against loops written from the paper."""

import dataclasses

import jax
import numpy as np
import pytest

from attention_zoo.models.seq2seq import gnmt
from tests.models.seq2seq import cases


def loops(p, source, inputs):
  xs = p["source_embedding"]["table_VD"][source]
  both = [cases.read("lstm", p["encoder_0"][name], xs, reverse=name == "backward") for name in ("forward", "backward")]
  xs = [np.concatenate([a[0], b[0]]) for a, b in zip(*both, strict=True)]
  for i in (1, 2, 3):
    outputs = [state[0] for state in cases.read("lstm", p[f"encoder_{i}"], xs)]
    xs = [h + x for h, x in zip(outputs, xs, strict=True)] if i >= 2 else outputs
  a, zeros = p["cross_attention"], np.zeros(p["decoder_0"]["recurrent_FA"].shape[0])
  states, logits = [(zeros, zeros)] * 4, []
  for token in inputs:
    y = states[0][0]  # the first layer's output of the step before
    score = [a["score_K"] @ np.tanh(y @ a["query_FK"] + x @ a["key_UK"]) for x in xs]
    context = sum(w * x for w, x in zip(cases.softmax(np.array(score)), xs, strict=True))
    states[0] = cases.lstm(p["decoder_0"], p["target_embedding"]["table_VD"][token], states[0], [context])
    x = states[0][0]
    for i in (1, 2, 3):
      states[i] = cases.lstm(p[f"decoder_{i}"], np.concatenate([x, context]), states[i])
      x = states[i][0] + x if i >= 2 else states[i][0]
    logits.append(p["output"]["table_VD"] @ x)
  return np.array(logits)


def test_is_the_papers_equations():
  """With four layers, so that two of each stack have residual connections."""
  cases.assert_is_the_papers(gnmt, dataclasses.replace(gnmt.small(), num_layers=4), loops)


def test_one_device_equals_eight():
  cases.assert_one_device_equals_eight(gnmt, gnmt.small())


def test_two_layers_are_the_fewest():
  config = dataclasses.replace(gnmt.small(), num_layers=2)
  found = jax.tree.leaves(cases.random_parameters(gnmt, config))
  assert sum(leaf.size for leaf in found) == gnmt.parameter_count(config)
  with pytest.raises(ValueError, match=r"model\.num_layers must be at least 2, got 1"):
    gnmt.Config(vocab_size=11, num_layers=1)
