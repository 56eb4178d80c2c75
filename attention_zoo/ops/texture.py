"""Texture synthesis by non-parametric sampling: Efros and Leung 1999, "Texture Synthesis by Non-parametric Sampling".

A pixel is drawn from those pixels of a sample whose neighbourhoods look like its own: attention with a fixed similarity
and hard, equal weights. Non-local means, its soft relative, is `image.nonlocal_means`. Classical, on NumPy arrays: each
pixel waits for the one before.

| what              | the paper                                          | here                                     |
|-------------------|----------------------------------------------------|------------------------------------------|
| begin             | 3 x 3 pixels of a random place of the sample       | the same                                 |
| order             | pixels with the most known neighbours first        | the same; rings, each in random order    |
| distance          | squared, weighted by a Gaussian, of known pixels   | the same, mean over channels; deviation  |
|                   |                                                    | window / 6.4 as in the authors' notes    |
| candidates        | up to (1 + 0.1) times the smallest distance        | the same, each as probable               |
| too far           | the pixel waits if the best differs by more than   | the same (from memory); the bound grows  |
|                   | 0.3, which grows where nothing moves               | by a tenth                               |
| neighbourhoods    | that lie in the sample as a whole                  | the same                                 |

Cost of a pixel: time O(U W D).

Letters beside the house's: U all places of the sample in one dimension, W pixels of a neighbourhood.
"""

import numpy as np

_CANDIDATES = 0.1  # how much further than the nearest one a candidate may be
_BOUND = 0.3  # of the distance, at first


def synthesize(sample_YXD, size, *, window=11, seed=0):
  """A texture of size = (rows, columns) that looks like the sample, [rows, columns, D] in the sample's type.

  sample_YXD: any numbers; distances are of its values divided by their range. window: odd width of a neighbourhood, the
  scale of what is regular in the texture. Every pixel of the result is one of the sample's. Raises ValueError for an
  argument that does not fit.

  Cost, with n pixels of the result and n' of the sample: time O(n n' D window^2).
  """
  sample_YXD = np.asarray(sample_YXD)
  if sample_YXD.ndim != 3 or not sample_YXD.size:
    raise ValueError(f"sample_YXD has shape {sample_YXD.shape}, wanted YXD")
  if window < 3 or window % 2 == 0 or window > min(sample_YXD.shape[:2]):
    raise ValueError(f"window must be odd, at least 3, and fit into the sample, got {window} for {sample_YXD.shape}")
  rows, columns = size
  if min(size) < 3:
    raise ValueError(f"the texture must have at least 3 x 3 pixels, got {rows} x {columns}")
  chance, half = np.random.default_rng(seed), window // 2
  values_YXD = sample_YXD.astype(np.float64) / (np.ptp(sample_YXD) or 1)
  neighbourhoods_UWD, centres = _neighbourhoods(values_YXD, window)

  out = np.zeros((rows, columns, sample_YXD.shape[2]), sample_YXD.dtype)
  # As wide a frame of unknown pixels as a neighbourhood reaches.
  values = np.zeros((rows + 2 * half, columns + 2 * half, sample_YXD.shape[2]))
  known = np.zeros(values.shape[:2], bool)
  top, left = (int(chance.integers(length - 2)) for length in sample_YXD.shape[:2])
  y, x = (rows - 3) // 2, (columns - 3) // 2
  out[y : y + 3, x : x + 3] = sample_YXD[top : top + 3, left : left + 3]
  values[half + y : half + y + 3, half + x : half + x + 3] = values_YXD[top : top + 3, left : left + 3]
  known[half + y : half + y + 3, half + x : half + x + 3] = True

  bound = _BOUND
  while (ring := _frontier(known, half, chance)).size:
    progress = False
    for y, x in ring:
      at = np.index_exp[y : y + window, x : x + window]
      distances_U = distances(neighbourhoods_UWD, values[at], known[at])
      (candidates,) = np.nonzero(distances_U <= distances_U.min() * (1 + _CANDIDATES))
      chosen = candidates[chance.integers(len(candidates))]
      if distances_U[chosen] < bound:
        source = centres[chosen]
        out[y, x] = sample_YXD[tuple(source)]
        values[y + half, x + half], known[y + half, x + half] = values_YXD[tuple(source)], True
        progress = True
    bound = bound if progress else bound * 1.1
  return out


def distances(neighbourhoods_UWD, patch, known):
  """How far each neighbourhood of the sample is from a patch [window, window, D] of whose pixels some are known:
  squared differences, weighted by a Gaussian that sums to 1 over the known ones, mean over channels. float64 [U]."""
  window = len(patch)
  offsets = np.arange(window) - window // 2
  line = np.exp(-(offsets**2) / (2 * (window / 6.4) ** 2))
  weights_W = (np.outer(line, line) * known).ravel()
  (seen,) = np.nonzero(weights_W)
  differences = neighbourhoods_UWD[:, seen] - patch.reshape(window**2, -1)[None, seen]
  return (differences**2).mean(-1) @ (weights_W[seen] / weights_W[seen].sum())


def self_similarity(image_YXD, place, *, window=11):
  """How far the neighbourhood of each pixel is from that of `place` = (y, x), float64 [Y - window + 1, ...]: of those
  neighbourhoods that lie in the image as a whole, as does that of the place. It is 0 there and at every repetition."""
  image_YXD = np.asarray(image_YXD, np.float64)
  neighbourhoods_UWD, centres = _neighbourhoods(image_YXD, window)
  y, x = (int(at) - window // 2 for at in place)
  if min(y, x) < 0 or y + window > image_YXD.shape[0] or x + window > image_YXD.shape[1]:
    raise ValueError(f"the neighbourhood of {tuple(place)} does not lie in an image of shape {image_YXD.shape}")
  found_U = distances(neighbourhoods_UWD, image_YXD[y : y + window, x : x + window], np.ones((window, window), bool))
  return found_U.reshape(image_YXD.shape[0] - window + 1, -1)


def _neighbourhoods(values_YXD, window):
  """(all that lie in the image as a whole [U, W, D], the places of their middles [U, 2])."""
  views = np.lib.stride_tricks.sliding_window_view(values_YXD, (window, window), (0, 1))  # [y, x, D, window, window]
  rows, columns, D = views.shape[:3]
  centres = np.stack(np.divmod(np.arange(rows * columns), columns), -1) + window // 2
  return views.transpose(0, 1, 3, 4, 2).reshape(rows * columns, window**2, D), centres


def _frontier(known, half, chance):
  """Unknown pixels (y, x) beside known ones, those with the most known neighbours first."""
  rows, columns = (length - 2 * half for length in known.shape)
  framed = known[half - 1 : half + rows + 1, half - 1 : half + columns + 1]
  around = sum(framed[y : y + rows, x : x + columns].astype(int) for y in range(3) for x in range(3))
  inside = framed[1:-1, 1:-1]
  places = np.argwhere(~inside & (around > 0))
  places = places[chance.permutation(len(places))]
  return places[np.argsort(-around[tuple(places.T)], kind="stable")]
