"""Beam search against hand-computed chains, exhaustive search and a plain reference; and its promises."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attention_zoo.decoding import beam
from attention_zoo.decoding.beam import beam_search, gather_beams
from attention_zoo.decoding.candidates import pick
from attention_zoo.decoding.score import length_penalty
from tests.compilations import compilations
from tests.decoding import toys
from tests.decoding.toys import BOS, EOS, PAD

ALPHAS = [0.0, 0.6, 1.0, 3.0, -0.5, -2.0]


@functools.partial(jax.jit, static_argnames=("beam_size", "max_length", "n_best"))
def _markov_search(logits_VV, limits_B, alpha, beam_size, max_length, n_best):
  return beam_search(
    lambda tokens_BJ, t, cache: (logits_VV[tokens_BJ], cache),
    {},
    batch_size=2,
    beam_size=beam_size,
    max_lengths_B=limits_B,
    max_length=max_length,
    bos=BOS,
    eos=EOS,
    alpha=alpha,
    n_best=n_best,
  )


def markov_search(chain_VV, limits_B, *, beam_size=4, max_length=6, alpha=0.0, n_best=None):
  """Searches a first-order chain of probabilities, whose rows are the last token, for two sentences."""
  with np.errstate(divide="ignore"):
    logits_VV = jnp.asarray(np.log(np.asarray(chain_VV, np.float32)))
  limits_B = jnp.asarray(limits_B, jnp.int32)
  result = _markov_search(logits_VV, limits_B, jnp.float32(alpha), beam_size, max_length, n_best)
  return jax.tree.map(np.asarray, result)


# Tokens 3 and 4 follow BOS with 0.6 and 0.4. After 3, EOS has only 0.3; after 4 it has 0.9.
GARDEN_PATH = [
  [0.0, 0.0, 1.0, 0.0, 0.0],
  [0.0, 0.0, 0.0, 0.6, 0.4],
  [0.0, 0.0, 1.0, 0.0, 0.0],
  [0.0, 0.0, 0.3, 0.4, 0.3],
  [0.0, 0.0, 0.9, 0.05, 0.05],
]


def test_hand_computed_chain():
  # 4 EOS = .4 x .9 = .36; 3 EOS = .6 x .3 = .18; 3 4 EOS = .6 x .3 x .9 = .162;
  # 3 3 EOS = .6 x .4 x .3 = .072.
  result = markov_search(GARDEN_PATH, [6, 2])
  expected = [[4, EOS, 0, 0, 0, 0], [3, EOS, 0, 0, 0, 0], [3, 4, EOS, 0, 0, 0], [3, 3, EOS, 0, 0, 0]]
  np.testing.assert_array_equal(result.tokens_BJT[0], expected)
  np.testing.assert_allclose(np.exp(result.scores_BJ[0]), [0.36, 0.18, 0.162, 0.072], rtol=1e-5)
  np.testing.assert_array_equal(result.lengths_BJ[0], [2, 2, 3, 3])
  np.testing.assert_array_equal(result.tokens_BJT[1], [*expected[:2], [0] * 6, [0] * 6])
  np.testing.assert_array_equal(result.scores_BJ[1, 2:], -np.inf)


def test_greedy_is_beam_one_and_walks_into_the_garden():
  # 3 3 3 3: the most probable next token every time, though EOS is the second best.
  chain = np.array(GARDEN_PATH)
  chain[3] = [0.0, 0.0, 0.35, 0.4, 0.25]
  result = markov_search(chain, [4, 0], beam_size=1)
  np.testing.assert_array_equal(result.tokens_BJT[0, 0], [3, 3, 3, 3, PAD, PAD])
  np.testing.assert_allclose(np.exp(result.logprobs_BJ[0, 0]), 0.6 * 0.4**3, rtol=1e-5)
  np.testing.assert_allclose(result.scores_BJ, result.logprobs_BJ)
  # 3 EOS: the first end is the last, though with this alpha the longer would score higher.
  chain[3] = [0.0, 0.0, 0.6, 0.4, 0.0]
  result = markov_search(chain, [4, 0], beam_size=1, alpha=8.0)
  np.testing.assert_array_equal(result.tokens_BJT[0, 0], [3, EOS, PAD, PAD, PAD, PAD])


def test_length_penalty_is_gnmt_and_counts_eos():
  np.testing.assert_allclose(length_penalty(np.array([1, 7, 13]), 0.6), [1, 2**0.6, 3**0.6], rtol=1e-6)
  result = markov_search(GARDEN_PATH, [6, 6], alpha=0.6)
  np.testing.assert_allclose(result.scores_BJ[0, 0], np.log(0.36) / (7 / 6) ** 0.6, rtol=1e-5)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_wide_beam_equals_exhaustive_search(alpha):
  # The 3^4 = 81 unfinished hypotheses of length 4 have 324 extensions, which are all among the 2J candidates.
  tables_BMV = toys.random_tables(seed=1, batch=4, vocab=4)
  result = toys.search(tables_BMV, [5, 5, 4, 3], alpha, beam_size=162, max_length=5)
  for sentence, limit in enumerate([5, 5, 4, 3]):
    toys.assert_matches(result, sentence, toys.exhaustive_search(tables_BMV[sentence], limit, alpha))


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("beam_size", [1, 2, 4])
@pytest.mark.parametrize("scale", [0.3, 1.5, 4.0])
def test_equals_plain_reference_without_early_stop(alpha, beam_size, scale):
  limits = [12, 12, 12, 12, 12, 9, 5, 1]
  tables_BMV = toys.random_tables(seed=2, batch=8, scale=scale)
  # Rare endings make long searches in which the stop rule has something to decide.
  tables_BMV[::2, :, EOS] -= 2
  result = toys.search(tables_BMV, limits, alpha, beam_size=beam_size, max_length=12)
  for sentence, limit in enumerate(limits):
    expected = toys.reference_search(tables_BMV[sentence], limit, alpha, beam_size=beam_size)
    toys.assert_matches(result, sentence, expected)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_few_best_are_the_first_of_many(alpha):
  tables_BMV = toys.random_tables(seed=3, batch=8)
  limits = [12, 12, 12, 12, 12, 9, 5, 1]
  many = toys.search(tables_BMV, limits, alpha, beam_size=4, max_length=12)
  one = toys.search(tables_BMV, limits, alpha, beam_size=4, max_length=12, n_best=1)
  for all_of_them, first in zip(many, one, strict=True):
    np.testing.assert_array_equal(all_of_them[:, :1], first)


@settings(max_examples=30, deadline=None)
@given(
  st.integers(0, 2**31),
  st.permutations(range(8)),
  st.integers(0, 7),
  st.lists(st.integers(0, 12), min_size=8, max_size=8),
  st.sampled_from(ALPHAS),
)
def test_a_sentence_never_depends_on_its_batch(seed, order, alone, limits, alpha):
  order, limits = np.array(order), np.array(limits)
  tables_BMV = toys.random_tables(seed, batch=8)
  together = toys.search(tables_BMV, limits, alpha, beam_size=4, max_length=12)
  permuted = toys.search(tables_BMV[order], limits[order], alpha, beam_size=4, max_length=12)
  single = toys.search(tables_BMV[[alone]], limits[[alone]], alpha, beam_size=4, max_length=12)
  padded = toys.search(tables_BMV, limits, alpha, beam_size=4, max_length=16)
  for name in together._fields:
    base = getattr(together, name)
    np.testing.assert_array_equal(base[order], getattr(permuted, name))
    np.testing.assert_array_equal(base[[alone]], getattr(single, name))
    longer = getattr(padded, name)
    np.testing.assert_array_equal(base, longer[..., :12] if name == "tokens_BJT" else longer)


def test_companions_of_every_kind_change_nothing():
  tables_BMV = toys.random_tables(seed=5, batch=8)
  base = toys.search(tables_BMV, [12] * 8, 0.6, beam_size=4, max_length=12)
  for companion in (np.nan, np.inf, -np.inf, 0.0, 1e30):
    disturbed = tables_BMV.copy()
    disturbed[1:] = companion
    result = toys.search(disturbed, [12, 0, 1, 12, 12, 7, 12, 12], 0.6, beam_size=4, max_length=12)
    for name in base._fields:
      np.testing.assert_array_equal(getattr(base, name)[0], getattr(result, name)[0])


@functools.partial(jax.jit, static_argnames="n_best")
def search_until(broken_step, probability_of_eos, limit, alpha, n_best):
  """Scores of a chain whose EOS probability is constant that breaks at a step: NaN if that was reached."""
  probability_of_others = (1 - probability_of_eos) / 2
  logits_V = jnp.log(jnp.array([0.0, 0.0, probability_of_eos, probability_of_others, probability_of_others]))

  def step_fn(tokens_BJ, t, cache):
    return jnp.broadcast_to(jnp.where(t < broken_step, logits_V, jnp.nan), (1, 2, 5)), cache

  options = {"bos": BOS, "eos": EOS, "alpha": alpha, "n_best": n_best, "max_lengths_B": limit[None]}
  return beam_search(step_fn, {}, batch_size=1, beam_size=2, max_length=50, **options).scores_BJ


def stopped_before(step, probability_of_eos, *, n_best, limit=50, alpha=0.6):
  scores_BJ = search_until(step, probability_of_eos, jnp.int32(limit), alpha, n_best)
  assert np.isnan(scores_BJ).all() or np.isfinite(scores_BJ).all()
  return np.isfinite(scores_BJ).all()


def test_stops_as_soon_as_proved_and_not_before():
  # EOS at once scores log .9 = -.105. The best unfinished hypothesis then has log .05 = -3.0, which the
  # largest penalty ahead, (55/6)^.6 = 3.78, could lift to -.79 at most: one step proves the best.
  assert stopped_before(1, 0.9, n_best=1)
  # The second best ends at the second step: log(.05 x .9) / (7/6)^.6 = -2.83. Unfinished hypotheses could
  # still score log(.05^2) / 3.78 = -1.59 after two steps, -2.38 after three, -3.17 after four.
  assert not stopped_before(3, 0.9, n_best=2)
  assert stopped_before(4, 0.9, n_best=2)
  # With EOS at .4 the unfinished log .3 = -1.2 could be lifted to -.32, above log .4 = -.92.
  assert not stopped_before(1, 0.4, n_best=1)
  # A limit of 3 bounds the penalty by (8/6)^.6 = 1.19: -1.2 / 1.19 = -1.01, and one step is proof again.
  assert stopped_before(1, 0.4, n_best=1, limit=3)
  # Negative alpha: the largest penalty ahead is the next one.
  assert stopped_before(1, 0.4, n_best=1, alpha=-1.0)


def test_faults_of_the_model_are_shown():
  tables_BMV = toys.random_tables(seed=6, batch=8)
  tables_BMV[2:4, :, 4] = np.nan
  tables_BMV[4:, :, 4] = np.inf
  result = toys.search(tables_BMV, [8] * 8, 0.6, beam_size=4, max_length=12)
  assert np.isfinite(result.scores_BJ[:2]).all()
  assert np.isnan(result.scores_BJ[2:]).all() and np.isnan(result.logprobs_BJ[2:]).all()
  assert not result.lengths_BJ[2:].any() and not result.tokens_BJT[2:].any()


@pytest.mark.parametrize("alpha", [0.6, -0.5])
def test_forbidden_tokens_and_dead_ends(alpha):
  tables_BMV = toys.random_tables(seed=7, batch=8)
  tables_BMV[0, :, [PAD, BOS]] = -np.inf  # only 3, 4 and EOS
  tables_BMV[1, :, [PAD, BOS, 4]] = -np.inf  # one path
  tables_BMV[2] = -np.inf  # nowhere to go
  tables_BMV[3, :, EOS] = -np.inf  # never ends
  result = toys.search(tables_BMV, [7] * 8, alpha, beam_size=4, max_length=12)
  for sentence in range(4):
    expected = toys.reference_search(tables_BMV[sentence], 7, alpha, beam_size=4)
    toys.assert_matches(result, sentence, expected)
  assert (result.scores_BJ[2] == -np.inf).all()
  assert (result.lengths_BJ[3] == 7).all() and not (result.tokens_BJT[3] == EOS).any()


def test_a_finished_hypothesis_is_preferred_to_better_unfinished_ones():
  chain = np.array(GARDEN_PATH)
  chain[1] = [0.0, 0.0, 0.01, 0.99, 0.0]
  chain[3] = [0.0, 0.0, 0.001, 0.998, 0.001]
  result = markov_search(chain, [4, 4], beam_size=2)
  np.testing.assert_array_equal(result.tokens_BJT[0, 0], [EOS, *[PAD] * 5])


def test_limit_zero_is_the_empty_hypothesis():
  result = markov_search(GARDEN_PATH, [0, 6])
  assert not result.tokens_BJT[0].any() and not result.lengths_BJ[0].any()
  np.testing.assert_array_equal(result.scores_BJ[0], [0, -np.inf, -np.inf, -np.inf])
  assert result.lengths_BJ[1, 0] == 2


def test_ties_go_to_the_lower_beam_then_the_lower_token_then_the_earlier_ending():
  # A uniform chain over EOS, 3, 4: everything of one length is equal. alpha = 0 prefers the short.
  chain = np.zeros((5, 5))
  chain[:, EOS:] = 1 / 3
  result = markov_search(chain, [3, 0])
  np.testing.assert_array_equal(
    result.tokens_BJT[0, :, :3], [[EOS, 0, 0], [3, EOS, 0], [4, EOS, 0], [3, 3, EOS]]
  )
  unended = np.zeros((5, 5))
  unended[:, [0, 3, 4]] = 1 / 3
  result = markov_search(unended, [2, 0])
  np.testing.assert_array_equal(result.tokens_BJT[0, :, :2], [[0, 0], [0, 3], [0, 4], [3, 0]])
  # Of equal scores, the one that ended first: log .25 = 2 log .5, with alpha = 0.
  chain = np.zeros((5, 5))
  chain[BOS] = [0, 0, 0.25, 0.5, 0.25]
  chain[[3, 4]] = [0, 0, 0.5, 0.25, 0.25]
  result = markov_search(chain, [2, 0])
  np.testing.assert_array_equal(result.tokens_BJT[0, :, :2], [[EOS, 0], [3, EOS], [4, EOS], [0, 0]])


def test_endings_never_starve_the_beam():
  # From every state EOS is the best token; two beams must go on all the same.
  tables_BMV = toys.random_tables(seed=8, batch=8)
  tables_BMV[:, :, EOS] = 6
  result = toys.search(tables_BMV, [10] * 8, 8.0, beam_size=4, max_length=12)
  for sentence in range(2):
    expected = toys.reference_search(tables_BMV[sentence], 10, 8.0, beam_size=4)
    toys.assert_matches(result, sentence, expected)
    assert max(len(tokens) for tokens, _, _ in expected) == 10


def test_step_zero_is_fed_bos_and_steps_are_counted():
  def step_fn(tokens_BJ, t, cache):
    # Emits 3 after BOS at step 0 and 4 after 3 at step 1; any other combination emits 0.
    token_BJ = jnp.where((tokens_BJ == BOS) & (t == 0), 3, jnp.where((tokens_BJ == 3) & (t == 1), 4, 0))
    return jax.nn.one_hot(token_BJ, 5) * 50, cache

  options = {"max_lengths_B": jnp.array([2]), "max_length": 2, "bos": BOS, "eos": EOS, "alpha": 0.6}
  result = jax.jit(lambda: beam_search(step_fn, (), batch_size=1, beam_size=1, **options))()
  np.testing.assert_array_equal(result.tokens_BJT, [[[3, 4]]])


def test_reorder_hook_gets_the_parents():
  tables_BMV = toys.random_tables(seed=9, batch=8)

  def step_fn(tokens_BJ, t, cache):
    # The state stays where it was written; pointers, and they alone, are permuted to say which slot is whose.
    written_BJ, slots_BJ = cache
    state_BJ = toys.next_state(pick(written_BJ, slots_BJ), tokens_BJ, tables_BMV.shape[1])
    return pick(jnp.asarray(tables_BMV), state_BJ), (state_BJ, jnp.broadcast_to(jnp.arange(4), (8, 4)))

  def search():
    return beam_search(
      step_fn,
      (jnp.zeros((8, 4), jnp.int32), jnp.zeros((8, 4), jnp.int32)),
      batch_size=8,
      beam_size=4,
      max_lengths_B=jnp.full(8, 9),
      max_length=12,
      bos=BOS,
      eos=EOS,
      alpha=0.6,
      reorder=lambda cache, parents_BJ: (cache[0], pick(cache[1], parents_BJ)),
    )

  result = jax.tree.map(np.asarray, jax.jit(search)())
  for sentence in range(8):
    toys.assert_matches(result, sentence, toys.reference_search(tables_BMV[sentence], 9, 0.6, beam_size=4))


@pytest.mark.parametrize("little, rooms", [(0, [3, 6, 12]), (4 * 8 * 12, [12])])
def test_a_cache_that_grows_changes_nothing(monkeypatch, little, rooms):
  """Where there is much it grows by parts; where there is little the search has one program."""
  monkeypatch.setattr(beam, "_ONE_ROOM", little)
  tables_BMV = toys.random_tables(seed=9, batch=8)
  grown = []

  def step_fn(tokens_BJ, t, past_BJZ):
    past_BJZ = jax.lax.dynamic_update_slice_in_dim(past_BJZ, tokens_BJ[:, :, None], t, 2)
    run = lambda state_BJ, s: (
      jnp.where(s <= t, toys.next_state(state_BJ, past_BJZ[:, :, s], tables_BMV.shape[1]), state_BJ), None
    )
    state_BJ, _ = jax.lax.scan(run, jnp.zeros((8, 4), jnp.int32), jnp.arange(past_BJZ.shape[2]))
    return pick(jnp.asarray(tables_BMV), state_BJ), past_BJZ

  def grow(past_BJZ, length):
    grown.append(length)
    return jnp.pad(past_BJZ, ((0, 0), (0, 0), (0, length - past_BJZ.shape[2])))

  options = {"max_lengths_B": jnp.full(8, 9), "max_length": 12, "bos": BOS, "eos": EOS, "alpha": 0.6, "grow": grow}
  search = lambda: beam_search(step_fn, jnp.zeros((8, 4, 0), jnp.int32), batch_size=8, beam_size=4, **options)
  result = jax.tree.map(np.asarray, jax.jit(search)())
  assert grown == rooms
  for sentence in range(8):
    toys.assert_matches(result, sentence, toys.reference_search(tables_BMV[sentence], 9, 0.6, beam_size=4))


def test_large_vocabulary_equals_the_reference():
  # Large enough for the search by chunks.
  tables_BMV = toys.random_tables(seed=10, batch=3, vocab=1111, scale=3)
  tables_BMV[:, :, EOS] += 8
  result = toys.search(tables_BMV, [6, 6, 4], 0.6, beam_size=4, max_length=6)
  for sentence, limit in enumerate([6, 6, 4]):
    expected = toys.reference_search(tables_BMV[sentence], limit, 0.6, beam_size=4)
    toys.assert_matches(result, sentence, expected)


def test_a_batch_split_over_devices():
  tables_BMV = toys.random_tables(seed=12, batch=8)
  limits_B, alpha = np.arange(5, 13, dtype=np.int32), np.float32(0.6)
  search = toys.compiled_search(4, 12)
  expected = search(tables_BMV, limits_B, alpha)
  P, mesh = jax.sharding.PartitionSpec, jax.sharding.Mesh(jax.devices(), ("data",))
  arguments = (*jax.device_put((tables_BMV, limits_B), jax.sharding.NamedSharding(mesh, P("data"))), alpha)
  jax.tree.map(np.testing.assert_array_equal, search(*arguments), expected)
  # Each device by itself, with its own number of steps and nothing to say to the others.
  alone = jax.jit(
    jax.shard_map(
      search, mesh=mesh, in_specs=(P("data"), P("data"), P()), out_specs=P("data"), check_vma=False
    )
  )
  jax.tree.map(np.testing.assert_array_equal, alone(*arguments), expected)
  assert not re.findall(r"all-\w+|collective-\w+|reduce-scatter", alone.lower(*arguments).compile().as_text())


def test_caches_split_over_devices_are_gathered_where_they_lie():
  split = jax.sharding.NamedSharding(
    jax.sharding.Mesh(jax.devices(), ("data",)), jax.sharding.PartitionSpec("data")
  )
  shapes = jax.ShapeDtypeStruct((8, 4, 6, 2), jnp.float32), jax.ShapeDtypeStruct((8, 4), jnp.int32)
  program = jax.jit(gather_beams, in_shardings=split, out_shardings=split).lower(*shapes).compile().as_text()
  assert not re.findall(r"all-\w+|collective-\w+|reduce-scatter", program)


def test_one_compilation_for_a_shape():
  search = toys.compiled_search.__wrapped__(2, 7)
  with compilations() as names:
    for seed, limits, alpha in [(0, [7, 3], 0.0), (1, [1, 0], 0.6), (2, [7, 7], -1.0)]:
      search(toys.random_tables(seed, batch=2), np.array(limits, np.int32), np.float32(alpha))
  assert names.count("search") == 1


@pytest.mark.parametrize(
  "change, message",
  [
    ({"n_best": 5}, "n_best"),
    ({"n_best": 0}, "n_best"),
    ({"max_length": 0}, "max_length"),
    ({"limits_B": [[3, 3]]}, "max_lengths_B"),
    ({"limits_B": [3]}, "max_lengths_B"),
    ({"chain_VV": [[1.0]]}, "logits"),
  ],
)
def test_wrong_arguments_are_named(change, message):
  with pytest.raises(ValueError, match=message):
    markov_search(**({"chain_VV": GARDEN_PATH, "limits_B": [3, 3]} | change))
