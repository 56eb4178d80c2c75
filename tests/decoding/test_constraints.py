"""Forced prefixes and phrases: against exhaustive search, and their promises at every beam size."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attention_zoo.decoding import constraints as constraints_lib
from attention_zoo.decoding.candidates import log_probabilities
from attention_zoo.decoding.constraints import NONE, Constraints
from tests.decoding import toys
from tests.decoding.test_candidates import float64_log_probs
from tests.decoding.toys import EOS

ALPHAS = [0.0, 0.6, -0.5]
LIMITS = [5, 5, 4, 3]


def filled(lists, length):
  return np.array([[*one, *[NONE] * (length - len(one))] for one in lists], np.int32)


def constraints(prefixes=None, phrases=None, *, T=4, C=2, W=3):
  """prefixes: a list of ids a sentence; phrases: a list of such lists a sentence."""
  return Constraints(
    None if prefixes is None else filled(prefixes, T),
    None if phrases is None else np.stack([filled([*some, *[[]] * (C - len(some))], W) for some in phrases]),
  )


def holds(tokens, phrase):
  return any(tuple(tokens[i : i + len(phrase)]) == tuple(phrase) for i in range(len(tokens)))


def best_of_all(table_MV, limit, alpha, prefix=(), phrases=()):
  """Exhaustive search among the hypotheses that begin with the prefix and hold the phrases."""
  found = toys.exhaustive_search(table_MV, limit, alpha)
  return [f for f in found if f[0][: len(prefix)] == tuple(prefix) and all(holds(f[0], phrase) for phrase in phrases)]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_wide_beam_with_prefixes_equals_exhaustive_search(alpha):
  tables_BMV = toys.random_tables(seed=1, batch=4, vocab=4)
  prefixes = [[3], [], [1, 1, 3], [0, 3]]
  result = toys.search(tables_BMV, LIMITS, alpha, beam_size=162, max_length=5, constraints=constraints(prefixes))
  for b, limit in enumerate(LIMITS):
    expected = best_of_all(tables_BMV[b], limit, alpha, prefixes[b])
    assert expected
    toys.assert_matches(result, b, expected)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(
  "phrases",
  [
    [[[3]], [], [[0, 1]], [[1], [3]]],
    [[[3, 3, 1]], [[0, 1], [1, 0]], [[3, 3], [3]], [[0, 0]]],  # overlaps, one inside another, repetitions
    [[[1, 1, 3], [1, 3]], [[1, 3, 1], [3, 1, 0]], [[1], [1]], [[3], []]],
  ],
)
def test_wide_beam_with_phrases_equals_exhaustive_search(alpha, phrases):
  tables_BMV = toys.random_tables(seed=2, batch=4, vocab=4)
  result = toys.search(
    tables_BMV, LIMITS, alpha, beam_size=324, max_length=5, constraints=constraints(phrases=phrases)
  )
  for b, limit in enumerate(LIMITS):
    expected = best_of_all(tables_BMV[b], limit, alpha, phrases=phrases[b])
    assert expected
    toys.assert_matches(result, b, expected)


def test_prefixes_and_phrases_together_equal_exhaustive_search():
  """A phrase may stand in the prefix, or begin in it."""
  tables_BMV = toys.random_tables(seed=3, batch=4, vocab=4)
  prefixes, phrases = [[3, 1], [3, 1], [], [0]], [[[3]], [[1, 0], [0, 3]], [[1]], [[0, 0]]]
  given = constraints(prefixes, phrases)
  result = toys.search(tables_BMV, LIMITS, 0.6, beam_size=324, max_length=5, constraints=given)
  for b, limit in enumerate(LIMITS):
    toys.assert_matches(result, b, best_of_all(tables_BMV[b], limit, 0.6, prefixes[b], phrases[b]))


@pytest.mark.parametrize("beam_size", [1, 4])
def test_the_beginning_of_the_best_gives_the_best(beam_size):
  tables_BMV = toys.random_tables(seed=4, batch=8)
  tables_BMV[:, :, EOS] -= 1
  plain = toys.search(tables_BMV, [9] * 8, 0.6, beam_size=beam_size, max_length=9, n_best=1)
  for length in (0, 1, 3, 8):
    ends = [int(row[0]) - 1 for row in plain.lengths_BJ]
    prefixes = [plain.tokens_BJT[b, 0, : min(length, ends[b])].tolist() for b in range(8)]
    given = constraints(prefixes, T=8)
    result = toys.search(tables_BMV, [9] * 8, 0.6, beam_size=beam_size, max_length=9, n_best=1, constraints=given)
    np.testing.assert_array_equal(result.tokens_BJT, plain.tokens_BJT)
    np.testing.assert_allclose(result.scores_BJ, plain.scores_BJ, rtol=1e-5)


tokens = st.sampled_from([0, 1, 3, 4])
some_phrases = st.lists(st.lists(tokens, min_size=1, max_size=3), max_size=2)


@settings(max_examples=30, deadline=None)
@given(
  st.integers(0, 2**31),
  st.sampled_from([1, 2, 5]),
  st.lists(st.lists(tokens, max_size=4), min_size=4, max_size=4),
  st.lists(some_phrases, min_size=4, max_size=4),
)
def test_whatever_the_beam_phrases_are_held_and_companions_change_nothing(seed, beam_size, prefixes, phrases):
  """With room for prefix, phrases and the end: also where one phrase tempts the beam to stay within another."""
  tables_BMV = toys.random_tables(seed, batch=4)
  options = {"beam_size": beam_size, "max_length": 12}
  limits = [len(prefix) + sum(map(len, some)) + 1 for prefix, some in zip(prefixes, phrases, strict=True)]
  result = toys.search(tables_BMV, limits, 0.6, **options, constraints=constraints(prefixes, phrases))
  for b in range(4):
    assert result.scores_BJ[b, 0] > -np.inf
    for j in range(beam_size):
      row = result.tokens_BJT[b, j, : result.lengths_BJ[b, j]].tolist()
      assert not row or row[-1] == EOS or not phrases[b]
      assert row[: len(prefixes[b])] == prefixes[b][: len(row)]
      assert not row or all(holds(row, phrase) for phrase in phrases[b])
  others = [[3], [], [], [1]], [[[4, 4]], [[0], [1]], [], [[3, 1, 4]]]
  changed = [[mine[0], *other[1:]] for mine, other in zip((prefixes, phrases), others, strict=True)]
  disturbed = np.concatenate([tables_BMV[:1], np.full_like(tables_BMV[1:], np.nan)])
  again = toys.search(disturbed, [limits[0], 5, 9, 12], 0.6, **options, constraints=constraints(*changed))
  for name in result._fields:
    np.testing.assert_array_equal(getattr(result, name)[0], getattr(again, name)[0])


@pytest.mark.parametrize("beam_size", [1, 4])
def test_a_sentence_without_constraints_is_searched_as_ever(beam_size):
  tables_BMV = toys.random_tables(seed=5, batch=4)
  tables_BMV[:, :, EOS] -= 6  # it does not end of itself
  plain = toys.search(tables_BMV, [9] * 4, 0.6, beam_size=beam_size, max_length=9)
  given = constraints([[], [4], [], []], [[], [], [[4, 1]], [[3], [1, 1]]])
  result = toys.search(tables_BMV, [9] * 4, 0.6, beam_size=beam_size, max_length=9, constraints=given)
  for name in plain._fields:
    np.testing.assert_array_equal(getattr(plain, name)[0], getattr(result, name)[0])
  assert all(np.any(plain.tokens_BJT[b] != result.tokens_BJT[b]) for b in (1, 2, 3))


def test_a_greedy_search_is_not_held_up_by_what_the_model_likes():
  """Of 1 1 1 3 and 1 1 1 4 the beginning can be repeated for ever; here the model would."""
  tables_BMV = toys.random_tables(seed=6, batch=1, scale=0.01)
  tables_BMV[:, :, [1, 3]] += [9, 1]
  phrases = [[[1, 1, 1, 3], [1, 1, 1, 4]]]
  result = toys.search(tables_BMV, [9], 0.6, beam_size=1, max_length=9, constraints=constraints(phrases=phrases, W=4))
  assert result.tokens_BJT[0, 0].tolist() == [1, 1, 1, 3, 1, 1, 1, 4, EOS]


def test_phrases_without_room_leave_what_has_not_ended():
  tables_BMV = toys.random_tables(seed=7, batch=2)
  given = constraints(phrases=[[[3, 4, 3]], [[3, 4, 3], [1]]])
  result = toys.search(tables_BMV, [3, 4], 0.6, beam_size=3, max_length=5, constraints=given)
  assert not (result.tokens_BJT == EOS).any()
  assert (result.lengths_BJ == [[3] * 3, [4] * 3]).all() and np.isfinite(result.scores_BJ).all()


def test_matching_is_that_of_every_suffix():
  rng = np.random.default_rng(0)
  phrases_BCW = filled(rng.integers(3, 5, size=(12, 5)).tolist(), 6).reshape(4, 3, 6)
  phrases_BCW[:, 1, 2:] = NONE
  guide = constraints_lib.Guide(Constraints(None, jnp.asarray(phrases_BCW)), 1, EOS)
  matched_BJC, texts = guide.start(), rng.integers(3, 5, size=(4, 20))
  for t in range(20):
    matched_BJC = guide._advance(matched_BJC, jnp.asarray(texts[:, t : t + 1]))
    for b in range(4):
      for c in range(3):
        phrase, text = [i for i in phrases_BCW[b, c] if i != NONE], texts[b, : t + 1].tolist()
        longest = max(n for n in range(len(phrase) + 1) if text[len(text) - n :] == phrase[:n])
        assert matched_BJC[b, 0, c] == (len(phrase) if holds(text, phrase) else longest)


def test_log_probabilities_of_given_tokens():
  rng = np.random.default_rng(0)
  logits_BJV, alive_BJ = rng.normal(size=(2, 3, 50)), -rng.exponential(size=(2, 3))
  logits_BJV[0, 0, 7] = -np.inf
  tokens_BJE = rng.integers(0, 50, size=(2, 3, 4))
  tokens_BJE[0, 0, 0] = 7
  found = log_probabilities(jnp.asarray(logits_BJV, jnp.float32), jnp.asarray(alive_BJ, jnp.float32), tokens_BJE)
  expected = float64_log_probs(logits_BJV, alive_BJ).reshape(2, 3, 50)
  np.testing.assert_allclose(found, np.take_along_axis(expected, tokens_BJE, axis=-1), rtol=1e-5)
