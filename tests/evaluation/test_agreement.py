"""Accuracy, F1 and correlations against their definitions."""

import numpy as np
import pytest

from attention_zoo.evaluation import agreement


def test_of_two_labels_by_hand():
  found, wanted = [1, 1, 0, 0, 1, 0], [1, 0, 0, 0, 1, 1]
  assert agreement.accuracy(found, wanted) == pytest.approx(4 / 6)
  assert agreement.f1(found, wanted, 1) == pytest.approx(2 / 3)
  true, false, positive, negative = 2, 2, 1, 1  # true positives and negatives, false ones
  expected = (true * false - positive * negative) / np.sqrt(3 * 3 * 3 * 3)
  assert agreement.matthews(found, wanted) == pytest.approx(expected)
  assert agreement.matthews([1, 1], [0, 1]) == 0  # what does not vary


def test_of_many_labels():
  rng = np.random.default_rng(0)
  wanted = rng.integers(0, 4, 300)
  found = np.where(rng.random(300) < 0.6, wanted, rng.integers(0, 4, 300))
  # Gorodkin's, by the table of confusions.
  table = np.zeros((4, 4))
  np.add.at(table, (wanted, found), 1)
  n, right, ours, theirs = table.sum(), np.trace(table), table.sum(0), table.sum(1)
  expected = (right * n - ours @ theirs) / np.sqrt((n**2 - ours @ ours) * (n**2 - theirs @ theirs))
  assert agreement.matthews(found, wanted) == pytest.approx(expected)
  each = [2 * table[i, i] / (ours[i] + theirs[i]) for i in range(4)]
  assert agreement.macro_f1(found.tolist(), wanted.tolist(), range(6)) == pytest.approx(np.mean(each))


def test_correlations():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=50), rng.integers(0, 9, 50).astype(float)
  assert agreement.pearson(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
  ranks = lambda x: [np.mean([i + 1 for i, y in enumerate(sorted(x)) if y == value]) for value in x]
  assert agreement.spearman(a, b) == pytest.approx(np.corrcoef(ranks(a), ranks(b))[0, 1])
  assert agreement.spearman(a, np.exp(a)) == pytest.approx(1) and agreement.pearson(a, np.ones(50)) == 0
