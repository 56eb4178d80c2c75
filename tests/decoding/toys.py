"""Toy models and plain float64 searches to hold the beam search against."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.decoding.beam import beam_search
from attention_zoo.decoding.candidates import pick
from attention_zoo.decoding.constraints import UNCONSTRAINED
from attention_zoo.protocols import Decoding

PAD, BOS, EOS = 0, 1, 2


def next_state(state, token, num_states):
  """The memory of the toy model: a hash of everything fed so far."""
  return (state * 13 + token * 7 + 3) % num_states


def random_tables(seed, batch, num_states=97, vocab=5, scale=1.5):
  """Logits of each sentence's toy model by state: tables_BMV."""
  return np.random.default_rng(seed).normal(size=(batch, num_states, vocab), scale=scale).astype(np.float32)


def decoding(tables_BMV, beam_size):
  """The toy model as a Decoding, for steps of one token."""
  batch, num_states, _ = tables_BMV.shape

  def step(tokens_BJ1, t, cache):
    state_BJ = next_state(cache["state"], tokens_BJ1[..., 0], num_states)
    return pick(tables_BMV, state_BJ)[:, :, None], {"state": state_BJ}

  return Decoding({"state": jnp.zeros((batch, beam_size), jnp.int32)}, step)


@functools.cache
def compiled_search(beam_size, max_length, n_best=None):
  """A jitted (tables_BMV, limits_B, alpha, constraints) -> BeamResult over the toy model, whose cache is its state."""

  def search(tables_BMV, limits_B, alpha, constraints=UNCONSTRAINED):
    model = decoding(tables_BMV, beam_size)

    def step_fn(tokens_BJ, t, cache):
      logits_BJ1V, cache = model.step(tokens_BJ[..., None], t, cache)
      return logits_BJ1V[:, :, 0], cache

    return beam_search(
      step_fn,
      model.cache,
      batch_size=tables_BMV.shape[0],
      beam_size=beam_size,
      max_lengths_B=limits_B,
      max_length=max_length,
      bos=BOS,
      eos=EOS,
      alpha=alpha,
      n_best=n_best,
      constraints=constraints,
    )

  return jax.jit(search)


def search(tables_BMV, limits_B, alpha, *, beam_size, max_length, n_best=None, constraints=UNCONSTRAINED):
  limits_B = np.asarray(limits_B, np.int32)
  result = compiled_search(beam_size, max_length, n_best)(tables_BMV, limits_B, np.float32(alpha), constraints)
  return jax.tree.map(np.asarray, result)


def log_softmax(table_MV):
  table_MV = table_MV.astype(np.float64)
  peak_M1 = table_MV.max(axis=1, keepdims=True)
  with np.errstate(divide="ignore", invalid="ignore"):
    return table_MV - peak_M1 - np.log(np.exp(table_MV - peak_M1).sum(axis=1, keepdims=True))


def penalty(length, alpha):
  return ((5 + length) / 6) ** alpha


def reference_search(table_MV, limit, alpha, *, beam_size):
  """Beam search as one would explain it, without early stop, and greedy search of one beam:
  [(tokens, score, log-probability)]."""
  logprobs_MV = log_softmax(table_MV)
  alive, finished = [((), 0.0, next_state(0, BOS, len(table_MV)))], []
  for length in range(1, limit + 1):
    candidates = []
    for tokens, logprob, state in alive:
      for token, extra in enumerate(logprobs_MV[state]):
        if extra > -np.inf:
          candidates.append(((*tokens, token), logprob + extra, next_state(state, token, len(table_MV))))
    candidates = sorted(candidates, key=lambda c: -c[1])[: 2 * beam_size]
    if beam_size == 1:
      candidates = candidates[:1]
    alive = [c for c in candidates if c[0][-1] != EOS][:beam_size]
    finished += [
      (tokens, lp / penalty(length, alpha), lp) for tokens, lp, _ in candidates if tokens[-1] == EOS
    ]
    finished = sorted(finished, key=lambda f: -f[1])[:beam_size]
  return finished or [(tokens, lp / penalty(limit, alpha), lp) for tokens, lp, _ in alive]


def exhaustive_search(table_MV, limit, alpha):
  """Every sequence that ends in EOS within the limit, best first."""
  logprobs_MV = log_softmax(table_MV)
  others = [token for token in range(table_MV.shape[1]) if token != EOS]
  found = []
  for length in range(1, limit + 1):
    for body in itertools.product(others, repeat=length - 1):
      tokens, logprob, state = (*body, EOS), 0.0, next_state(0, BOS, len(table_MV))
      for token in tokens:
        logprob, state = logprob + logprobs_MV[state, token], next_state(state, token, len(table_MV))
      found.append((tokens, logprob / penalty(length, alpha), logprob))
  return sorted(found, key=lambda f: -f[1])


def assert_matches(result, sentence, expected):
  """The sentence's n-best list is `expected`, then empty places."""
  places = result.scores_BJ.shape[1]
  for place in range(places):
    tokens, score, logprob = expected[place] if place < len(expected) else ((), -np.inf, -np.inf)
    length = result.lengths_BJ[sentence, place]
    row = result.tokens_BJT[sentence, place]
    assert tuple(row[:length]) == tokens, (sentence, place, row, tokens)
    assert np.all(row[length:] == PAD)
    np.testing.assert_allclose(result.scores_BJ[sentence, place], score, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result.logprobs_BJ[sentence, place], logprob, rtol=1e-5, atol=1e-5)
