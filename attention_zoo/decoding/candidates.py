"""The best one-token extensions of a sentence's beams: log-softmax and top-k over beams times vocabulary.

Letters: B sentences, J beams, V vocabulary, P candidates asked for, E tokens asked for,
C chunks of the vocabulary, W width.
"""

import jax
import jax.numpy as jnp
from jax import lax

# About sqrt(V / 2) for the vocabularies in use, which balances the two sorts.
_CHUNK = 128
_SUM_CHUNK = 1024


def pick(x, indices):
  """x[b, indices[b]] for every sentence b.

  Mapped over sentences rather than indexed by them: a batch split over devices is picked from where it lies.
  """
  return jax.vmap(lambda x, indices: x[indices])(x, indices)


def best_candidates(logits_BJV, alive_BJ, count):
  """The `count` most probable one-token extensions of a sentence's hypotheses.

  The log-probability of extending beam j by token v is alive[j] + log softmax(logits[j])[v], normalised in
  float32. Rounding never makes it more than alive[j], because the normalising sum contains exp(0). Equal ones
  are ordered by beam, then token, those of probability 0 in any order. NaN or +inf in a row make its `failed`
  True.

  Returns:
    (logprobs_BP best first, parents_BP, tokens_BP, failed_BJ)
  """
  args = logits_BJV, alive_BJ
  if logits_BJV.shape[1] * (logits_BJV.shape[2] // _CHUNK) <= 2 * count:
    return _by_full_sort(*args, count=count)
  # XLA's top_k is slow over long rows on CPU; for accelerators it has kernels.
  return lax.platform_dependent(
    *args,
    cpu=lambda *args: _by_chunk_maxima(*args, count=count),
    default=lambda *args: _by_full_sort(*args, count=count),
  )


def log_probabilities(logits_BJV, alive_BJ, tokens_BJE):
  """Of extending each beam by the given tokens, as `best_candidates` counts them. E tokens for each beam."""
  logits_BJV = logits_BJV.astype(jnp.float32)
  peak_BJ1 = _finite_or_nan(jnp.max(logits_BJV, axis=-1, keepdims=True))
  total_BJ1 = jnp.sum(jnp.exp(logits_BJV - peak_BJ1), axis=-1, keepdims=True)
  logits_BJE = jnp.take_along_axis(logits_BJV, tokens_BJE, axis=-1)
  return _extend(logits_BJE, peak_BJ1, jnp.log(total_BJ1), alive_BJ[..., None])


def _by_full_sort(logits_BJV, alive_BJ, *, count):
  """The definition: all J x V log-probabilities, sorted."""
  logits_BJV = logits_BJV.astype(jnp.float32)
  peak_BJ1 = _finite_or_nan(jnp.max(logits_BJV, axis=-1, keepdims=True))
  total_BJ1 = jnp.sum(jnp.exp(logits_BJV - peak_BJ1), axis=-1, keepdims=True)
  logprobs_BJV = _extend(logits_BJV, peak_BJ1, jnp.log(total_BJ1), alive_BJ[..., None])
  logprobs_BP, picks_BP = lax.top_k(logprobs_BJV.reshape(logits_BJV.shape[0], -1), count)
  vocab = logits_BJV.shape[2]
  return logprobs_BP, picks_BP // vocab, picks_BP % vocab, jnp.isnan(total_BJ1[..., 0])


def _by_chunk_maxima(logits_BJV, alive_BJ, *, count):
  """The same values and ties in two passes over the logits, which write nothing of their size.

  The best `count` elements lie in the `count` chunks with the largest maxima (a chunk that loses to `count`
  others has `count` elements before each of its own; equal maxima go to the earlier chunk, as equal elements
  do), so only those are sorted. That the log-probability is a monotone function of the logit in a row, in
  floating point too, lets maxima be taken of logits and compared as log-probabilities.
  """
  batch, beams, vocab = logits_BJV.shape

  def reduce_chunks(x_BJV, initial, reduce, width):
    padding = ((0, 0), (0, 0), (0, -vocab % width))
    return lax.reduce_window(x_BJV, initial, reduce, (1, 1, width), (1, 1, width), padding)

  maxima_BJC = reduce_chunks(logits_BJV.astype(jnp.float32), -jnp.inf, lax.max, _CHUNK)
  peak_BJ1 = _finite_or_nan(jnp.max(maxima_BJC, axis=-1, keepdims=True))
  # Sums by chunks, because XLA does not vectorise one long sum on CPU.
  totals_BJC = reduce_chunks(jnp.exp(logits_BJV.astype(jnp.float32) - peak_BJ1), 0.0, lax.add, _SUM_CHUNK)
  total_BJ1 = jnp.sum(totals_BJC, axis=-1, keepdims=True)

  shifts = peak_BJ1, jnp.log(total_BJ1), alive_BJ[..., None]
  ranks_BJC = _extend(maxima_BJC, *shifts)
  chunks = maxima_BJC.shape[2]
  _, chunks_BP = lax.top_k(ranks_BJC.reshape(batch, -1), count)
  chunks_BP = jnp.sort(chunks_BP, axis=1)  # positions in ascending order, for ties
  parents_BP, chunks_BP = chunks_BP // chunks, chunks_BP % chunks
  ids_BPW = chunks_BP[..., None] * _CHUNK + jnp.arange(_CHUNK)[None, None]
  tokens_BPW = jnp.minimum(ids_BPW, vocab - 1)
  logits_BPW = jax.vmap(lambda logits_JV, parents_P, tokens_PW: logits_JV[parents_P[:, None], tokens_PW])(
    logits_BJV, parents_BP, tokens_BPW
  ).astype(jnp.float32)
  logits_BPW = jnp.where(ids_BPW < vocab, logits_BPW, -jnp.inf)
  logprobs_BPW = _extend(logits_BPW, *(pick(shift_BJ1, parents_BP) for shift_BJ1 in shifts))
  logprobs_BP, picks_BP = lax.top_k(logprobs_BPW.reshape(batch, -1), count)
  tokens_BP = pick(tokens_BPW.reshape(batch, -1), picks_BP)
  return logprobs_BP, pick(parents_BP, picks_BP // _CHUNK), tokens_BP, jnp.isnan(total_BJ1[..., 0])


def _finite_or_nan(peak):
  """The shift of the softmax; a row that forbids every token has none."""
  return jnp.where(peak == -jnp.inf, 0.0, peak)


def _extend(logits, peak, log_total, alive):
  logprobs = alive + (logits - peak - log_total)
  return jnp.where((logits == -jnp.inf) | (alive == -jnp.inf), -jnp.inf, logprobs)
