"""How near one image is to another."""

import numpy as np


def psnr(wanted_BYX3, found_BYX3) -> np.ndarray:
  """Peak signal-to-noise ratio of each pair, in decibels: 10 log10(255^2 / mean squared error), at most 100."""
  difference = np.asarray(wanted_BYX3, np.float64) - np.asarray(found_BYX3, np.float64)
  errors = np.square(difference).mean(tuple(range(1, difference.ndim)))
  return np.minimum(10 * np.log10(255.0**2 / np.maximum(errors, 1e-12)), 100.0)
