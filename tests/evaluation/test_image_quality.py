"""PSNR and SSIM of errors that are known."""

import sys

import numpy as np
import pytest

from attention_zoo.errors import UserError
from attention_zoo.evaluation.image_quality import measures, psnr, ssim


def test_psnr_of_known_errors():
  wanted = np.zeros((4, 2, 2, 3), np.uint8)
  found = wanted.copy()
  found[0], found[1] = 255, 1
  found[2, 0, 0, 0] = 12  # a mean of 144 / 12
  expected = [0.0, 20 * np.log10(255), 10 * np.log10(255**2 / 12), 100.0]
  assert psnr(wanted, found) == pytest.approx(expected, rel=1e-12)
  assert psnr(found, wanted) == pytest.approx(expected, rel=1e-12)


def test_ssim_of_known_errors():
  """In flat images the contrast is 0, and the means alone are compared."""
  wanted = np.full((3, 8, 8, 3), 100, np.uint8)
  wanted[0] = np.random.default_rng(0).integers(0, 256, wanted.shape[1:])
  found = wanted.copy()
  found[1] = 120
  found[2, :, :, 2] = 120  # one channel of three
  constant = (0.01 * 255) ** 2
  flat = (2 * 100 * 120 + constant) / (100**2 + 120**2 + constant)
  assert ssim(wanted, found) == pytest.approx([1, flat, (2 + flat) / 3], rel=1e-6)


def test_ssim_of_one_window():
  """Written out for the single window of 7 x 7 pixels."""
  x, y = np.random.default_rng(0).integers(0, 256, (2, 7, 7)).astype(float)
  brightness, contrast = (0.01 * 255) ** 2, (0.03 * 255) ** 2
  means, variances = (x.mean(), y.mean()), (x.var(ddof=1), y.var(ddof=1))
  covariance = ((x - x.mean()) * (y - y.mean())).sum() / 48
  wanted = (2 * means[0] * means[1] + brightness) * (2 * covariance + contrast)
  wanted /= (means[0] ** 2 + means[1] ** 2 + brightness) * (variances[0] + variances[1] + contrast)
  image = lambda x: np.repeat(x[None, :, :, None], 3, -1).astype(np.uint8)
  assert ssim(image(x), image(y)) == pytest.approx([wanted], rel=1e-6)


def test_small_images_have_no_ssim_nor_have_any_without_its_package(monkeypatch, caplog):
  assert list(measures(7)) == ["psnr", "ssim"] and list(measures(6)) == ["psnr"]
  monkeypatch.setitem(sys.modules, "skimage", None)  # as where it is not installed
  assert list(measures(6)) == ["psnr"]
  assert list(measures(7)) == ["psnr"]
  assert "SSIM is left out: install what computes it: pip install 'attention_zoo[images]'" in caplog.text
  with pytest.raises(UserError, match="install what computes it"):
    ssim(np.zeros((1, 8, 8, 3)), np.zeros((1, 8, 8, 3)))
