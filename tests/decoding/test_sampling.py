"""Sampling against exact distributions, at the boundaries of each cut, and row by row whatever the companions."""

import functools
import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from attention_zoo.decoding import sampling
from attention_zoo.decoding.sampling import Options, advance, begin, changed, choose
from attention_zoo.protocols import Decoding

PROBABILITIES = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
LOGITS_BV = jnp.log(jnp.asarray(PROBABILITIES))[None].astype(jnp.float32)


def kept(**options):
  return [i for i, x in enumerate(np.asarray(changed(LOGITS_BV, Options(**options)))[0]) if x > -math.inf]


@pytest.mark.parametrize(
  ("options", "expected"),
  [
    ({}, [0, 1, 2, 3, 4]),
    ({"top_k": 1}, [0]),
    ({"top_k": 9}, [0, 1, 2, 3, 4]),
    ({"top_p": 0.39}, [0]),
    ({"top_p": 0.41}, [0, 1]),
    ({"top_p": 0.699}, [0, 1]),
    ({"top_p": 0.701}, [0, 1, 2]),
    ({"top_p": 1e-9}, [0]),
    ({"top_p": 1.0, "top_k": 4}, [0, 1, 2, 3]),
    ({"min_p": 0.24}, [0, 1, 2, 3]),
    ({"min_p": 0.26}, [0, 1, 2]),
    ({"min_p": 1.0}, [0]),
    ({"top_k": 2, "top_p": 0.5}, [0]),  # of the two that are left, the first has 4/7
    ({"temperature": 0.5, "top_p": 0.56}, [0]),  # 0.16 of 0.285 is 0.561
    ({"temperature": 0.5, "top_p": 0.565}, [0, 1]),
  ],
)
def test_what_each_cut_keeps(options, expected):
  assert kept(**options) == expected


def test_equal_probabilities_are_kept_by_their_ids():
  logits_BV = jnp.zeros((1, 6))
  found = np.asarray(changed(logits_BV, Options(top_k=2)))[0]
  assert [i for i in range(6) if found[i] > -math.inf] == [0, 1]


def test_the_repetition_penalty_is_the_papers():
  logits_BV, seen_BV = jnp.array([[2.0, -2.0, 1.0]]), jnp.array([[True, True, False]])
  found = changed(logits_BV, Options(repetition_penalty=2.0), seen_BV)
  np.testing.assert_allclose(found, [[1.0, -4.0, 1.0]])


@pytest.mark.parametrize(
  "options", [{}, {"temperature": 0.7}, {"top_k": 3}, {"top_p": 0.8}, {"min_p": 0.3, "temperature": 1.5}]
)
def test_draws_follow_the_distribution(options):
  count = 4000
  keys = jax.vmap(jax.random.key)(jnp.arange(count))
  drawn = choose(jnp.broadcast_to(LOGITS_BV, (count, 5)), keys, Options(**options))
  weights = PROBABILITIES ** (1 / options.get("temperature", 1.0)) * np.isin(np.arange(5), kept(**options))
  expected = count * weights / weights.sum()
  observed = np.bincount(np.asarray(drawn), minlength=5)
  assert not observed[expected == 0].any()
  p = scipy.stats.chisquare(observed[expected > 0], expected[expected > 0]).pvalue if (expected > 0).sum() > 1 else 1
  assert p > 1e-3


def test_temperature_0_takes_the_most_probable():
  keys = jax.vmap(jax.random.key)(jnp.arange(3))
  logits_BV = jnp.array([[0.0, 3.0, 3.0], [1.0, 0.0, 0.5], [-5.0, -6.0, -4.0]])
  assert choose(logits_BV, keys, Options(temperature=0.0)).tolist() == [1, 0, 2]


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.parametrize("options", [{"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.3}, {"repetition_penalty": 1.7}])
def test_cuts_are_those_of_transformers(options):
  torch = pytest.importorskip("torch")
  from transformers.generation import logits_process as theirs

  logits = np.random.default_rng(0).normal(size=(4, 11)).astype(np.float32)
  ids = np.array([[1, 2], [3, 3], [0, 10], [5, 6]])
  makers = {
    "top_k": theirs.TopKLogitsWarper, "top_p": theirs.TopPLogitsWarper, "min_p": theirs.MinPLogitsWarper,
    "repetition_penalty": theirs.RepetitionPenaltyLogitsProcessor,
  }  # fmt: skip
  ((name, value),) = options.items()
  expected = makers[name](value)(torch.tensor(ids), torch.tensor(logits)).numpy()
  seen = np.zeros((4, 11), bool)
  np.put_along_axis(seen, ids, True, axis=1)
  np.testing.assert_allclose(changed(jnp.asarray(logits), Options(**options), jnp.asarray(seen)), expected, rtol=1e-6)


# A model whose next token depends on all that came before, by a running sum in its cache.

V, PAD, EOS = 7, 0, 6
TABLE = jnp.asarray(np.random.default_rng(1).normal(size=(64, V)).astype(np.float32)).at[:, EOS].add(-1.0)


def decoding_of(B):
  def step(tokens_BJT, t, cache):
    def one(cache, token_BJ):
      index, total_BJL = cache
      at = (jnp.arange(total_BJL.shape[2]) == index)[None, None]
      before_BJ = jnp.sum(jnp.where(jnp.arange(total_BJL.shape[2])[None, None] < index, total_BJL, 0), -1)
      total_BJL = jnp.where(at, (token_BJ + 1)[..., None], total_BJL)
      return (index + 1, total_BJL), TABLE[(before_BJ * 3 + token_BJ) % 64]

    (_, cache), logits_TBJV = jax.lax.scan(one, (t, cache), jnp.moveaxis(tokens_BJT, -1, 0))
    return jnp.moveaxis(logits_TBJV, 0, 2), cache

  grow = lambda cache, length: jnp.pad(cache, ((0, 0), (0, 0), (0, length - cache.shape[2])))
  return Decoding(jnp.zeros((B, 1, 0), jnp.int32), step, grow=grow, max_length=24)


@functools.partial(jax.jit, static_argnames="room")
def begin_jit(prompt_BP, length, seeds_B, room=20):
  return begin(decoding_of(prompt_BP.shape[0]), prompt_BP, length, seeds_B, room=room, pad=PAD)


@jax.jit
def advance_jit(state, until, options):
  return advance(decoding_of(state.tokens_BL.shape[0]).step, state, until, options, eos=EOS)


def by_hand(prompt, seed, options, room=20):
  """One row, one token at a time, the whole sequence computed anew for each."""
  tokens, logprobs = list(prompt), []
  for t in range(len(prompt), room):
    total = sum(token + 1 for token in tokens[:-1])
    logits = TABLE[(total * 3 + tokens[-1]) % 64]
    seen = jnp.isin(jnp.arange(V), jnp.array(tokens))[None]
    key = jax.random.fold_in(jax.random.key(seed), t)
    token = int(choose(logits[None], key[None], options, seen)[0])
    tokens.append(token)
    logprobs.append(float(jax.nn.log_softmax(logits)[token]))
    if token == EOS:
      break
  return tokens, logprobs


@pytest.mark.parametrize("options", [Options(temperature=0.8, top_p=0.9), Options(repetition_penalty=1.5, top_k=4)])
def test_rows_are_what_they_are_alone(options):
  prompts = jnp.array([[1, 2, 3, 0], [4, 4, 5, 9], [1, 2, 3, 1]])  # three tokens each; what follows is padding
  seeds = jnp.array([7, 8, 9])
  state = advance_jit(begin_jit(prompts, 3, seeds), 20, options)
  for b in range(3):
    tokens, logprobs = by_hand(prompts[b, :3].tolist(), int(seeds[b]), options)
    count = int(state.lengths_B[b])
    assert state.tokens_BL[b, :count].tolist() == tokens
    assert (state.tokens_BL[b, count:] == PAD).all() and bool(state.done_B[b]) == (tokens[-1] == EOS)
    np.testing.assert_allclose(state.logprobs_BL[b, 3:count], logprobs, rtol=1e-5, atol=1e-6)
    assert not state.logprobs_BL[b, :3].any() and not state.logprobs_BL[b, count:].any()
  alone = advance_jit(begin_jit(prompts[1:2], 3, seeds[1:2]), 20, options)
  assert alone.tokens_BL[0].tolist() == state.tokens_BL[1].tolist()


def test_pieces_give_the_whole():
  prompts, seeds = jnp.array([[1, 2], [3, 4]]), jnp.array([0, 1])
  whole = advance_jit(begin_jit(prompts, 2, seeds), 20, Options())
  state = begin_jit(prompts, 2, seeds)
  for until in (3, 4, 11, 20):
    state = advance_jit(state, until, Options())
  assert state.tokens_BL.tolist() == whole.tokens_BL.tolist()
  assert state.lengths_B.tolist() == whole.lengths_B.tolist()


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="25 positions are more than the model's 24"):
    begin_jit(jnp.array([[1]]), 1, jnp.array([0]), room=25)
  with pytest.raises(ValueError, match="a prompt of 3 positions does not fit into 2"):
    begin_jit(jnp.array([[1, 2, 3]]), 3, jnp.array([0]), room=2)


@pytest.mark.parametrize("most", [3, 4, 6])  # a rest, a smaller rest, none
def test_a_long_prompt_is_read_in_parts(monkeypatch, most):
  prompt_BP, seeds_B = jnp.array([[2, 4, 3, 3, 2, 4, 4, 2, 3, 2, 4, 3]] * 2).at[1, 5].set(2), jnp.arange(2)
  if most == 3:
    prompt_BP = prompt_BP[:, :11]
  whole = begin_jit(prompt_BP, 10, seeds_B)
  monkeypatch.setattr(sampling, "_MOST", most)
  in_parts = jax.jit(lambda length: begin(decoding_of(2), prompt_BP, length, seeds_B, room=20, pad=PAD))
  np.testing.assert_array_equal(in_parts(10).cache, whole.cache)
  for length in range(1, prompt_BP.shape[1] + 1):
    np.testing.assert_array_equal(in_parts(length).logits_BV, begin_jit(prompt_BP, length, seeds_B).logits_BV)
