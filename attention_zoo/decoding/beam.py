"""Beam search with length penalty, vectorised over sentences and beams.

The penalty, the candidate rule and the stop rule follow Wu et al. 2016 (GNMT, arXiv:1609.08144, section 7) as
tensor2tensor implements them, which is what "Attention Is All You Need" decoded with (section 6.1):

    score(hypothesis) = log P(hypothesis) / ((5 + length) / 6)^alpha + coverage(hypothesis)

with length = number of target tokens, EOS included and BOS excluded. (Toolkits that divide by length^alpha
search for something else with the same alpha.) alpha may be negative. The coverage is never above 0, and 0 where it is
not asked for.

The model is a function, `step_fn(tokens_BJ, t, cache) -> (logits_BJV, cache)`: nothing here knows what is
behind it.

Letters: B sentences, J beams, V vocabulary, T target positions, P the candidates of one step (2J without constraints),
C phrases.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from attention_zoo.decoding.candidates import best_candidates, pick
from attention_zoo.decoding.constraints import UNCONSTRAINED, Guide
from attention_zoo.decoding.score import length_penalty

# Positions of all hypotheses up to which the search has one program, and not three of growing room. Measured with 4096
# and with 0 here, in new processes that load a run of the quickstart and search once for a sentence, on two cores of
# an AMD EPYC: 3.5 s and not 5.2; with the compilation cache filled 1.0 s and not 2.0.
_ONE_ROOM = 4096


class BeamResult(NamedTuple):
  """Hypotheses of every sentence, best first; J is n_best here.

  tokens_BJT: ids without BOS, with EOS where the hypothesis ended, then `pad`.
  scores_BJ: log-probability over length penalty, plus coverage; -inf where there is none, NaN where the model failed.
  lengths_BJ: number of tokens, EOS included; 0 where there is no hypothesis.
  logprobs_BJ: log-probability in nats.
  """

  tokens_BJT: jax.Array
  scores_BJ: jax.Array
  lengths_BJ: jax.Array
  logprobs_BJ: jax.Array


class _State(NamedTuple):
  t: jax.Array
  cache: object
  tokens_BJ: jax.Array  # what step t is fed with
  alive_BJ: jax.Array  # log-probabilities of the unfinished hypotheses, best first; -inf = no hypothesis
  history_T2BJ: jax.Array  # token and parent beam of every alive hypothesis at every step
  scores_BJ: jax.Array  # the finished hypotheses, best first; -inf = no hypothesis
  logprobs_BJ: jax.Array
  origins_BJ: jax.Array  # steps before EOS * beam_size + beam that EOS was appended to
  done_B: jax.Array
  covered_BJ: jax.Array  # coverage of the unfinished hypotheses
  matched_BJC: jax.Array | None  # of the phrases, see constraints.py; None where there are none


def gather_beams(cache, parents_BJ):
  """Gives every beam its parent's cache; leaves have the leading dimensions [B, J]."""
  return jax.tree.map(lambda leaf: pick(leaf, parents_BJ), cache)


def beam_search(
  step_fn,
  cache,
  *,
  batch_size,
  beam_size,
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
  constraints=UNCONSTRAINED,
):
  """Finds the n_best hypotheses of every sentence; to be called under `jax.jit`, shapes are static.

  Rules, the same for every sentence whatever shares its batch:
    - A step extends each of the J unfinished hypotheses and takes the 2J most probable candidates. Those that
      end in EOS compete for the finished list by score; the J best others go on. (A hypothesis has one EOS,
      so at least J candidates go on: endings never starve the beam.)
    - A sentence stops at its own limit, or as soon as no continuation can enter its finished list:
      probabilities only fall, so nothing that an unfinished hypothesis of log-probability p leads to scores
      above p / (the largest penalty still ahead). That holds for either sign of alpha, and with a coverage, which is
      at most 0. From then on its result is frozen.
    - With one beam and no phrases to hold, that is greedy search: a sentence goes on with the most probable token and
      stops when that is EOS. An EOS in second place is no end then.
    - Hypotheses that have not ended at the limit are returned only if none has ended, scored as they stand.
    - Ties: finished earlier before later, lower beam before higher, lower token id before higher.
    - A logit of -inf forbids the token. NaN or +inf in the logits of a live hypothesis is a fault of the
      model and is shown: the sentence stops, with NaN scores and no tokens. Other sentences go on.

  Args:
    step_fn: (tokens_BJ, t, cache) -> (logits_BJV, cache), t an int32 scalar that counts from 0; step 0 is fed
      `bos`. Logits need not be normalised. What all beams of a row share is best closed over: it needs no reordering.
    cache: any pytree; `reorder` must understand it.
    batch_size: B.
    beam_size: J; 1 is greedy search.
    max_lengths_B: most tokens of each sentence, EOS included (the paper: source length + 50). At 0 the result
      is the empty hypothesis, at once, so that rows which only pad a batch cost no steps.
    max_length: static size of T; limits above it are cut.
    bos, eos, pad: token ids.
    alpha: exponent of the length penalty, a float or a traced scalar.
    n_best: hypotheses returned, J if None. Few are the first of many, and let a sentence stop sooner.
    reorder: (cache, parents_BJ) -> cache, called after every step when J > 1; parents_BJ[b, j] is the beam
      that beam j continues.
    grow: (cache, length) -> the cache with room for `length` steps, at least as many as it had. With it the search
      runs with a quarter of the room first, then half, then all: a step that attends reads all the room there is. Where
      all is little, the search begins with all of it: each room is a program of its own to trace and to compile.
    coverage: cache after a step -> float32 BJ, at most 0: what is added to the score of a hypothesis that ends with
      that step; None: nothing. It chooses among finished hypotheses, not which of the unfinished go on.
    constraints: `constraints.Constraints`, what the hypotheses must hold. Where a sentence has no finished hypothesis
      that holds its phrases, those that have not ended stand in, with phrases missing.

  Returns:
    BeamResult.

  Raises:
    ValueError: n_best not in [1, beam_size], max_length < 1, a wrong shape, or a vocabulary of fewer than 2
      tokens.
  """
  n_best = beam_size if n_best is None else n_best
  limits_B = jnp.minimum(jnp.asarray(max_lengths_B, jnp.int32), max_length)
  if not 1 <= n_best <= beam_size:
    raise ValueError(f"n_best must lie between 1 and beam_size = {beam_size}, got {n_best}")
  if max_length < 1 or limits_B.shape != (batch_size,):
    raise ValueError(
      f"want max_length >= 1 and {batch_size} max_lengths_B, got {max_length} and {limits_B.shape}"
    )

  guide = Guide(constraints, beam_size, eos)
  greedy = beam_size == 1

  def search_step(state):
    logits_BJV, cache = step_fn(state.tokens_BJ, state.t, state.cache)
    if logits_BJV.ndim != 3 or logits_BJV.shape[:2] != (batch_size, beam_size) or logits_BJV.shape[2] < 2:
      raise ValueError(f"want logits of shape {(batch_size, beam_size, 'V >= 2')}, got {logits_BJV.shape}")
    logprobs_BP, parents_BP, tokens_BP, failed_BJ = best_candidates(logits_BJV, state.alive_BJ, 2 * beam_size)
    failed_B = jnp.any(failed_BJ & (state.alive_BJ > -jnp.inf), axis=1)
    found = logprobs_BP, parents_BP, tokens_BP
    logprobs_BP, parents_BP, tokens_BP, matched_BPC = guide.candidates(
      found, logits_BJV, state.alive_BJ, state.matched_BJC, state.t, limits_B
    )
    ends_BP = tokens_BP == eos

    alive_BJ, picks_BJ = guide.allocate(jnp.where(ends_BP, -jnp.inf, logprobs_BP), matched_BPC)
    tokens_BJ, parents_BJ = pick(tokens_BP, picks_BJ), pick(parents_BP, picks_BJ)
    matched_BJC = None if matched_BPC is None else pick(matched_BPC, picks_BJ)
    history_T2BJ = state.history_T2BJ.at[state.t].set(jnp.stack([tokens_BJ, parents_BJ]))

    length = state.t + 1
    scores_BP = logprobs_BP / length_penalty(length, alpha)
    covered_BJ = state.covered_BJ
    if coverage is not None:
      before_BJ = coverage(cache)
      scores_BP, covered_BJ = scores_BP + pick(before_BJ, parents_BP), pick(before_BJ, parents_BJ)
    ended_BP = jnp.where(ends_BP, scores_BP, -jnp.inf)
    if greedy:
      best_BP = jnp.arange(ends_BP.shape[1])[None] == jnp.argmax(logprobs_BP, axis=1)[:, None]
      ended_BP = jnp.where(best_BP | guide.has_phrases_B[:, None], ended_BP, -jnp.inf)
    scores_BJ, picks_BJ = lax.top_k(jnp.concatenate([state.scores_BJ, ended_BP], axis=1), n_best)
    scores_BJ = jnp.where(failed_B[:, None], jnp.nan, scores_BJ)
    logprobs_BJ = pick(jnp.concatenate([state.logprobs_BJ, logprobs_BP], axis=1), picks_BJ)
    origins_BP = state.t * beam_size + parents_BP
    origins_BJ = pick(jnp.concatenate([state.origins_BJ, origins_BP], axis=1), picks_BJ)

    # The penalty is monotone in the length, so the largest one ahead is at either end.
    ahead_B = jnp.maximum(length_penalty(length + 1, alpha), length_penalty(limits_B, alpha))
    settled_B = scores_BJ[:, -1] >= alive_BJ[:, 0] / ahead_B
    if greedy:
      settled_B |= (scores_BJ[:, 0] > -jnp.inf) & ~guide.has_phrases_B
    done_B = state.done_B | (length >= limits_B) | settled_B | failed_B

    def frozen(old, new):
      return jnp.where(state.done_B[:, None], old, new)

    return _State(
      t=length,
      cache=reorder(cache, parents_BJ) if beam_size > 1 else cache,
      tokens_BJ=tokens_BJ,
      alive_BJ=frozen(state.alive_BJ, alive_BJ),
      history_T2BJ=history_T2BJ,
      scores_BJ=frozen(state.scores_BJ, scores_BJ),
      logprobs_BJ=frozen(state.logprobs_BJ, logprobs_BJ),
      origins_BJ=frozen(state.origins_BJ, origins_BJ),
      done_B=done_B,
      covered_BJ=frozen(state.covered_BJ, covered_BJ),
      matched_BJC=matched_BJC,
    )

  state = _State(
    t=jnp.int32(0),
    cache=cache,
    tokens_BJ=jnp.full((batch_size, beam_size), bos, jnp.int32),
    alive_BJ=jnp.full((batch_size, beam_size), -jnp.inf, jnp.float32).at[:, 0].set(0.0),
    history_T2BJ=jnp.zeros((max_length, 2, batch_size, beam_size), jnp.int32),
    scores_BJ=jnp.full((batch_size, n_best), -jnp.inf, jnp.float32),
    logprobs_BJ=jnp.full((batch_size, n_best), -jnp.inf, jnp.float32),
    origins_BJ=jnp.zeros((batch_size, n_best), jnp.int32),
    done_B=limits_B <= 0,
    covered_BJ=jnp.zeros((batch_size, beam_size), jnp.float32),
    matched_BJC=guide.start(),
  )
  by_parts = grow and batch_size * beam_size * max_length > _ONE_ROOM
  for room in sorted({-(-max_length // parts) for parts in (4, 2, 1)}) if by_parts else [max_length]:
    if grow:
      state = state._replace(cache=grow(state.cache, room))
    goes_on = lambda state, room=room: (state.t < room) & ~jnp.all(state.done_B)
    state = lax.while_loop(goes_on, search_step, state)
  final = state

  # Where nothing ended, the unfinished hypotheses stand in: all `limit` steps long and without EOS.
  unended_B1 = final.scores_BJ[:, :1] == -jnp.inf
  limits_B1 = limits_B[:, None]
  alive_BJ = final.alive_BJ / length_penalty(limits_B1, alpha) + final.covered_BJ
  alive_BJ, picks_BJ = lax.top_k(alive_BJ, n_best)
  logprobs_BJ = jnp.where(unended_B1, pick(final.alive_BJ, picks_BJ), final.logprobs_BJ)
  scores_BJ = jnp.where(unended_B1, alive_BJ, final.scores_BJ)
  exists_BJ = scores_BJ > -jnp.inf
  steps_BJ = jnp.where(unended_B1, jnp.maximum(limits_B1, 0), final.origins_BJ // beam_size)
  beams_BJ = jnp.where(unended_B1, picks_BJ, final.origins_BJ % beam_size)
  lengths_BJ = jnp.where(exists_BJ, steps_BJ + ~unended_B1, 0)
  logprobs_BJ = jnp.where(exists_BJ, logprobs_BJ, scores_BJ)

  def backtrace(beams_BJ, step):
    t, (tokens_BJ, parents_BJ) = step
    written_BJ = t < steps_BJ
    tokens_BJ = jnp.where(written_BJ, pick(tokens_BJ, beams_BJ), jnp.where(t == steps_BJ, eos, pad))
    tokens_BJ = jnp.where(t < lengths_BJ, tokens_BJ, pad)
    return jnp.where(written_BJ, pick(parents_BJ, beams_BJ), beams_BJ), tokens_BJ

  _, tokens_TBJ = lax.scan(backtrace, beams_BJ, (jnp.arange(max_length), final.history_T2BJ), reverse=True)
  return BeamResult(jnp.moveaxis(tokens_TBJ, 0, -1), scores_BJ, lengths_BJ, logprobs_BJ)
