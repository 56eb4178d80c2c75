"""Perplexity, per subword and per word, with and without label smoothing."""

import math
from typing import NamedTuple

from attention_zoo.errors import UserError


class Perplexity(NamedTuple):
  """exp(nats per unit); `smoothed` is that of the label-smoothed loss,
  which is what training minimised. None: unknown."""

  per_subword: float
  per_subword_smoothed: float
  per_word: float | None = None
  per_word_smoothed: float | None = None


def count_words(references):
  """Words between spaces, and one end of sentence each, as subword counts include EOS."""
  return sum(len(reference.split()) + 1 for reference in references)


def perplexity(*, nll, smoothed_loss, tokens, words=None) -> Perplexity:
  """Perplexities of a split from its sums.

  Per-subword figures (those of Vaswani et al. 2017, table 3) depend on the vocabulary: only models that share
  one may be compared. Per-word figures spread the same sum over the words of the reference and compare across
  vocabularies.

  Args:
    nll: sum of -log P over the target tokens, EOS included, in nats.
    smoothed_loss: sum of the label-smoothed loss over the same tokens.
    tokens: their number.
    words: number of words of the same references, see `count_words`; None where they cannot be counted.

  Raises:
    UserError: there are no tokens or no words.
  """
  if tokens < 1 or (words is not None and words < 1):
    raise UserError(f"perplexity of nothing: {tokens:g} target tokens and {words or 0:g} words; is the split empty?")
  units = [tokens] if words is None else [tokens, words]
  return Perplexity(*(exp(nats / unit) for unit in units for nats in (nll, smoothed_loss)))


def exp(nats):
  """e^nats, infinity where that is no float."""
  try:
    return math.exp(nats)
  except OverflowError:
    return math.inf
