"""The bias of the logits: a column of the output's table, in every way that a model is used."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo import models
from attention_zoo.layers.feed_forward import ACTIVATIONS
from attention_zoo.training.loss import linear_cross_entropy, smoothed_cross_entropy


@pytest.fixture(scope="module", params=["transformer", "transformer_lm"])
def made(request):
  """(module, config, parameters, batch)."""
  module = models.find(request.param)
  config = dataclasses.replace(module.small(), output_bias=True, activation="swish")
  rng = np.random.default_rng(0)
  ids = rng.integers(4, config.vocab_size, (2, 5)).astype(np.int32)
  batch = {
    name: np.ones_like(ids) if "segments" in name else np.tile(np.arange(5, dtype=np.int32), (2, 1))
    if "positions" in name else ids for name in module.BATCH
  }  # fmt: skip
  drawn = module.Model(config).init(jax.random.key(0), batch)["params"]
  params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), x.dtype), drawn)
  return module, config, params, batch


def test_it_is_added_to_the_logits(made):
  module, config, params, batch = made
  apply = lambda params: module.Model(config).apply({"params": params}, batch)
  without = apply(params | {"output_bias_V": jnp.zeros(config.vocab_size)})
  np.testing.assert_allclose(apply(params), without + params["output_bias_V"][None, None], atol=1e-6)
  assert sum(x.size for x in jax.tree.leaves(params)) == module.parameter_count(config)


def test_the_loss_has_its_gradient(made):
  module, config, params, batch = made
  targets, weights = np.roll(batch["inputs"], -1, 1), np.ones(batch["inputs"].shape, np.float32)

  def fused(params):
    hidden_BTU = module.Model(config).apply({"params": params}, batch, method="hidden")
    return linear_cross_entropy(hidden_BTU, module.output_table(params), targets, weights, 0.1)[0]

  def plain(params):
    return smoothed_cross_entropy(module.Model(config).apply({"params": params}, batch), targets, weights, 0.1)[0]

  (one, found), (other, expected) = (jax.jit(jax.value_and_grad(f))(params) for f in (fused, plain))
  np.testing.assert_allclose(one, other, rtol=1e-6)
  assert np.abs(expected["output_bias_V"]).max() > 0.1
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_decoding_adds_it(made):
  module, config, params, batch = made
  expected = module.Model(config).apply({"params": params}, batch)
  decoding = module.decoding(config, params, batch, num_beams=1)
  cache, found = decoding.grow(decoding.cache, 5), []
  for t in range(5):
    logits_BJTV, cache = decoding.step(batch["inputs"][:, None, t : t + 1], jnp.int32(t), cache)
    found.append(logits_BJTV[:, 0, 0])
  np.testing.assert_allclose(np.stack(found, 1), expected, atol=1e-5)


def test_swish_by_hand():
  x = np.linspace(-4, 4, 9)
  np.testing.assert_allclose(ACTIVATIONS["swish"](jnp.asarray(x, jnp.float32)), x / (1 + np.exp(-x)), atol=1e-6)
