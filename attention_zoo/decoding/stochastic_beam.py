"""Stochastic beam search with segment-by-segment reranking (Shao et al. 2017, arXiv:1701.03185).

Each of J hypotheses draws several continuations of one segment, a fixed number of tokens, from the model; of all of
them the J best by score go on, and so segment after segment until all have ended. Sampling keeps the hypotheses apart
where a beam search fills its beam with variants of one, and reranking throws out early what has gone wrong.

| what             | the paper (from memory)            | here                                                      |
|------------------|------------------------------------|-----------------------------------------------------------|
| score of a beam  | may hold more than the probability | that of `decoding/beam.py`: the model's log-probability,  |
|                  |                                    | not tempered, over length penalty, plus coverage          |
| equal hypotheses | not remembered                     | one of them is kept: the beam holds no text twice         |
| ended ones       | not remembered                     | stay in the beam as long as their score is among the best |

The result is a function of seed, text and options: token t of continuation i is drawn with
fold_in(fold_in(key, t), i), whatever stands in the other rows.

Letters: B sentences, J hypotheses that are kept, M all continuations of a sentence (J times samples), V vocabulary,
T target positions, W tokens of a segment.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from attention_zoo.decoding.beam import BeamResult, gather_beams
from attention_zoo.decoding.candidates import log_probabilities, pick
from attention_zoo.decoding.sampling import Options, choose
from attention_zoo.decoding.score import length_penalty


class _State(NamedTuple):
  t: jax.Array
  cache: object
  last_BM: jax.Array  # what step t is fed with
  tokens_BMT: jax.Array
  logprobs_BM: jax.Array  # -inf = no hypothesis, or one that is another's equal
  lengths_BM: jax.Array
  ended_BM: jax.Array
  covered_BM: jax.Array
  parents_BM: jax.Array  # which hypothesis of the last reranking each continues
  failed_B: jax.Array


def stochastic_beam_search(
  step_fn,
  cache,
  *,
  batch_size,
  beam_size,
  samples,
  segment_length,
  temperature,
  keys_B,
  max_lengths_B,
  max_length,
  bos,
  eos,
  alpha,
  pad=0,
  n_best=None,
  reorder=gather_beams,
  grow=None,
  coverage=None,
):
  """The n_best of the hypotheses that are left at the end; to be called under `jax.jit`, shapes are static.

  Arguments and result are those of `beam_search`, but that step_fn and cache have beam_size * samples beams, and these:

  samples: continuations that each hypothesis draws of a segment. segment_length: W. temperature: logits are divided by
  it, a float or a traced scalar; 0: always the most probable token, so that one hypothesis is left. keys_B: a key of
  each sentence.

  A hypothesis that has not ended at its sentence's limit counts only where none has. Raises ValueError for sizes that
  do not fit.
  """
  J, M, W = beam_size, beam_size * samples, min(segment_length, max_length)
  n_best = J if n_best is None else n_best
  if min(samples, W, max_length) < 1 or not 1 <= n_best <= J:
    raise ValueError(
      f"want samples, segment_length, max_length >= 1 and n_best from 1 to beam_size, got {(samples, W, max_length)} "
      f"and {n_best} of {J}"
    )
  limits_B1 = jnp.minimum(jnp.asarray(max_lengths_B, jnp.int32), max_length)[:, None]
  options = Options(temperature=temperature)
  draw = jax.vmap(lambda logits_MV, keys_M: choose(logits_MV, keys_M, options))

  def live(state):
    return ~state.ended_BM & (state.logprobs_BM > -jnp.inf) & (state.t < limits_B1) & ~state.failed_B[:, None]

  def scores(state):
    """Of each hypothesis, -inf for those that are equal to an earlier one."""
    start = jnp.maximum((state.t - 1) // W * W, 0)
    padded_BMT = jnp.pad(state.tokens_BMT, ((0, 0), (0, 0), (0, W)), constant_values=pad)
    segment_BMW = lax.dynamic_slice_in_dim(padded_BMT, start, W, 2)
    # Those of other parents differ before the segment.
    same_BMM = jnp.all(segment_BMW[:, :, None] == segment_BMW[:, None], -1)
    same_BMM &= state.parents_BM[:, :, None] == state.parents_BM[:, None]
    again_BM = jnp.any(jnp.tril(jnp.ones((M, M), bool), -1)[None] & same_BMM, -1)
    score_BM = state.logprobs_BM / length_penalty(state.lengths_BM, alpha) + state.covered_BM
    none_BM = state.logprobs_BM == -jnp.inf
    late_BM = (state.t >= limits_B1) & ~state.ended_BM & jnp.any(state.ended_BM & ~none_BM, 1, keepdims=True)
    return jnp.where(again_BM | late_BM | none_BM, -jnp.inf, score_BM)

  def rerank(state):
    """The J best, each as often as it is to draw."""
    best_BJ, picks_BJ = lax.top_k(scores(state), J)
    picks_BM = jnp.repeat(picks_BJ, samples, 1)
    take = lambda x: pick(x, picks_BM)
    return state._replace(
      cache=reorder(state.cache, picks_BM),
      last_BM=take(state.last_BM),
      tokens_BMT=take(state.tokens_BMT),
      logprobs_BM=jnp.where(jnp.repeat(best_BJ > -jnp.inf, samples, 1), take(state.logprobs_BM), -jnp.inf),
      lengths_BM=take(state.lengths_BM),
      ended_BM=take(state.ended_BM),
      covered_BM=take(state.covered_BM),
      parents_BM=jnp.broadcast_to(jnp.repeat(jnp.arange(J), samples)[None], picks_BM.shape),
    )

  def step(state):
    state = lax.cond((state.t > 0) & (state.t % W == 0), rerank, lambda state: state, state)
    logits_BMV, cache = step_fn(state.last_BM, state.t, state.cache)
    now_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, state.t)
    keys_BM = jax.vmap(lambda key: jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(M)))(now_B)
    live_BM = live(state)
    drawn_BM = draw(logits_BMV, keys_BM)
    logprobs_BM = log_probabilities(logits_BMV, state.logprobs_BM, drawn_BM[..., None])[..., 0]
    peaks_BM = jnp.max(logits_BMV.astype(jnp.float32), -1)
    failed_B = jnp.any(live_BM & (jnp.isnan(peaks_BM) | (peaks_BM == jnp.inf)), 1)
    tokens_BMT = lax.dynamic_update_slice_in_dim(
      state.tokens_BMT, jnp.where(live_BM, drawn_BM, pad)[..., None], state.t, 2
    )
    covered_BM = state.covered_BM if coverage is None else jnp.where(live_BM, coverage(cache), state.covered_BM)
    return _State(
      t=state.t + 1,
      cache=cache,
      last_BM=drawn_BM,
      tokens_BMT=tokens_BMT,
      logprobs_BM=jnp.where(live_BM, logprobs_BM, state.logprobs_BM),
      lengths_BM=state.lengths_BM + live_BM,
      ended_BM=state.ended_BM | (live_BM & (drawn_BM == eos)),
      covered_BM=covered_BM,
      parents_BM=state.parents_BM,
      failed_B=state.failed_B | failed_B,
    )

  state = _State(
    t=jnp.int32(0),
    cache=grow(cache, max_length) if grow else cache,
    last_BM=jnp.full((batch_size, M), bos, jnp.int32),
    tokens_BMT=jnp.full((batch_size, M, max_length), pad, jnp.int32),
    # At first there is one hypothesis; all continuations may be its own.
    logprobs_BM=jnp.zeros((batch_size, M), jnp.float32),
    lengths_BM=jnp.zeros((batch_size, M), jnp.int32),
    ended_BM=jnp.zeros((batch_size, M), bool),
    covered_BM=jnp.zeros((batch_size, M), jnp.float32),
    parents_BM=jnp.zeros((batch_size, M), jnp.int32),
    failed_B=jnp.zeros(batch_size, bool),
  )
  final = lax.while_loop(lambda state: (state.t < max_length) & jnp.any(live(state)), step, state)
  scores_BJ, picks_BJ = lax.top_k(scores(final), n_best)
  failed_B1, exists_BJ = final.failed_B[:, None], scores_BJ > -jnp.inf
  exists_BJ &= ~failed_B1
  return BeamResult(
    jnp.where(exists_BJ[..., None], pick(final.tokens_BMT, picks_BJ), pad),
    jnp.where(failed_B1, jnp.nan, scores_BJ),
    jnp.where(exists_BJ, pick(final.lengths_BM, picks_BJ), 0),
    jnp.where(failed_B1, jnp.nan, jnp.where(exists_BJ, pick(final.logprobs_BM, picks_BJ), -jnp.inf)),
  )


def keys_of(seed, tokens_BT, pad=0):
  """A key of each sentence from the seed and its tokens, whatever the padding behind them."""
  powers_T = jnp.cumprod(jnp.full(tokens_BT.shape[1], 1_000_003, jnp.uint32))
  sums_B = jnp.sum(jnp.where(tokens_BT == pad, 0, tokens_BT).astype(jnp.uint32) * powers_T[None], 1)
  return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), sums_B)
