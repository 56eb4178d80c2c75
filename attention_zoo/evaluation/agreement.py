"""How well labels and numbers agree with those that are wanted: accuracy, F1, Matthews', Pearson's and Spearman's
correlation, as GLUE has them (Wang et al. 2019, table 1).

Each is a fraction, not in percent; a correlation with what does not vary is 0.
"""

from collections.abc import Sequence

import numpy as np


def accuracy(found: Sequence, wanted: Sequence) -> float:
  return float(np.mean([a == b for a, b in zip(found, wanted, strict=True)]))


def f1(found: Sequence, wanted: Sequence, label) -> float:
  """Of one label."""
  pairs = list(zip(found, wanted, strict=True))
  right = sum(a == b == label for a, b in pairs)
  return 2 * right / max(sum(a == label for a, _ in pairs) + sum(b == label for _, b in pairs), 1)


def macro_f1(found: Sequence, wanted: Sequence, labels: Sequence) -> float:
  """The mean over the labels that there are, found or wanted."""
  used = [label for label in labels if label in set(found) | set(wanted)]
  return float(np.mean([f1(found, wanted, label) for label in used]))


def matthews(found: Sequence[int], wanted: Sequence[int]) -> float:
  """Of any number of classes (Gorodkin 2004); of two it is Matthews' (1975)."""
  classes = np.unique([*found, *wanted])
  ours, theirs = (np.asarray(x)[:, None] == classes[None] for x in (found, wanted))
  return pearson(ours.ravel() - np.tile(ours.mean(0), len(ours)), theirs.ravel() - np.tile(theirs.mean(0), len(theirs)))


def pearson(found: Sequence[float], wanted: Sequence[float]) -> float:
  ours, theirs = (np.asarray(x, np.float64) - np.mean(x, dtype=np.float64) for x in (found, wanted))
  size = np.sqrt((ours @ ours) * (theirs @ theirs))
  return float(ours @ theirs / size) if size else 0.0


def spearman(found: Sequence[float], wanted: Sequence[float]) -> float:
  """Pearson's of the ranks; equal values share the mean of theirs."""
  return pearson(_ranks(found), _ranks(wanted))


def _ranks(values) -> np.ndarray:
  _, which, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
  last = np.cumsum(counts)
  return (last - (counts - 1) / 2)[which]
