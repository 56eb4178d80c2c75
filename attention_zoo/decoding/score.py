"""Scores of given target sequences, on the scale of the beam search."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class SequenceScores(NamedTuple):
  """logprobs_BT: of each target token in nats, 0 where the weight is 0; scores_B: sum over length penalty."""

  logprobs_BT: jax.Array
  scores_B: jax.Array


def length_penalty(length, alpha):
  """((5 + length) / 6)^alpha (Wu et al. 2016, equation 14); length counts the target tokens, EOS included."""
  return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** alpha


def coverage_penalty(attended_BJS, beta):
  """beta sum_s log(min(attended_s, 1)) (Wu et al. 2016, equation 14): at most 0, and 0 where all has been attended to.

  attended_BJS: the attention that each place of the source has got. One that has got less than a billionth, or none (a
  local attention), counts as a billionth: the score stays a number. Returns BJ.
  """
  return beta * jnp.sum(jnp.log(jnp.clip(attended_BJS.astype(jnp.float32), 1e-9, 1.0)), axis=-1)


def sequence_scores(logits_BTV, targets_BT, weights_BT, *, alpha):
  """Log-probability of every target token, and each sequence's log-probability over its length penalty.

  logits_BTV are those of teacher forcing (position t has seen the targets before t); targets_BT end in EOS;
  weights_BT are nonzero on target tokens, EOS included, and 0 on padding. A sequence without tokens scores 0.
  Softmax in float32.
  """
  logits_BTV = logits_BTV.astype(jnp.float32)
  chosen_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
  logprobs_BT = jnp.minimum(chosen_BT - jax.nn.logsumexp(logits_BTV, axis=-1), 0.0)
  counts_BT = weights_BT != 0
  logprobs_BT = jnp.where(counts_BT, logprobs_BT, 0.0)
  lengths_B = jnp.sum(counts_BT, axis=-1)
  return SequenceScores(logprobs_BT, jnp.sum(logprobs_BT, axis=-1) / length_penalty(lengths_B, alpha))
