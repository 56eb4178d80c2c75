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
