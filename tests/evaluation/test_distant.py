"""The measure of far parts that agree."""

import numpy as np
import pytest

from attention_zoo.data import markers
from attention_zoo.evaluation.distant import distant_correlation


def pictures(label, count=300):
  return np.stack([markers.picture("train", i, 24, label=label)[0] for i in range(count)])


def test_markers_of_one_colour_agree_and_others_do_not():
  assert distant_correlation(pictures(1)) == pytest.approx(1)
  # The other colour is one of three that are left: each as probable, so that the colours speak against each other.
  assert distant_correlation(pictures(0)) == pytest.approx(-1 / 3, abs=0.1)


def test_parts_that_know_nothing_of_each_other_do_not_correlate():
  noise = np.random.default_rng(0).integers(0, 256, (2000, 4, 8, 3))
  assert abs(distant_correlation(noise)) < 0.05
  assert distant_correlation(np.zeros((5, 4, 4, 3))) == 0
