"""What `tasks/language_modeling.py` asks of every model for it, beside what `test_models.py` asks of all."""

import pathlib
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo import models

INPUTS = ("inputs", "segments", "positions")
NAMES = [
  name for name, path in models.MODELS.items()
  if path.split(".")[2] in ("language", "music", "pretraining") and models.find(name).BATCH == INPUTS
]  # fmt: skip
B, T = 3, 6
IMPORTS = """
import dataclasses
import flax.linen as nn
import jax.numpy as jnp
from attention_zoo.ops.einsum import einsum
from attention_zoo.protocols import Decoding
"""


def example():
  """The model that CONTRIBUTING.md shows."""
  text = pathlib.Path(__file__).parents[2].joinpath("CONTRIBUTING.md").read_text()
  (code,) = re.findall(r"```python\n(# models/.*?)```", text, re.DOTALL)
  module = types.ModuleType("bigram_lm")
  exec(IMPORTS + code, module.__dict__)
  return module


@pytest.fixture(scope="module", params=[*NAMES, "the example"])
def made(request):
  """(module, config, parameters, jitted logits of a batch)."""
  module = example() if request.param == "the example" else models.find(request.param)
  config = module.small()
  model = module.Model(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0), batch_of(np.zeros((B, T), np.int32)))["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), shapes)
  return module, config, params, jax.jit(lambda params, batch: model.apply({"params": params}, batch))


def batch_of(tokens_BT, first=None):
  """A batch whose rows hold one document, or two, the first of `first` tokens."""
  tokens_BT = jnp.asarray(tokens_BT, jnp.int32)
  at_T = np.arange(tokens_BT.shape[1])
  second_T = at_T >= (first or tokens_BT.shape[1])
  rows = lambda x_T: jnp.asarray(np.broadcast_to(x_T, tokens_BT.shape), jnp.int32)
  return {"inputs": tokens_BT, "segments": rows(1 + second_T), "positions": rows(at_T - second_T * (first or 0))}


def draw(config, rows=B, seed=1):
  return np.random.default_rng(seed).integers(0, config.vocab_size, (rows, T)).astype(np.int32)


def close(found, wanted):
  np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=2e-5, atol=2e-5)


def hidden(module, config, params, batch, **options):
  found = module.Model(config).apply({"params": params}, batch, method="hidden", **options)
  return found if hasattr(module, "carry") else (found, ())


def test_it_reads_what_language_modelling_has(made):
  module, *_ = made
  assert set(module.BATCH) <= {"inputs", "segments", "positions"}


def test_the_logits_are_the_output_times_the_output_table(made):
  module, config, params, logits = made
  batch = batch_of(draw(config))
  x_BTD, _ = hidden(module, config, params, batch)
  table_VD = module.output_table(params)
  assert table_VD.shape == (config.vocab_size, x_BTD.shape[-1])
  close(jnp.einsum("BTD,VD->BTV", x_BTD, table_VD), logits(params, batch))


def test_a_token_sees_the_past_alone(made):
  _, config, params, logits = made
  tokens_BT = draw(config)
  first = logits(params, batch_of(tokens_BT))
  for t in range(T):
    other_BT = tokens_BT.copy()
    other_BT[:, t] = (other_BT[:, t] + 1) % config.vocab_size
    changed_T = np.any(np.asarray(logits(params, batch_of(other_BT))) != np.asarray(first), (0, 2))
    assert not changed_T[:t].any() and changed_T[t]


def test_rows_are_independent(made):
  _, config, params, logits = made
  tokens_BT = draw(config)
  other_BT = tokens_BT.copy()
  other_BT[1] = (other_BT[1] + 1) % config.vocab_size
  first, second = (np.asarray(logits(params, batch_of(tokens))) for tokens in (tokens_BT, other_BT))
  np.testing.assert_array_equal(first[[0, 2]], second[[0, 2]])


def test_documents_that_share_a_row_do_not_see_each_other(made):
  module, config, params, logits = made
  if hasattr(module, "carry") or not getattr(config, "packs", True):
    pytest.skip("it says that it does not keep them apart")
  tokens_BT = draw(config)
  packed_BTV = logits(params, batch_of(tokens_BT, first=2))
  close(packed_BTV[:, :2], logits(params, batch_of(tokens_BT[:, :2])))
  close(packed_BTV[:, 2:], logits(params, batch_of(tokens_BT[:, 2:])))


def test_a_carry_makes_two_halves_one_text(made):
  module, config, params, _ = made
  if not hasattr(module, "carry"):
    pytest.skip("it has no state that goes from batch to batch")
  tokens_BT = draw(config)
  start = module.carry(config, B)
  whole_BTD, _ = hidden(module, config, params, batch_of(tokens_BT), carry=start)
  close(whole_BTD, hidden(module, config, params, batch_of(tokens_BT))[0])
  first_BTD, carry = hidden(module, config, params, batch_of(tokens_BT[:, :2]), carry=start)
  assert jax.tree.map(jnp.shape, carry) == jax.tree.map(jnp.shape, start)
  second_BTD, _ = hidden(module, config, params, batch_of(tokens_BT[:, 2:]), carry=carry)
  close(jnp.concatenate([first_BTD, second_BTD], 1), whole_BTD)


def test_cached_decoding_equals_the_whole_text(made):
  """A prompt in one step, a step back, and single tokens, with beams that die and multiply."""
  module, config, params, logits = made
  if not hasattr(module, "decoding"):
    pytest.skip("it does not generate")
  J = 2
  decoding = module.decoding(config, params, batch_of(draw(config)), num_beams=J)
  cache = decoding.grow(decoding.cache, T) if decoding.grow else decoding.cache
  step, tokens_BJT = jax.jit(decoding.step), draw(config, rows=B * J).reshape(B, J, T)
  found = np.zeros((B, J, T, config.vocab_size), np.float32)
  parents_BJ = np.array([[0, 1], [1, 1], [1, 0]])
  for start, stop in ((0, 3), (2, 3), (3, 4), (4, 6)):
    found[:, :, start:stop], cache = step(tokens_BJT[:, :, start:stop], jnp.int32(start), cache)
    reorder = decoding.reorder or (lambda cache, at_BJ: jax.tree.map(lambda x: x[np.arange(B)[:, None], at_BJ], cache))
    cache = reorder(cache, jnp.asarray(parents_BJ))
    past = np.take_along_axis(tokens_BJT[:, :, :stop], parents_BJ[:, :, None], 1)
    tokens_BJT = np.concatenate([past, tokens_BJT[:, :, stop:]], 2)
    found = np.take_along_axis(found, parents_BJ[:, :, None, None], 1)
  close(found.reshape(B * J, T, -1), logits(params, batch_of(tokens_BJT.reshape(B * J, T))))
