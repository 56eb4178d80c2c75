"""PSNR of errors that are known."""

import numpy as np
import pytest

from attention_zoo.evaluation.image_quality import psnr


def test_psnr_of_known_errors():
  wanted = np.zeros((4, 2, 2, 3), np.uint8)
  found = wanted.copy()
  found[0], found[1] = 255, 1
  found[2, 0, 0, 0] = 12  # a mean of 144 / 12
  expected = [0.0, 20 * np.log10(255), 10 * np.log10(255**2 / 12), 100.0]
  assert psnr(wanted, found) == pytest.approx(expected, rel=1e-12)
  assert psnr(found, wanted) == pytest.approx(expected, rel=1e-12)
