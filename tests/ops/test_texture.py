"""Texture synthesis: what is regular goes on, what is drawn is the sample's, distances are the paper's."""

import numpy as np
import pytest

from attention_zoo.ops.texture import distances, self_similarity, synthesize


def chessboard(rows, columns, width=2):
  y, x = np.mgrid[:rows, :columns]
  return np.where((y // width + x // width) % 2, 255, 0).astype(np.uint8)[..., None].repeat(3, 2)


def test_a_chessboard_goes_on():
  made = synthesize(chessboard(14, 14), (17, 20), window=7, seed=3)
  assert made.shape == (17, 20, 3) and made.dtype == np.uint8
  shifts = [chessboard(21, 24)[y : y + 17, x : x + 20] for y in range(4) for x in range(4)]
  assert any((made == each).all() for each in shifts)


def test_stripes_keep_their_direction():
  sample = np.tile(np.array([0, 0, 90, 200], np.uint8), (12, 3))[..., None]
  made = synthesize(sample, (10, 11), window=9, seed=1)
  assert (made == made[:1]).all() and set(np.unique(made)) == {0, 90, 200}


def test_every_pixel_is_one_of_the_sample_and_seeds_differ():
  sample = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)
  first, again, other = (synthesize(sample, (7, 8), window=3, seed=seed) for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()
  colours = {tuple(pixel) for pixel in sample.reshape(-1, 3)}
  assert {tuple(pixel) for pixel in first.reshape(-1, 3)} <= colours


def test_distances_are_weighted_means_of_what_is_known():
  rng = np.random.default_rng(1)
  neighbourhoods, patch = rng.random((4, 9, 2)), rng.random((3, 3, 2))
  known = np.array([[True, False, True], [False, False, True], [False, False, False]])
  wanted = []
  for each in neighbourhoods:
    total = weight = 0
    for y, x in zip(*np.nonzero(known), strict=True):
      gauss = np.exp(-((y - 1) ** 2 + (x - 1) ** 2) / (2 * (3 / 6.4) ** 2))
      total += gauss * np.mean((each.reshape(3, 3, 2)[y, x] - patch[y, x]) ** 2)
      weight += gauss
    wanted.append(total / weight)
  np.testing.assert_allclose(distances(neighbourhoods, patch, known), wanted)


def test_a_texture_is_similar_to_itself_where_it_repeats():
  found = self_similarity(chessboard(16, 16), (6, 7), window=5)
  assert found.shape == (12, 12)
  zeros = {tuple(place + 2) for place in np.argwhere(found < 1e-9)}
  assert zeros == {(y, x) for y in range(2, 14) for x in range(2, 14)
                   if ((y - 6) % 4, (x - 7) % 4) in ((0, 0), (2, 2))}  # fmt: skip


@pytest.mark.parametrize(
  ("sample", "size", "window", "message"),
  [
    (np.zeros((9, 9)), (5, 5), 3, "wanted YXD"),
    (np.zeros((9, 9, 1)), (5, 5), 4, "window must be odd"),
    (np.zeros((9, 9, 1)), (5, 5), 11, "fit into the sample"),
    (np.zeros((9, 9, 1)), (2, 5), 3, "at least 3 x 3 pixels, got 2 x 5"),
  ],
)
def test_arguments_that_do_not_fit_are_refused(sample, size, window, message):
  with pytest.raises(ValueError, match=message):
    synthesize(sample, size, window=window)
