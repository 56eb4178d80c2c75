"""Logits are computed where tokens are hidden, and nowhere else."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo import tasks
from attention_zoo.configs.pretraining import bert_quickstart
from attention_zoo.training.loss import smoothed_cross_entropy

B, T, V, SMOOTHING = 3, 24, 97, 0.1


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """(task, params, batch)"""
  config = bert_quickstart.get_config()
  config.model.update(num_heads=2, d_model=16, d_ff=20, d_k=8, d_v=8, num_layers=1, dropout=0.0, max_length=T)
  config.data.update(batching="full_sentences", vocab_size=V, row_length=T, batch_tokens=8 * T)
  config.train.label_smoothing = SMOOTHING
  task = tasks.make(config, tmp_path_factory.mktemp("run"))
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(task.init, jax.random.key(0)).params  # the initialisation itself would be compiled op by op
  params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), shapes)
  lengths_B1 = np.array([[T], [9], [0]])
  segments = (np.arange(T)[None] < lengths_B1).astype(np.int32)
  batch = {
    "inputs": rng.integers(5, V, (B, T)).astype(np.int32) * segments, "segments": segments,
    "positions": np.broadcast_to(np.arange(T, dtype=np.int32), (B, T)), "types": np.zeros((B, T), np.int32),
    "masked": np.array([[1, 5, 6, 22], [3, 0, 0, 0], [0, 0, 0, 0]], np.int32),
    "masked_targets": rng.integers(5, V, (B, 4)).astype(np.int32),
  }  # fmt: skip
  return task, params, batch


def ours(task, batch, params):
  return task.loss(params, {}, {}, batch, None, 0).value


def plain(task, batch, params):
  """Logits of all places, of which the hidden ones count."""
  x_BTD, _ = task.encoded(params, batch, None)
  x_BTF, bias_V, _ = task.apply_head(params, (x_BTD, None), None)
  logits_BTV = x_BTF[..., : x_BTD.shape[-1]] @ params["embedding"]["table_VD"].T + bias_V[None, None]
  targets, weights = np.zeros((B, T), np.int32), np.zeros((B, T), np.float32)
  for b, k in np.argwhere(batch["masked"]):
    place = b, batch["masked"][b, k]
    targets[place], weights[place] = batch["masked_targets"][b, k], 1
  return smoothed_cross_entropy(logits_BTV, targets, weights, SMOOTHING)[0]


@pytest.fixture(scope="module")
def programs(made):
  """{function: (what it gives, the size of the largest array of its compiled program)}"""
  task, params, batch = made
  found = {}
  for function in (ours, plain):
    step = jax.jit(jax.value_and_grad(lambda params, function=function: function(task, batch, params)))
    program = step.lower(params).compile()
    shapes = re.findall(r"\b[a-z]+\d+\[([\d,]+)\]", program.as_text())
    found[function] = program(params), max(math.prod(map(int, shape.split(","))) for shape in shapes)
  return found


def test_loss_and_gradients_are_those_of_logits_at_all_places(programs):
  (value, gradients), (wanted, wanted_gradients) = (programs[function][0] for function in (ours, plain))
  np.testing.assert_allclose(value, wanted, rtol=1e-5)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), gradients, wanted_gradients)
  assert np.abs(gradients["masked_head"]["bias_V"]).max() > 0.1


def test_there_are_no_logits_of_all_places(programs):
  """Nothing in the compiled program is as large as [rows, length, vocabulary]."""
  assert programs[ours][1] < B * T * V <= programs[plain][1]
