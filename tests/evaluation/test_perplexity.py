"""Perplexities by hand."""

import math

import pytest

from attention_zoo.errors import UserError
from attention_zoo.evaluation.perplexity import count_words, perplexity


def test_by_hand():
  # 8 subwords at probability 1/4, smoothed loss of log 5 each; 3 words and 1 end of sentence.
  result = perplexity(nll=8 * math.log(4), smoothed_loss=8 * math.log(5), tokens=8, words=4)
  assert result.per_subword == pytest.approx(4)
  assert result.per_subword_smoothed == pytest.approx(5)
  assert result.per_word == pytest.approx(16)
  assert result.per_word_smoothed == pytest.approx(25)


def test_words_count_the_end_of_sentence():
  assert count_words(["ein Haus", " drei  kleine Häuser ", ""]) == 3 + 4 + 1


def test_overflow_is_infinite():
  assert perplexity(nll=1e6, smoothed_loss=1.0, tokens=1, words=1).per_subword == math.inf


@pytest.mark.parametrize("counts", [{"tokens": 0, "words": 1}, {"tokens": 1, "words": 0}])
def test_nothing_to_measure(counts):
  with pytest.raises(UserError, match="empty"):
    perplexity(nll=0.0, smoothed_loss=0.0, **counts)
