"""Augmented batches: pure functions of (seed, step), the same music in other keys and at other speeds."""

import numpy as np
import pytest

from attention_zoo.data import windows
from attention_zoo.data.augment import Augmented
from attention_zoo.data.events import VOCABULARIES
from attention_zoo.data.tokenizer import BOS, EOS
from tests.data import tunes

VOCABULARY = VOCABULARIES["performance"]


def batches(kind="windows", transpose=3, stretch=0.05, seed=0):
  ids = [[*VOCABULARY.encode([VOCABULARY.from_notes(tunes.notes(60, i))])[0], EOS] for i in range(3)]
  stream = windows.Stream(np.concatenate(ids).astype(np.int32), np.cumsum([0, *map(len, ids)]))
  inner = windows.make_batches(kind, stream, batch_tokens=128, row_length=32, seed=seed, row_multiple=4)
  return inner, Augmented(inner, VOCABULARY, transpose=transpose, stretch=stretch, seed=seed)


def is_note_id(ids):
  return (ids >= 4) & (ids < 260)


@pytest.mark.parametrize("kind", ["windows", "packed"])
def test_batches_are_functions_of_seed_and_step(kind):
  _, first = batches(kind)
  _, again = batches(kind)
  for step in (7, 0, 3):
    for name, x in first[step].items():
      np.testing.assert_array_equal(x, again[step][name])
      halves = [first.local(step, (part,), 2)[name] for part in (0, 1)]
      np.testing.assert_array_equal(np.concatenate(halves), x)
  assert any((first[step]["targets"] != batches(kind, seed=1)[1][step]["targets"]).any() for step in range(3))


def test_nothing_changes_where_nothing_is_asked_for():
  inner, augmented = batches(transpose=0, stretch=0.0)
  for name, x in inner[2].items():
    np.testing.assert_array_equal(augmented[2][name], x)


@pytest.mark.parametrize("kind", ["windows", "packed"])
def test_rows_are_the_same_music_in_another_key(kind):
  inner, augmented = batches(kind, stretch=0.0)
  keys = set()
  for step in range(8):
    old, new = inner[step], augmented[step]
    assert set(old) == set(new)
    for row in range(4):
      moved = new["targets"][row] - old["targets"][row]
      is_note = is_note_id(old["targets"][row])
      assert len(set(moved[is_note])) == 1 and not moved[~is_note].any()
      keys |= set(moved[is_note])
      np.testing.assert_array_equal(
        new["inputs"][row] - old["inputs"][row], np.where(is_note_id(old["inputs"][row]), moved[is_note][0], 0)
      )
  assert keys == set(range(-3, 4))


@pytest.mark.parametrize("kind", ["windows", "packed"])
def test_rows_are_the_same_music_at_another_speed(kind):
  inner, augmented = batches(kind, transpose=0)
  for step in range(6):
    old, new = inner[step], augmented[step]
    filled = new["segments"] > 0
    assert filled.mean() > 0.8 and not new["targets"][~filled].any() and not new["inputs"][~filled].any()
    for row in range(4):
      for segment in range(1, new["segments"][row].max() + 1):
        here, there = (x["segments"][row] == segment for x in (old, new))
        before, after = (
          VOCABULARY.times(VOCABULARY.decode([x["targets"][row][at]])[0]) for x, at in ((old, here), (new, there))
        )
        stay = lambda x, at: [i for i in x["targets"][row][at] if not 260 <= i < 360]
        kept = stay(new, there)
        assert kept == stay(old, here)[: len(kept)]
        assert before[0] * 0.94 - 0.02 <= after[0] <= before[0] * 1.06 + 0.02
        np.testing.assert_array_equal(new["positions"][row][there], np.arange(there.sum()))
        assert new["inputs"][row][there][0] == old["inputs"][row][here][0]
        inputs, targets = new["inputs"][row][there], new["targets"][row][there]
        np.testing.assert_array_equal(inputs[1:], np.where(targets[:-1] == EOS, BOS, targets[:-1]))


def test_rows_that_are_continued_keep_their_key():
  inner, augmented = batches("contiguous", stretch=0.0)
  per_epoch = inner.steps_per_epoch
  assert per_epoch > 1
  moved = lambda step: [
    set(new[is_note_id(old)] - old[is_note_id(old)])
    for old, new in zip(inner[step]["targets"], augmented[step]["targets"], strict=True)
  ]
  assert moved(0) == moved(1) and any(moved(0) != moved(per_epoch * i) for i in (1, 2))


@pytest.mark.parametrize("kind", ["windows", "contiguous"])
def test_inputs_and_targets_are_in_one_key_where_there_is_no_more_room(kind):
  piano = VOCABULARIES["piano"]
  notes = np.array([(0.1 * i, 0.1 * i + 0.1, 21 + (87 if i == 40 else 0 if i == 20 else 40), 80.0) for i in range(200)])
  ids = np.array([*piano.encode([piano.from_notes(notes)])[0], EOS], np.int32)
  stream = windows.Stream(ids, np.array([0, len(ids)]))
  inner = windows.make_batches(kind, stream, batch_tokens=64, row_length=16, seed=0, row_multiple=4)
  augmented = Augmented(inner, piano, transpose=3, stretch=0.0, seed=0)
  keys = {}
  for step in range(getattr(inner, "steps_per_epoch", 12)):
    old, new = inner[step], augmented[step]
    np.testing.assert_array_equal(new["inputs"][:, 1:], new["targets"][:, :-1])
    for row in range(4):
      moved = (new["targets"] - old["targets"])[row][(old["targets"][row] >= 4) & (old["targets"][row] < 4 + 176)]
      assert len({*moved.tolist()}) <= 1
      keys.setdefault(row, set()).update(moved.tolist())
  assert kind == "windows" or all(len(found) == 1 for found in keys.values()), keys
  assert any(keys[row] - {0} for row in keys)
