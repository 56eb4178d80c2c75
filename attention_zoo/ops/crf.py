"""Linear-chain conditional random fields (Lafferty et al. 2001), as Lample et al. 2016 put one on an LSTM.

A path y_1 .. y_n of labels scores

  s(y) = start[y_1] + sum_t emission[t, y_t] + sum_{t>1} transition[y_{t-1}, y_t] + end[y_n],

and has the probability exp(s(y)) / Z, Z the sum of exp(s) over all paths. Scores and sums are float32. A row is real
from its beginning to its length, with padding behind it, where mask_BT is False; a row of padding alone scores 0 and
has log Z = 0. The gradient of log Z by emission[t, y] is the probability that label y stands at t.

Letters: V the labels, in their role as a vocabulary. Cost: that of `log_partition`, but for what says its own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.ops import shapes

# Added to what may not be. Not infinite: a labelling that breaks the rules has a bad loss then, and not none.
FORBIDDEN = -1e9


class Potentials(NamedTuple):
  """The scores that do not depend on the row: transition_VV[a, b] of b after a, start_V, end_V."""

  transition_VV: jax.Array
  start_V: jax.Array
  end_V: jax.Array


def path_score(emission_BTV, label_BT, mask_BT, potentials: Potentials):
  """s(y) of the labels of each row, [B]. Where the mask is False labels are not looked at.

  Raises ValueError for an argument whose shape or dtype does not fit. Cost: time and memory O(B T).
  """
  emission_BTV, potentials = _checked(emission_BTV, mask_BT, potentials, label_BT=label_BT)
  at_BT = jnp.take_along_axis(emission_BTV, label_BT[..., None], axis=2)[..., 0]
  at_BT = at_BT.at[:, 1:].add(potentials.transition_VV[label_BT[:, :-1], label_BT[:, 1:]])
  at_BT = at_BT.at[:, 0].add(potentials.start_V[label_BT[:, 0]])
  last_B1 = jnp.maximum(mask_BT.sum(1, keepdims=True) - 1, 0)
  end_B = potentials.end_V[jnp.take_along_axis(label_BT, last_B1, axis=1)[:, 0]]
  return jnp.where(mask_BT, at_BT, 0).sum(1) + jnp.where(mask_BT[:, 0], end_B, 0)


def log_partition(emission_BTV, mask_BT, potentials: Potentials):
  """log Z of each row, [B], by the forward algorithm.

    alpha_1 = start + emission_1;  alpha_t[b] = log sum_a exp(alpha_{t-1}[a] + transition[a, b]) + emission[t, b];
    log Z = log sum_b exp(alpha_n[b] + end[b])

  Raises ValueError as `path_score` does. Cost: T steps one after the other, time O(B T V^2), memory O(B T V).
  """
  emission_BTV, potentials = _checked(emission_BTV, mask_BT, potentials)

  @jax.checkpoint  # the V^2 sums of a step are not kept for the gradient, but computed twice
  def step(alpha_BV, now):
    emission_BV, real_B1 = now
    sums_BVV = alpha_BV[:, :, None] + potentials.transition_VV[None]
    new_BV = jax.nn.logsumexp(sums_BVV, axis=1) + emission_BV
    return jnp.where(real_B1, new_BV, alpha_BV), None

  alpha_BV = potentials.start_V[None] + emission_BTV[:, 0]
  alpha_BV, _ = jax.lax.scan(step, alpha_BV, _later(emission_BTV, mask_BT))
  return jnp.where(mask_BT[:, 0], jax.nn.logsumexp(alpha_BV + potentials.end_V[None], axis=1), 0)


def log_likelihood(emission_BTV, label_BT, mask_BT, potentials: Potentials):
  """log of the probability of each row's labels, [B]; 0 for a row of padding."""
  return path_score(emission_BTV, label_BT, mask_BT, potentials) - log_partition(emission_BTV, mask_BT, potentials)


def viterbi(emission_BTV, mask_BT, potentials: Potentials):
  """(the path of the highest score, int32 BT, 0 where the mask is False; its score, [B]).

  Of several paths with that score it takes the one whose last label is the first in order, and so on before it.
  Raises ValueError as `path_score` does. Cost: as `log_partition`.
  """
  emission_BTV, potentials = _checked(emission_BTV, mask_BT, potentials)
  V = emission_BTV.shape[2]

  def step(best_BV, now):
    emission_BV, real_B1 = now
    sums_BVV = best_BV[:, :, None] + potentials.transition_VV[None]
    before_BV = jnp.where(real_B1, jnp.argmax(sums_BVV, axis=1), jnp.arange(V)[None])
    return jnp.where(real_B1, jnp.max(sums_BVV, axis=1) + emission_BV, best_BV), before_BV

  best_BV = potentials.start_V[None] + emission_BTV[:, 0]
  best_BV, before_TBV = jax.lax.scan(step, best_BV, _later(emission_BTV, mask_BT))
  whole_BV = best_BV + potentials.end_V[None]
  last_B = jnp.argmax(whole_BV, axis=1)

  def back(label_B, before_BV):
    label_B = jnp.take_along_axis(before_BV, label_B[:, None], axis=1)[:, 0]
    return label_B, label_B

  _, found_TB = jax.lax.scan(back, last_B, before_TBV, reverse=True)
  label_BT = jnp.concatenate([found_TB, last_B[None]]).T.astype(jnp.int32)
  return jnp.where(mask_BT, label_BT, 0), jnp.where(mask_BT[:, 0], jnp.max(whole_BV, axis=1), 0)


def bio_rules(labels: Sequence[str]):
  """(transition_VV, start_V), bool NumPy arrays: what may follow what, and what may come first, where entities are
  written B-X, I-X, I-X, and O stands outside of them.

  I-X stands only behind B-X or I-X; everything else may stand anywhere, labels of another form too.
  """
  kind = lambda label: label[2:] if label[:2] in ("B-", "I-") else None
  inside_V = np.array([label.startswith("I-") for label in labels], bool)
  kinds = [kind(label) for label in labels]
  same_VV = np.array([[a is not None and a == b for b in kinds] for a in kinds], bool)
  return same_VV | ~inside_V[None], ~inside_V


def constrained(potentials: Potentials, transition_VV, start_V) -> Potentials:
  """The potentials with FORBIDDEN added wherever these bool arrays are False."""
  forbid = lambda x, allowed: x + jnp.where(jnp.asarray(allowed), 0.0, FORBIDDEN)
  return potentials._replace(
    transition_VV=forbid(potentials.transition_VV, transition_VV), start_V=forbid(potentials.start_V, start_V)
  )


def _checked(emission_BTV, mask_BT, potentials, label_BT=None):
  """(emissions, potentials) in float32."""
  shapes.check(emission_BTV=emission_BTV, mask_BT=mask_BT, label_BT=label_BT, **potentials._asdict())
  shapes.check_mask(mask_BT=mask_BT)
  if not emission_BTV.shape[1]:
    raise ValueError("emission_BTV has no position")
  return emission_BTV.astype(jnp.float32), Potentials(*(x.astype(jnp.float32) for x in potentials))


def _later(emission_BTV, mask_BT):
  """What the steps after the first read, time first."""
  return jnp.moveaxis(emission_BTV[:, 1:], 1, 0), mask_BT.T[1:, :, None]
