"""Scores of given sequences are on the scale of the beam search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.decoding import score
from tests.decoding import toys
from tests.decoding.toys import BOS, EOS

sequence_scores = jax.jit(score.sequence_scores)


@pytest.mark.parametrize("alpha", [0.0, 0.6, -1.0])
def test_beam_output_scores_the_same(alpha):
  tables_BMV = toys.random_tables(seed=11, batch=8, scale=2)
  tables_BMV[2, :, EOS] = -np.inf  # an unfinished hypothesis at the limit
  limits = [9, 9, 9, 4, 12, 12, 1, 0]
  result = toys.search(tables_BMV, limits, alpha, beam_size=4, max_length=12)
  for place in range(4):
    targets_BT, lengths_B = result.tokens_BJT[:, place], result.lengths_BJ[:, place]
    inputs_BT = np.concatenate([np.full((8, 1), BOS), targets_BT[:, :-1]], axis=1)
    states_BT = np.zeros((8, 13), int)
    for t in range(12):
      states_BT[:, t + 1] = toys.next_state(states_BT[:, t], inputs_BT[:, t], tables_BMV.shape[1])
    logits_BTV = tables_BMV[np.arange(8)[:, None], states_BT[:, 1:]]
    weights_BT = (np.arange(12) < lengths_B[:, None]).astype(np.float32)
    scores = sequence_scores(jnp.asarray(logits_BTV), jnp.asarray(targets_BT), weights_BT, alpha=alpha)
    exists_B = lengths_B > 0
    np.testing.assert_allclose(scores.scores_B[exists_B], result.scores_BJ[exists_B, place], rtol=1e-5)
    totals_B = scores.logprobs_BT.sum(axis=1)
    np.testing.assert_allclose(totals_B[exists_B], result.logprobs_BJ[exists_B, place], rtol=1e-5)


def test_by_hand():
  logits_BTV = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.0, 1.0, 0.0]]] * 2)) + 7
  targets_BT = jnp.array([[1, 2, 0], [0, 0, 0]])
  scores = sequence_scores(logits_BTV, targets_BT, jnp.array([[1.0, 1, 0], [0, 0, 0]]), alpha=1.0)
  np.testing.assert_allclose(scores.logprobs_BT, [[np.log(0.25), np.log(0.8), 0], [0, 0, 0]], rtol=1e-5)
  np.testing.assert_allclose(scores.scores_B, [np.log(0.2) / (7 / 6), 0], rtol=1e-5)


def test_impossible_target_is_minus_infinity_and_bfloat16_is_normalised_in_float32():
  logits_BTV = jnp.array([[[0.0, -np.inf, 0.0]], [[0.0, 0.0, 0.0]]], jnp.bfloat16)
  scores = sequence_scores(logits_BTV, jnp.array([[1], [1]]), jnp.ones((2, 1)), alpha=0.0)
  assert scores.logprobs_BT.dtype == jnp.float32
  np.testing.assert_allclose(scores.scores_B, [-np.inf, -np.log(3)], rtol=1e-6)
