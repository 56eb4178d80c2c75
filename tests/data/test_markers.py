"""Pictures of two far markers: what they show is their class, and one marker alone says nothing."""

import collections

import numpy as np
import pytest
from ml_collections import ConfigDict

from attention_zoo.data import images, markers
from attention_zoo.errors import UserError


def colours(pixels):
  """Of the left and the right marker."""
  found = []
  for half in (pixels[:, :12], pixels[:, 12:]):
    flat = half.reshape(-1, 3)
    (coloured,) = np.unique(flat[flat.max(-1) != flat.min(-1)], axis=0)
    found.append(markers.COLOURS.index(tuple(int(x) for x in coloured)))
  return tuple(found)


def source(text, size=24):
  splits = dict(train_split="train", dev_split="dev", test_split="test")
  return images.make_images(ConfigDict(dict(source=text, size=size, num_classes=2, **splits)), "")


def test_the_class_is_whether_both_have_one_colour():
  pixels, labels = source("markers(train=400, dev=5, test=5)").pictures("train")
  assert pixels.shape == (400, 24, 24, 3) and pixels.dtype == np.uint8
  pairs = [colours(each) for each in pixels]
  assert [int(left == right) for left, right in pairs] == labels.tolist()
  assert 160 < labels.sum() < 240
  for label in (0, 1):
    for side in (0, 1):
      counts = collections.Counter(pair[side] for pair, own in zip(pairs, labels, strict=True) if own == label)
      assert len(counts) == 4 and min(counts.values()) > 25


def test_they_are_functions_of_seed_split_and_number():
  first, again, other = (source(f"markers(train=6, dev=6, test=6, seed={seed})") for seed in (0, 0, 1))
  np.testing.assert_array_equal(first.pictures("train")[0], again.pictures("train")[0])
  assert np.any(first.pictures("train")[0] != other.pictures("train")[0])
  assert np.any(first.pictures("train")[0] != first.pictures("dev")[0])
  assert len({first.fingerprint("train"), first.fingerprint("dev"), other.fingerprint("train")}) == 3


def test_one_class_alone():
  made = source("markers(train=20, dev=5, test=5, only='same')")
  pixels, labels = made.pictures("train")
  assert made.classes == ("same",) and labels.tolist() == [0] * 20
  assert all(left == right for left, right in map(colours, pixels))


def test_what_there_is_not_is_told():
  with pytest.raises(UserError, match="markers has the classes different, same, not only='equal'"):
    source("markers(only='equal')")
  with pytest.raises(UserError, match="the source markers has the splits train, dev, test, not 'valid'"):
    source("markers(train=2, dev=2, test=2)").pictures("valid")
  with pytest.raises(UserError, match="markers needs at least one image"):
    source("markers(train=0)")
