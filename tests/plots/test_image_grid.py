"""Grids of images: where each one lies."""

import numpy as np

from attention_zoo.plots.image_grid import grid


def test_images_lie_row_by_row_on_grey():
  images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 3), np.uint8)
  found = grid(images, columns=2)
  wanted = np.full((2 + 1 + 2 + 1 + 2, 2 + 2 + 2 + 2 + 2), 128)
  wanted[2, 2:4], wanted[2, 6:8], wanted[5, 2:4] = 0, 1, 2
  np.testing.assert_array_equal(found, np.repeat(wanted[..., None], 3, -1))
  assert grid(images).shape == found.shape, "two columns by default"
