"""How much far parts of images agree."""

import numpy as np


def distant_correlation(pixels) -> float:
  """Correlation, over images, of the strongest colour of the left quarter with that of the right quarter.

  The strongest colour of a part is that of its pixel that differs most from grey; the correlation is of its three
  channels, each less its mean over images, all in one. 1: equal in each image; 0: one says nothing of the other.
  pixels: [n, Y, X, 3], n of at least 2. 0 where there is nothing to compare.
  """
  pixels = np.asarray(pixels, np.float64)
  width = max(pixels.shape[2] // 4, 1)
  left, right = (_strongest(part) for part in (pixels[:, :, :width], pixels[:, :, -width:]))
  left, right = left - left.mean(0), right - right.mean(0)
  scale = np.sqrt((left**2).sum() * (right**2).sum())
  return float((left * right).sum() / scale) if scale > 0 else 0.0


def _strongest(part):
  """The colour [n, 3] of each image's pixel with the greatest difference between its channels."""
  flat = part.reshape(len(part), -1, 3)
  at = (flat.max(-1) - flat.min(-1)).argmax(-1)
  return flat[np.arange(len(flat)), at]
