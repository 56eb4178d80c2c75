"""The coverage penalty of a beam search (GNMT, equation 14) against exhaustive search and a plain one without stop."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.decoding.beam import beam_search
from attention_zoo.decoding.candidates import pick
from attention_zoo.decoding.ensemble import ensemble
from attention_zoo.decoding.score import coverage_penalty
from attention_zoo.protocols import Decoding
from tests.decoding import toys
from tests.decoding.toys import BOS, EOS

S, STATES = 3, 97
BETAS = [0.0, 0.2, 1.0, 5.0]


def random_weights(seed, batch):
  """The attention of each state of a toy model: weights_BMS. The last place of every second sentence is padding."""
  weights_BMS = np.random.default_rng(seed).exponential(size=(batch, STATES, S)) ** 2
  weights_BMS[1::2, :, -1] = 0
  return (weights_BMS / weights_BMS.sum(-1, keepdims=True)).astype(np.float32)


def decoding(tables_BMV, weights_BMS, beam_size):
  """The toy model of toys.py, which attends by its state."""
  plain = toys.decoding(tables_BMV, beam_size)
  padding_BJS = np.zeros((len(tables_BMV), beam_size, S), np.float32)
  padding_BJS[1::2, :, -1] = 1

  def step(tokens_BJT, t, cache):
    logits_BJTV, state = plain.step(tokens_BJT, t, cache["state"])
    return logits_BJTV, {"state": state, "attended": cache["attended"] + pick(weights_BMS, state["state"])}

  cache = {"state": plain.cache, "attended": jnp.asarray(padding_BJS)}
  return Decoding(cache, step, coverage=lambda cache: cache["attended"])


@functools.cache
def compiled(beam_size, max_length, n_best, models):
  def search(tables, weights, limits_B, alpha, beta):
    model = ensemble([decoding(*pair, beam_size) for pair in zip(tables, weights, strict=True)])

    def step(tokens_BJ, t, cache):
      logits_BJTV, cache = model.step(tokens_BJ[..., None], t, cache)
      return logits_BJTV[:, :, 0], cache

    return beam_search(
      step, model.cache, batch_size=len(limits_B), beam_size=beam_size, max_lengths_B=limits_B, max_length=max_length,
      bos=BOS, eos=EOS, alpha=alpha, n_best=n_best, reorder=model.reorder,
      coverage=lambda cache: coverage_penalty(model.coverage(cache), beta),
    )  # fmt: skip

  return jax.jit(search)


def search(tables, weights, limits, alpha, beta, *, beam_size, max_length, n_best=None):
  run = compiled(beam_size, max_length, n_best, len(tables))
  found = run(tables, weights, np.asarray(limits, np.int32), np.float32(alpha), np.float32(beta))
  return jax.tree.map(np.asarray, found)


def covered(weights_MS, tokens, beta):
  """Of a hypothesis: each of its tokens, EOS too, was predicted by a step that attended. Padding is left out."""
  state, total_S = toys.next_state(0, BOS, STATES), np.zeros(S)
  for token in tokens:
    total_S += weights_MS[state]
    state = toys.next_state(state, token, STATES)
  return beta * sum(np.log(min(x, 1.0)) for x in total_S if x > 0)


def rescored(found, weights_MS, beta):
  found = [(tokens, score + covered(weights_MS, tokens, beta), logprob) for tokens, score, logprob in found]
  return sorted(found, key=lambda f: -f[1])


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("alpha", [0.0, 0.6, -0.5])
def test_wide_beam_equals_exhaustive_search(alpha, beta):
  tables_BMV, weights_BMS = toys.random_tables(seed=1, batch=4, vocab=4), random_weights(1, 4)
  limits = [5, 5, 4, 3]
  result = search([tables_BMV], [weights_BMS], limits, alpha, beta, beam_size=162, max_length=5)
  for sentence, limit in enumerate(limits):
    wanted = toys.exhaustive_search(tables_BMV[sentence], limit, alpha)
    toys.assert_matches(result, sentence, rescored(wanted, weights_BMS[sentence], beta))


def reference(table_MV, weights_MS, limit, alpha, beta, *, beam_size):
  """`toys.reference_search`, whose finished list is kept by the score with coverage."""
  logprobs_MV = toys.log_softmax(table_MV)
  alive, finished = [((), 0.0, toys.next_state(0, BOS, STATES))], []
  for _ in range(limit):
    grown = [
      ((*tokens, token), logprob + logprobs_MV[state, token], toys.next_state(state, token, STATES))
      for (tokens, logprob, state), token in itertools.product(alive, range(table_MV.shape[1]))
      if logprobs_MV[state, token] > -np.inf
    ]
    grown = sorted(grown, key=lambda c: -c[1])[: 2 * beam_size]
    alive = [c for c in grown if c[0][-1] != EOS][:beam_size]
    finished += [c for c in grown if c[0][-1] == EOS]
  scored = lambda found: [(tokens, lp / toys.penalty(len(tokens), alpha), lp) for tokens, lp, _ in found]
  return rescored(scored(finished or alive), weights_MS, beta)[:beam_size]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_stopping_early_changes_nothing(alpha, beta):
  limits = [12, 12, 12, 9, 5, 1]
  tables_BMV, weights_BMS = toys.random_tables(seed=2, batch=6), random_weights(2, 6)
  tables_BMV[::2, :, EOS] -= 2
  tables_BMV[4, :, EOS] = -np.inf  # none ends: those that have not, stand in, the best score first
  many = search([tables_BMV], [weights_BMS], limits, alpha, beta, beam_size=3, max_length=12)
  one = search([tables_BMV], [weights_BMS], limits, alpha, beta, beam_size=3, max_length=12, n_best=1)
  for sentence, limit in enumerate(limits):
    wanted = reference(tables_BMV[sentence], weights_BMS[sentence], limit, alpha, beta, beam_size=3)
    toys.assert_matches(many, sentence, wanted)
    toys.assert_matches(one, sentence, wanted[:1])


def test_an_ensemble_covers_by_the_mean_of_its_models():
  tables = [toys.random_tables(seed=seed, batch=2, vocab=4) for seed in (3, 4)]
  weights = [random_weights(seed, 2) for seed in (3, 4)]
  result = search(tables, weights, [4, 4], 0.6, 1.0, beam_size=54, max_length=4)
  for sentence in range(2):
    mean_MS = (weights[0][sentence] + weights[1][sentence]) / 2
    probabilities = np.exp([toys.log_softmax(table_BMV[sentence]) for table_BMV in tables]).mean(0)
    wanted = toys.exhaustive_search(np.log(probabilities), 4, 0.6)
    toys.assert_matches(result, sentence, rescored(wanted, mean_MS, 1.0))


def test_one_model_that_does_not_say_is_enough_for_an_ensemble_not_to():
  tables_BMV = toys.random_tables(seed=3, batch=2)
  speaking, silent = decoding(tables_BMV, random_weights(3, 2), 2), toys.decoding(tables_BMV, 2)
  assert ensemble([speaking, speaking]).coverage and ensemble([speaking, silent]).coverage is None


def test_the_penalty_is_the_papers_and_finite():
  attended_BJS = jnp.array([[[0.5, 2.0, 1.0], [0.25, 0.5, 1.5]]])
  np.testing.assert_allclose(coverage_penalty(attended_BJS, 0.2), [[0.2 * np.log(0.5), 0.2 * np.log(0.125)]], rtol=1e-6)
  nothing = coverage_penalty(jnp.zeros((1, 1, 2)), 1.0)
  np.testing.assert_allclose(nothing, 2 * np.log(1e-9), rtol=1e-6)
