"""Several models as one: the distribution of the next token is the mean of theirs."""

import math

import jax
import jax.numpy as jnp

from attention_zoo.decoding.beam import gather_beams
from attention_zoo.protocols import Decoding


def mean_logits(*logits):
  """log mean_i softmax(logits_i), in float32: the logits of the mean distribution, which are its log-probabilities.

  logits: arrays [..., V] of the same shape. A token that all of them forbid (-inf) stays forbidden;
  NaN and +inf give NaN.
  """
  logprobs = jnp.stack([jax.nn.log_softmax(x.astype(jnp.float32)) for x in logits])
  return jax.nn.logsumexp(logprobs, axis=0) - math.log(len(logits))


def ensemble(decodings: list[Decoding]) -> Decoding:
  """The Decoding of several models with one vocabulary that read the same rows: in each step all of them are fed.

  The attention that a place of the source has got (`coverage`) is the mean of the models', where all of them say it.
  """
  longest = [decoding.max_length for decoding in decodings if decoding.max_length is not None]

  def step(tokens_BJT, t, caches):
    found = [one.step(tokens_BJT, t, cache) for one, cache in zip(decodings, caches, strict=True)]
    return mean_logits(*(logits_BJTV for logits_BJTV, _ in found)), tuple(cache for _, cache in found)

  def reorder(caches, parents_BJ):
    return tuple((d.reorder or gather_beams)(cache, parents_BJ) for d, cache in zip(decodings, caches, strict=True))

  def grow(caches, length):
    return tuple(d.grow(cache, length) if d.grow else cache for d, cache in zip(decodings, caches, strict=True))

  def coverage(caches):
    return sum(d.coverage(cache) for d, cache in zip(decodings, caches, strict=True)) / len(decodings)

  return Decoding(
    cache=tuple(decoding.cache for decoding in decodings),
    step=step,
    reorder=reorder,
    grow=grow if any(decoding.grow for decoding in decodings) else None,
    max_length=min(longest, default=None),
    coverage=coverage if all(decoding.coverage for decoding in decodings) else None,
  )
