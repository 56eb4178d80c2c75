"""The best extensions of the beams: both ways of finding them against NumPy's stable sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.decoding import candidates

WAYS = {
  "sort": jax.jit(candidates._by_full_sort, static_argnames="count"),
  "chunks": jax.jit(candidates._by_chunk_maxima, static_argnames="count"),
}
parametrize_ways = pytest.mark.parametrize("way", WAYS)


def float64_log_probs(logits_BJV, alive_BJ):
  logits_BJV = np.asarray(logits_BJV, np.float64)
  with np.errstate(divide="ignore", invalid="ignore"):
    shifted_BJV = logits_BJV - logits_BJV.max(axis=-1, keepdims=True)
    logprobs_BJV = shifted_BJV - np.log(np.exp(shifted_BJV).sum(axis=-1, keepdims=True)) + alive_BJ[..., None]
  return np.where(logits_BJV == -np.inf, -np.inf, logprobs_BJV).reshape(len(logits_BJV), -1)


@parametrize_ways
@pytest.mark.parametrize("vocab", [1024, 1000, 1153])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_random_logits(way, vocab, dtype):
  rng = np.random.default_rng(vocab)
  logits_BJV = jnp.asarray(rng.normal(size=(6, 4, vocab), scale=3), dtype)
  alive_BJ = -np.sort(rng.exponential(size=(6, 4)).astype(np.float32))
  logprobs_BP, parents_BP, tokens_BP, failed_BJ = WAYS[way](logits_BJV, alive_BJ, count=8)
  expected = float64_log_probs(logits_BJV, alive_BJ)
  order = np.argsort(-expected, axis=1, kind="stable")[:, :8]
  np.testing.assert_allclose(logprobs_BP, np.take_along_axis(expected, order, axis=1), rtol=1e-5)
  if dtype == jnp.float32:  # in bfloat16 many are equal but for rounding
    np.testing.assert_array_equal(parents_BP * vocab + tokens_BP, order)
  assert not failed_BJ.any()


@parametrize_ways
def test_ties_by_beam_then_token(way):
  # Few distinct logits, the large ones rare, and equal rows: ties within and across chunks and beams.
  rng = np.random.default_rng(0)
  logits_BJV = np.repeat(rng.binomial(4, 0.03, size=(8, 1, 700)), 3, axis=1).astype(np.float32)
  logits_BJV[0] = 0
  logits_BJV[0, :, 600] = 3  # the chunk with the largest is not the first with a 2
  logits_BJV[0, :, [10, 601]] = 2
  alive_BJ = np.zeros((8, 3), np.float32)
  _, parents_BP, tokens_BP, _ = WAYS[way](logits_BJV, alive_BJ, count=6)
  order = np.argsort(-logits_BJV.reshape(8, -1), axis=1, kind="stable")[:, :6]
  np.testing.assert_array_equal(parents_BP * 700 + tokens_BP, order)


def test_ways_agree_where_many_tie():
  rng = np.random.default_rng(1)
  logits_BJV = rng.integers(-4, 4, size=(16, 4, 900)).astype(np.float32)
  alive_BJ = np.array([0, -1, -1, -np.inf], np.float32)[None].repeat(16, axis=0)
  by_sort, by_chunks = (way(logits_BJV, alive_BJ, count=8) for way in WAYS.values())
  np.testing.assert_array_equal(by_sort[1], by_chunks[1])
  np.testing.assert_array_equal(by_sort[2], by_chunks[2])
  np.testing.assert_allclose(by_sort[0], by_chunks[0], rtol=1e-6)


@parametrize_ways
def test_forbidden_tokens_and_dead_beams(way):
  logits_BJV = np.full((3, 2, 900), -np.inf, np.float32)
  logits_BJV[0, 0, [3, 899]] = 0  # two tokens only
  logits_BJV[1, 1] = 5  # in a dead beam
  logits_BJV[2, 0, 898], logits_BJV[2, 1] = 1, np.nan  # NaN in a dead beam
  alive_BJ = np.array([[-1, -2], [-1, -np.inf], [-1, -np.inf]], np.float32)
  logprobs_BP, parents_BP, tokens_BP, failed_BJ = WAYS[way](logits_BJV, alive_BJ, count=4)
  np.testing.assert_allclose(
    logprobs_BP,
    [[-1 - np.log(2), -1 - np.log(2), -np.inf, -np.inf], [-np.inf] * 4, [-1, *[-np.inf] * 3]],
    rtol=1e-6,
  )
  np.testing.assert_array_equal(tokens_BP[0, :2], [3, 899])
  assert tokens_BP[2, 0] == 898 and np.all((tokens_BP >= 0) & (tokens_BP < 900))
  assert np.all((parents_BP >= 0) & (parents_BP < 2))
  np.testing.assert_array_equal(failed_BJ, [[False, False], [False, False], [False, True]])


@parametrize_ways
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
@pytest.mark.parametrize("rest", [0.0, -np.inf])
def test_faults_are_flagged(way, bad, rest):
  logits_BJV = np.zeros((1, 3, 900), np.float32)
  logits_BJV[0, 1] = rest
  logits_BJV[0, 1, 777] = bad
  *_, failed_BJ = WAYS[way](logits_BJV, np.zeros((1, 3), np.float32), count=6)
  np.testing.assert_array_equal(failed_BJ, [[False, True, False]])


@parametrize_ways
def test_never_gains_probability(way):
  # One token has all the probability; log-sum-exp may round below its logit.
  rng = np.random.default_rng(2)
  logits_BJV = rng.normal(size=(64, 1, 900), scale=10).astype(np.float32)
  logits_BJV[:, :, 5] = rng.uniform(50, 1000, size=(64, 1))
  alive_BJ = np.full((64, 1), -0.1, np.float32)
  assert np.all(WAYS[way](logits_BJV, alive_BJ, count=2)[0] <= alive_BJ)


def test_the_way_is_chosen_by_size_and_platform(monkeypatch):
  taken = []
  by_chunk_maxima = candidates._by_chunk_maxima
  monkeypatch.setattr(
    candidates,
    "_by_chunk_maxima",
    lambda *args, count: taken.append(args[0].shape) or by_chunk_maxima(*args, count=count),
  )
  for vocab in (37000, 900, 300):
    jax.eval_shape(
      lambda *args: candidates.best_candidates(*args, 8), jnp.zeros((2, 4, vocab)), jnp.zeros((2, 4))
    )
  assert taken == [(2, 4, 37000), (2, 4, 900)]
