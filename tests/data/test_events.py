"""Events of performances and chorales: round trips, what they do with what makes no sense, other keys and speeds."""

import numpy as np
import pytest

from attention_zoo.data import events
from attention_zoo.data.characters import FIRST
from attention_zoo.data.events import VOCABULARIES
from attention_zoo.data.tokenizer import BOS, EOS, UNK
from attention_zoo.errors import UserError
from tests.data import tunes

PERFORMANCE, PIANO, CHORALES = (VOCABULARIES[name] for name in ("performance", "piano", "chorales"))


def test_sizes_are_the_papers():
  assert PERFORMANCE.num_events == 128 + 128 + 100 + 32 == 388
  assert PIANO.num_events == 88 + 88 + 100 + 32 == 308
  assert CHORALES.num_events == 129
  for name, vocabulary in VOCABULARIES.items():
    assert events.parse(events.learn(name, vocab_size=vocabulary.vocab_size)) is vocabulary
    with pytest.raises(UserError, match=f"need {vocabulary.vocab_size}"):
      events.learn(name, vocab_size=7)
  assert events.parse(b'{"bytes": true}') is None


@pytest.mark.parametrize("vocabulary", [PERFORMANCE, PIANO], ids=lambda v: v.kind)
def test_notes_come_back_within_10_ms_and_one_velocity_bin(vocabulary):
  notes = tunes.notes(400)
  notes[5, 1] = notes[5, 0] + 0.002
  found = vocabulary.to_notes(vocabulary.from_notes(notes))
  order = lambda x: x[np.lexsort((x[:, 0], x[:, 2]))]
  assert len(found) == len(notes)
  assert (abs(order(found) - order(notes))[:, :2] <= 0.01).all()
  assert (order(found)[:, 2] == order(notes)[:, 2]).all()
  assert ((order(found)[:, 3] - 1) // 4 == (order(notes)[:, 3] - 1) // 4).all()
  text = vocabulary.from_notes(found)
  assert vocabulary.from_notes(vocabulary.to_notes(text)) == text


def test_the_events_of_two_notes_by_hand():
  notes = np.array([[0.5, 2.0, 60, 80], [0.5, 0.75, 64, 80], [2.0, 2.1, 60, 81]])
  wanted = [356 + 19, 60, 64, 128 + 64, 128 + 60, 356 + 20, 60, 128 + 60]
  shifts = {0: [256 + 49], 3: [256 + 24], 4: [256 + 99, 256 + 24], 7: [256 + 9]}
  wanted = [e for i, event in enumerate(wanted) for e in (*shifts.get(i, ()), event)]
  text = PERFORMANCE.from_notes(notes)
  assert PERFORMANCE.events(text).tolist() == wanted
  (ids,) = PERFORMANCE.encode([text])
  assert ids == [FIRST + e for e in wanted]
  assert PERFORMANCE.pieces([BOS, *ids[:3], ids[5]]) == ["<s>", "+500 ms", "velocity 20", "on C4", "off E4"]
  assert PERFORMANCE.decode([[BOS, *ids, EOS]]) == [text]
  np.testing.assert_allclose(PERFORMANCE.times(text)[[0, 2, -1]], [0.5, 0.5, 2.1])
  assert PERFORMANCE.pitches(text)[[1, 2]].tolist() == [-1, 60]


def test_piano_notes_outside_the_keyboard_are_left_out():
  notes = np.array([[0, 1, 20, 80], [0, 1, 21, 80], [0, 1, 108, 80], [0, 1, 109, 80.0]])
  assert PIANO.to_notes(PIANO.from_notes(notes))[:, 2].tolist() == [21, 108]


def test_what_makes_no_sense_is_played_all_the_same():
  text = events.to_text([128 + 60, 356 + 9, 60, 256 + 99, 60, 256 + 49, 128 + 60, 64])
  np.testing.assert_allclose(
    PERFORMANCE.to_notes(text), [[0, 1, 60, 39], [1, 1.5, 60, 39], [1.5, 6.5, 64, 39]]
  )  # fmt: skip
  assert PERFORMANCE.to_notes("").shape == (0, 4)
  assert PERFORMANCE.encode(["a"]) == [[UNK]] and PERFORMANCE.unknown("ab") == ["a", "b"]
  with pytest.raises(UserError, match="no text of events"):
    PERFORMANCE.to_notes("a")


def test_any_text_of_events_is_music():
  chance = np.random.default_rng(0)
  for vocabulary in VOCABULARIES.values():
    for _ in range(20):
      text = events.to_text(chance.integers(0, vocabulary.num_events, 200))
      notes = vocabulary.to_notes(text)
      assert (notes[:, 1] > notes[:, 0]).all() and len(vocabulary.times(text)) == len(vocabulary.pitches(text)) == 200
      assert len(vocabulary.to_notes(vocabulary.from_notes(notes))) > 0


def test_chorales_are_written_soprano_alto_tenor_bass():
  grid = np.array([[72, 67, 64, 48], [72, 67, -1, 48], [74, 67, 62, 43]])
  text = CHORALES.from_grid(grid)
  assert CHORALES.events(text).tolist() == (grid.ravel() + 1).tolist()
  np.testing.assert_array_equal(CHORALES.grid(text), grid)
  np.testing.assert_array_equal(CHORALES.grid(text[:-1])[-1], [74, 67, 62, -1])
  notes = CHORALES.to_notes(text)
  assert [72, 0, 0.3] in [[pitch, start, round(end, 6)] for start, end, pitch, _ in notes.tolist()]  # held
  assert CHORALES.from_notes(notes) == CHORALES.from_grid([[72, 67, 64, 48], [72, 67, 67, 48], [74, 67, 62, 43]])
  assert CHORALES.pieces(CHORALES.encode([text])[0])[5:8] == ["G4", "rest", "C3"]
  assert CHORALES.times(text)[[3, 4]].tolist() == [0, events.SIXTEENTH]


def test_voices_that_meet_in_a_pitch():
  """The alto holds what the tenor touches; in a trio's place the lowest pitch stays the bass."""
  grid = np.array([[72, 60, 55, 48], [72, 60, 60, 48], [72, 60, 57, 48], [72, 64, 60, 48]])
  notes = CHORALES.to_notes(CHORALES.from_grid(grid))
  same = notes[notes[:, 2] == 60]
  assert all(((same[:, 0] <= t) & (t < same[:, 1])).any() for t in (np.arange(4) + 0.5) * events.SIXTEENTH)
  found = CHORALES.grid(CHORALES.from_notes(notes))
  assert found[:, 3].tolist() == [48] * 4 and found[1].tolist() == [72, 60, 60, 48]



@pytest.mark.parametrize("vocabulary", VOCABULARIES.values(), ids=lambda v: v.kind)
def test_transposing_moves_every_note_and_nothing_else(vocabulary):
  text = vocabulary.from_notes(tunes.notes())
  ids = np.array([BOS, *vocabulary.encode([text])[0], EOS])
  moved = vocabulary.transpose(ids, 3)
  there, here = (vocabulary.to_notes(vocabulary.decode([x])[0]) for x in (moved, ids))
  np.testing.assert_allclose(there, here + [0, 0, 3, 0])
  np.testing.assert_array_equal(vocabulary.transpose(moved, -3), ids)
  (high,) = vocabulary.decode([vocabulary.transpose(ids, 1000)])  # as far as there are keys
  assert vocabulary.to_notes(high)[:, 2].max() == (108 if vocabulary.kind == "piano" else 127)


@pytest.mark.parametrize("factor", [0.95, 1.0, 1.037, 1.05])
def test_stretching_multiplies_times(factor):
  text = PERFORMANCE.from_notes(tunes.notes(60))
  (ids,) = PERFORMANCE.encode([text])
  ids = np.array(ids)
  (stretched,) = PERFORMANCE.decode([PERFORMANCE.stretch(ids, factor)])
  there, here = PERFORMANCE.to_notes(stretched), PERFORMANCE.to_notes(text)
  order = lambda x: x[np.lexsort((x[:, 0], x[:, 2]))]
  np.testing.assert_allclose(order(there)[:, :2], order(here)[:, :2] * factor, atol=0.0051)
  if factor == 1:
    assert stretched == text
  tail = np.array([FIRST + 256 + 99] * 3)
  assert PERFORMANCE.times(PERFORMANCE.decode([PERFORMANCE.stretch(tail, factor)])[0])[-1] == round(3 * factor, 2)
