"""How near one image is to another."""

import logging

import numpy as np

from attention_zoo.errors import UserError

SSIM_WINDOW = 7  # rows and columns
DIGITS = {"psnr": 2, "ssim": 3}  # that are printed of a figure


def measures(size: int) -> dict:
  """{name: function of (wanted_BYX3, found_BYX3) -> B} of what images of `size` rows and columns are compared by.

  SSIM is left out where its window is larger than they are and, which is logged, where scikit-image is not installed.
  """
  if size < SSIM_WINDOW:
    return {"psnr": psnr}
  try:
    _scikit_image()
  except UserError as error:
    logging.warning("SSIM is left out: %s", error)
    return {"psnr": psnr}
  return {"psnr": psnr, "ssim": ssim}


def psnr(wanted_BYX3, found_BYX3) -> np.ndarray:
  """Peak signal-to-noise ratio of each pair, in decibels: 10 log10(255^2 / mean squared error), at most 100."""
  difference = np.asarray(wanted_BYX3, np.float64) - np.asarray(found_BYX3, np.float64)
  errors = np.square(difference).mean(tuple(range(1, difference.ndim)))
  return np.minimum(10 * np.log10(255.0**2 / np.maximum(errors, 1e-12)), 100.0)


def ssim(wanted_BYX3, found_BYX3) -> np.ndarray:
  """Structural similarity of each pair (Wang et al. 2004), at most 1: the mean over channels and over all windows of
  7 x 7 pixels, as scikit-image has it."""
  options = dict(win_size=SSIM_WINDOW, data_range=255, channel_axis=-1)
  compare = _scikit_image().structural_similarity
  pairs = zip(np.asarray(wanted_BYX3), np.asarray(found_BYX3), strict=True)
  return np.array([compare(wanted, found, **options) for wanted, found in pairs])


def _scikit_image():
  """Its measures. Raises UserError where it is not installed."""
  try:
    from skimage import metrics
  except ImportError as error:
    raise UserError("install what computes it: pip install 'attention_zoo[images]'") from error
  return metrics
