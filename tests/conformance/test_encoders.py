"""What `tasks/encoding.py` asks of every encoder, beside what `test_models.py` asks of all: its output at each token,
which depends on its own row alone and not on padding behind it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo import models

NAMES = [
  name for name in models.MODELS
  if {"types", "characters"} & {*(batch := models.find(name).BATCH)} and "inputs" in batch or name == "cove"
]  # fmt: skip
B, T = 3, 6
INPUTS = {"inputs", "segments", "positions", "types", "characters"}


@pytest.fixture(scope="module", params=NAMES)
def made(request):
  """(module, config, parameters, jitted output of a batch)."""
  module = models.find(request.param)
  config = module.small()
  model = module.Model(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0), batch_of(np.zeros((B, T), np.int32)))["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), shapes)

  def hidden(params, batch):
    found = model.apply({"params": params}, batch, method="hidden")
    return found[0] if hasattr(module, "carry") else found

  return module, config, params, jax.jit(hidden)


def batch_of(tokens_BT, lengths_B=None):
  tokens_BT = jnp.asarray(tokens_BT, jnp.int32)
  at_BT = np.broadcast_to(np.arange(tokens_BT.shape[1]), tokens_BT.shape)
  real_BT = at_BT < (at_BT.shape[1] if lengths_B is None else np.asarray(lengths_B)[:, None])
  found = {"inputs": tokens_BT, "segments": np.ones_like(at_BT), "positions": at_BT, "types": at_BT // 3}
  found = {name: jnp.asarray(np.where(real_BT, x, 0), jnp.int32) for name, x in found.items()}
  characters_BTW = 1 + (37 * tokens_BT[:, :, None] + jnp.arange(5)[None, None]) % 250
  return found | {"characters": jnp.where(jnp.asarray(real_BT)[:, :, None], characters_BTW, 0)}


def draw(config, seed=1):
  return np.random.default_rng(seed).integers(0, config.vocab_size, (B, T)).astype(np.int32)


def other(config, tokens, place):
  changed = tokens.copy()
  changed[place] = (changed[place] + 1) % config.vocab_size
  return changed


def test_it_reads_what_encoders_have_and_returns_a_vector_for_each_token(made):
  module, config, params, hidden = made
  assert set(module.BATCH) <= INPUTS
  assert hidden(params, batch_of(draw(config))).shape == (B, T, config.d_model)


def test_rows_are_independent(made):
  _, config, params, hidden = made
  tokens_BT = draw(config)
  first, second = (np.asarray(hidden(params, batch_of(x))) for x in (tokens_BT, other(config, tokens_BT, np.s_[1])))
  np.testing.assert_array_equal(first[[0, 2]], second[[0, 2]])


def test_every_token_sees_every_other_one(made):
  _, config, params, hidden = made
  tokens_BT = draw(config)
  first = np.asarray(hidden(params, batch_of(tokens_BT)))
  for t in range(T):
    changed = np.asarray(hidden(params, batch_of(other(config, tokens_BT, np.s_[:, t]))))
    assert np.any(changed != first, -1).all()


def test_padding_is_not_seen(made):
  _, config, params, hidden = made
  tokens_BT, lengths_B = draw(config), [2, T, 4]
  found = np.asarray(hidden(params, batch_of(tokens_BT, lengths_B)))
  for b, length in enumerate(lengths_B):
    alone = hidden(params, batch_of(tokens_BT[b : b + 1, :length]))
    np.testing.assert_allclose(found[b, :length], alone[0], rtol=2e-5, atol=2e-5)


def test_the_second_sentence_is_told_apart(made):
  module, config, params, hidden = made
  if "types" not in module.BATCH:
    pytest.skip("it does not read them")
  batch = batch_of(draw(config))
  same = hidden(params, batch | {"types": jnp.zeros_like(batch["types"])})
  assert np.any(np.asarray(same) != np.asarray(hidden(params, batch)))
