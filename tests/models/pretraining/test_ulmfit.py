"""What is special about the AWD-LSTM and its tuning: which weights, words and units are dropped, who learns when."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.layers.dropout import LockedDropout
from attention_zoo.models.pretraining import ulmfit

CONFIG = ulmfit.small()
BATCH = {name: jnp.asarray([[1, 2, 3, 1, 2], [4, 5, 1, 2, 4]], jnp.int32) for name in ulmfit.BATCH}


def test_the_papers_size():
  """Three layers of 400 -> 1,150 -> 1,150 -> 400, beside the table."""
  assert ulmfit.parameter_count(ulmfit.Config(vocab_size=0)) == 4 * (
    1150 * (400 + 1150 + 1) + 1150 * (1150 + 1150 + 1) + 400 * (1150 + 400 + 1)
  )


def test_rates_and_unfreezing_at_hand_computed_steps():
  config = dataclasses.replace(CONFIG, num_layers=3, rate_decay=2.0, unfreeze_every=10)
  names = ("classification_head/output/kernel_UO", "layer_2/bias_A", "layer_1/kernel_DA", "layer_0/bias_A")
  names += ("embedding/table_VD",)
  rate = lambda name, step: float(ulmfit.learning_rate_factor(config, name, step))
  assert [rate(name, 0) for name in names] == [1, 0, 0, 0, 0]
  assert [rate(name, 9) for name in names] == [1, 0, 0, 0, 0]
  assert [rate(name, 10) for name in names] == [1, 1 / 2, 0, 0, 0]
  assert [rate(name, 29) for name in names] == [1, 1 / 2, 1 / 4, 0, 0]
  assert [rate(name, 40) for name in names] == [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16]
  assert {ulmfit.learning_rate_factor(CONFIG, name, 0) for name in names} == {1.0}
  with pytest.raises(ValueError, match="rate_decay must be at least 1, got 0.5"):
    dataclasses.replace(CONFIG, rate_decay=0.5)


def apply(config, **options):
  model = ulmfit.Model(config)
  params = model.init(jax.random.key(0), BATCH)["params"]
  params = jax.tree.map(lambda x: jax.random.normal(jax.random.key(1), x.shape), params)
  return np.asarray(model.apply({"params": params}, BATCH, method="hidden", **options)[0]), params


def in_training(seed, **rates):
  return apply(dataclasses.replace(CONFIG, **rates), train=True, rngs={"dropout": jax.random.key(seed)})[0]


def test_weight_drop_is_of_the_recurrent_kernels_alone():
  plain, _ = apply(CONFIG)
  dropped = in_training(3, weight_dropout=0.5)
  np.testing.assert_allclose(dropped[:, 0], plain[:, 0], rtol=1e-6)  # nothing comes from a step before the first
  assert (dropped[:, 1:] != plain[:, 1:]).any()


def test_a_locked_mask_is_the_same_at_all_positions_of_a_row():
  x_BTD = jnp.ones((4, 6, 32))
  y = np.asarray(LockedDropout(0.5).apply({}, x_BTD, True, rngs={"dropout": jax.random.key(0)}))
  assert (y == y[:, :1]).all() and set(np.unique(y)) == {0.0, 2.0} and (y[0] != y[1]).any()
  np.testing.assert_array_equal(LockedDropout(0.5).apply({}, x_BTD, False), x_BTD)


def test_embedding_dropout_drops_words_wherever_they_stand():
  model, config = ulmfit.Model, dataclasses.replace(CONFIG, vocab_size=200, embedding_dropout=0.5)
  tokens_BT = jnp.arange(400, dtype=jnp.int32).reshape(4, 100) % 200
  params = model(config).init(jax.random.key(0), {"inputs": tokens_BT})["params"]
  table_VD = params["embedding"]["table_VD"]
  apply = lambda: model(config).apply(
    {"params": params}, tokens_BT, True, method="embed", rngs={"dropout": jax.random.key(2)}
  )
  found_VD = np.asarray(apply()).reshape(2, 200, -1)
  np.testing.assert_array_equal(found_VD[0], found_VD[1])  # both places of a word
  kept_V = found_VD[0].any(1)
  assert 60 < kept_V.sum() < 140
  np.testing.assert_allclose(found_VD[0][kept_V], 2 * np.asarray(table_VD)[kept_V], rtol=1e-6)
