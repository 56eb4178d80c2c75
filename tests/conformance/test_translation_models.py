"""What `tasks/translation.py` asks of every model for it, beside what `test_models.py` asks of all."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo import models
from attention_zoo.data.tokenizer import BOS
from attention_zoo.decoding.beam import gather_beams
from attention_zoo.decoding.constraints import UNCONSTRAINED
from attention_zoo.tasks.teacher_forcing import sown_weights, teacher_forcing
from attention_zoo.tasks.translation_search import search
from tests.conformance.test_language_models import close

NAMES = [name for name in models.MODELS if "source" in models.find(name).BATCH]
B, S, T = 3, 5, 6
SOURCE = ("source", "source_segments", "source_positions")


@pytest.fixture(scope="module", params=NAMES)
def made(request):
  """(module, config, parameters, jitted logits of a batch)."""
  module = models.find(request.param)
  config = module.small()
  model = module.Model(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0), batch_of(*draw(config)))["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), shapes)
  return module, config, params, jax.jit(lambda params, batch: model.apply({"params": params}, batch))


def batch_of(source_BS, target_BT, source_lengths_B=None, target_lengths_B=None):
  """One pair a row, padded behind its length."""
  lengths = lambda given, ids: np.full(len(ids), ids.shape[1]) if given is None else np.asarray(given)
  return teacher_forcing(
    source_BS, lengths(source_lengths_B, source_BS), target_BT, lengths(target_lengths_B, target_BT)
  )


def packed(first, second):
  """Two batches of pairs in the same rows."""
  join = lambda name, shift=0: jnp.concatenate([first[name], second[name] + shift], 1)
  return {name: join(name, shift=1 if "segments" in name else 0) for name in first}


def draw(config, rows=B, seed=1):
  rng = np.random.default_rng(seed)
  return [rng.integers(4, config.vocab_size, (rows, length)).astype(np.int32) for length in (S, T)]


def other(config, ids, place):
  """The same ids, but for another token at that place."""
  changed = ids.copy()
  changed[place] = 4 + (changed[place] - 4 + 1) % (config.vocab_size - 4)
  return changed


def test_it_reads_what_translation_has(made):
  module, *_ = made
  assert set(module.BATCH) <= {*SOURCE, "inputs", "target_segments", "target_positions"}


def test_the_logits_are_the_output_times_the_output_table(made):
  module, config, params, logits = made
  batch = batch_of(*draw(config))
  x_BTD = module.Model(config).apply({"params": params}, batch, method="hidden")
  table_VD = module.output_table(params)
  assert table_VD.shape == (config.vocab_size, x_BTD.shape[-1])
  close(jnp.einsum("BTD,VD->BTV", x_BTD, table_VD), logits(params, batch))


def test_a_target_token_sees_its_past_and_all_of_the_source(made):
  _, config, params, logits = made
  source_BS, target_BT = draw(config)
  first = np.asarray(logits(params, batch_of(source_BS, target_BT)))
  for t in range(T - 1):  # the last token is no input
    changed = np.asarray(logits(params, batch_of(source_BS, other(config, target_BT, np.s_[:, t]))))
    changed_T = np.any(changed != first, (0, 2))
    assert not changed_T[: t + 1].any() and changed_T[t + 1]
  for s in range(S):
    changed = np.asarray(logits(params, batch_of(other(config, source_BS, np.s_[:, s]), target_BT)))
    assert np.any(changed != first, 2).all()


def test_pairs_are_independent(made):
  _, config, params, logits = made
  source_BS, target_BT = draw(config)
  first = np.asarray(logits(params, batch_of(source_BS, target_BT)))
  changed = logits(params, batch_of(other(config, source_BS, np.s_[1]), other(config, target_BT, np.s_[1])))
  np.testing.assert_array_equal(first[[0, 2]], np.asarray(changed)[[0, 2]])


def test_padding_is_not_seen(made):
  _, config, params, logits = made
  source_BS, target_BT = draw(config)
  lengths = ([2, S, 1], [3, T, 1])
  found = np.asarray(logits(params, batch_of(source_BS, target_BT, *lengths)))
  for b, (s, t) in enumerate(zip(*lengths, strict=True)):
    alone = logits(params, batch_of(source_BS[b : b + 1, :s], target_BT[b : b + 1, :t]))
    close(found[b, :t], alone[0])


def test_pairs_that_share_a_row_do_not_see_each_other(made):
  _, config, params, logits = made
  if not getattr(config, "packs", True):
    pytest.skip("it says that it does not keep them apart")
  (source_BS, target_BT), (longer_BS, longer_BT) = draw(config), draw(config, seed=2)
  first, second = batch_of(source_BS[:, :2], target_BT[:, :3]), batch_of(longer_BS, longer_BT)
  found_BTV = logits(params, packed(first, second))
  close(found_BTV[:, :3], logits(params, first))
  close(found_BTV[:, 3:], logits(params, second))


def test_weights_are_distributions_over_what_may_be_seen(made):
  module, config, params, _ = made
  batch = batch_of(*draw(config), [2, S, 1], [3, T, 1])
  _, state = module.Model(config).apply({"params": params}, batch, mutable=["intermediates"])
  source_BS, target_BT = (np.asarray(batch[f"{side}_segments"]) > 0 for side in ("source", "target"))
  past_TT = np.tril(np.ones((T, T), bool))
  seen = {
    "encoder": source_BS[:, :, None] & source_BS[:, None],
    "decoder": target_BT[:, :, None] & target_BT[:, None] & past_TT,
    "cross": target_BT[:, :, None] & source_BS[:, None],
  }
  for kind, layers in sown_weights(state).items():
    for weights_BNTS in layers:
      for seen_TS, weights_NTS in zip(seen[kind], np.asarray(weights_BNTS), strict=True):
        real_T = seen_TS.any(1)
        close(weights_NTS[:, real_T].sum(-1), 1.0)
        assert not weights_NTS[:, real_T][:, ~seen_TS[real_T]].any()


def test_cached_decoding_equals_teacher_forcing(made):
  """Single tokens, sentences of several lengths, beams that die and multiply, and room that grows."""
  module, config, params, logits = made
  if not hasattr(module, "decoding"):
    pytest.skip("it does not generate")
  J = 2
  source_BS, _ = draw(config)
  lengths_B = [2, S, 4]
  _, target_MT = draw(config, rows=B * J, seed=3)
  batch = batch_of(source_BS, target_MT[:B], lengths_B)
  decoding = module.decoding(config, params, {name: batch[name] for name in SOURCE}, num_beams=J)
  cache, reorder = decoding.cache, decoding.reorder or gather_beams
  tokens_BJT = np.concatenate([np.full((B, J, 1), BOS), target_MT.reshape(B, J, T)[:, :, :-1]], 2).astype(np.int32)
  found = np.zeros((B, J, T, config.vocab_size), np.float32)
  parents = np.array([[0, 1], [1, 1], [1, 0]])
  step = jax.jit(decoding.step)
  for t in range(T):
    if decoding.grow and t in (0, 3):
      cache = decoding.grow(cache, 3 if t == 0 else T)
    logits_BJTV, cache = step(tokens_BJT[:, :, t : t + 1], jnp.int32(t), cache)
    found[:, :, t] = np.asarray(logits_BJTV)[:, :, 0]
    if t % 2:
      cache = reorder(cache, jnp.asarray(parents))
      take = functools.partial(np.take_along_axis, indices=parents[:, :, None], axis=1)
      tokens_BJT = np.concatenate([take(tokens_BJT[:, :, : t + 1]), tokens_BJT[:, :, t + 1 :]], 2)
      found = np.take_along_axis(found, parents[:, :, None, None], 1)
  target_MT = np.concatenate([tokens_BJT[:, :, 1:], np.full((B, J, 1), 4)], 2).reshape(B * J, T)
  forced = logits(params, batch_of(np.repeat(source_BS, J, 0), target_MT, np.repeat(lengths_B, J)))
  close(found.reshape(B * J, T, -1), forced)


def test_beam_search_takes_it(made):
  """As translation does: the log-probabilities that it returns are those of teacher forcing."""
  module, config, params, logits = made
  if not hasattr(module, "decoding"):
    pytest.skip("it does not generate")
  source_BS, _ = draw(config)
  lengths_B = np.array([2, S, 4])
  task = types.SimpleNamespace(
    config=types.SimpleNamespace(decode=types.SimpleNamespace(extra_length=1)),
    decoding=functools.partial(module.decoding, config),
  )
  run = functools.partial(search, task, alpha=0.6, constraints=UNCONSTRAINED, beam_size=3, n_best=1)
  found = jax.jit(run)(params, jnp.asarray(source_BS), jnp.asarray(lengths_B))
  tokens_BT, target_lengths_B = np.asarray(found.tokens_BJT[:, 0]), np.asarray(found.lengths_BJ[:, 0])
  logprobs_BTV = jax.nn.log_softmax(logits(params, batch_of(source_BS, tokens_BT, lengths_B, target_lengths_B)))
  logprobs_BT = np.take_along_axis(np.asarray(logprobs_BTV), tokens_BT[..., None], 2)[..., 0]
  real_BT = np.arange(tokens_BT.shape[1])[None] < target_lengths_B[:, None]
  close(np.where(real_BT, logprobs_BT, 0).sum(1), found.logprobs_BJ[:, 0])
