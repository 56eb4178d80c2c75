"""Notes out of MIDI files and into them: pedal, tempo, notes without an end; files that are none, in one line each."""

import io
import struct
import time

import mido
import numpy as np
import pytest

from attention_zoo.data import midi
from attention_zoo.errors import UserError
from tests.data import tunes


def file_of(*tracks, ticks=100, type=1):
  """The content of a MIDI file; a track is a list of (delta, kind, fields)."""
  made = []
  for track in tracks:
    messages = mido.MidiTrack()
    for delta, kind, fields in track:
      new = mido.MetaMessage if kind == "set_tempo" else mido.Message
      messages.append(new(kind, time=delta, **fields))
    made.append(messages)
  buffer = io.BytesIO()
  mido.MidiFile(type=type, ticks_per_beat=ticks, tracks=made).save(file=buffer)
  return buffer.getvalue()


def on(delta, note, velocity=64, channel=0):
  return delta, "note_on", {"note": note, "velocity": velocity, "channel": channel}


def off(delta, note, channel=0):
  return delta, "note_off", {"note": note, "channel": channel}


def pedal(delta, value, channel=0):
  return delta, "control_change", {"control": 64, "value": value, "channel": channel}


def test_what_is_written_is_read():
  notes = tunes.notes()
  found = midi.read(midi.write(notes))
  np.testing.assert_allclose(found[:, :2], notes[:, :2], atol=0.0005001)
  np.testing.assert_array_equal(found[:, 2:], notes[:, 2:])


def test_tempo_changes_hold_for_all_tracks():
  tempo = lambda delta, beat: (delta, "set_tempo", {"tempo": beat})
  content = file_of([tempo(0, 1_000_000), tempo(100, 500_000)], [on(50, 60), off(100, 60)])
  np.testing.assert_allclose(midi.read(content), [[0.5, 1.25, 60, 64]])


def test_quarter_notes_at_any_tempo():
  tempo = lambda delta, beat: (delta, "set_tempo", {"tempo": beat})
  content = file_of([tempo(0, 1_000_000), tempo(100, 500_000)], [on(50, 60), off(100, 60)])
  np.testing.assert_allclose(midi.read(content, quarter=0.6), [[0.3, 0.9, 60, 64]])
  written = midi.write(np.array([[0.6, 0.75, 60, 64.0]]), quarter=0.6)  # at the second quarter, a sixteenth long
  np.testing.assert_allclose(midi.read(written), [[0.6, 0.75, 60, 64]])
  np.testing.assert_allclose(midi.read(written, quarter=4.0), [[4.0, 5.0, 60, 64]])


def test_frames_a_second():
  content = bytearray(file_of([on(50, 60), off(100, 60)]))
  content[12:14] = struct.pack(">bB", -25, 4)  # 25 frames of 4 ticks
  np.testing.assert_allclose(midi.read(bytes(content)), [[0.5, 1.5, 60, 64]])


def test_the_pedal_holds_notes_until_it_is_released_or_the_key_struck_again():
  content = file_of(
    [
      pedal(0, 127), on(0, 60), off(20, 60), on(0, 64), off(20, 64), on(20, 60), off(20, 60), pedal(20, 10),
      on(0, 67), off(20, 67),
    ]
  )  # fmt: skip
  wanted = [[0, 0.3, 60, 64], [0.1, 0.5, 64, 64], [0.3, 0.5, 60, 64], [0.5, 0.6, 67, 64]]
  np.testing.assert_allclose(midi.read(content), wanted)


def test_the_pedal_is_that_of_its_channel():
  content = file_of([pedal(0, 127, 1), on(0, 60), off(20, 60), pedal(80, 0, 1)])
  np.testing.assert_allclose(midi.read(content), [[0, 0.1, 60, 64]])


def test_ends_without_a_note_are_ignored_and_notes_without_an_end_closed():
  content = file_of([off(0, 50), on(0, 60), off(20, 61)])
  np.testing.assert_allclose(midi.read(content), [[0, 5, 60, 64]])


def test_a_key_is_one_note_at_a_time_whatever_the_channels_do():
  content = file_of([on(0, 60), on(20, 60, 90, 1), off(20, 60), off(20, 60, 1)])
  np.testing.assert_allclose(midi.read(content), [[0, 0.1, 60, 64], [0.1, 0.3, 60, 90]])


def test_drums_are_left_out_unless_asked_for():
  content = file_of([on(0, 60), off(20, 60), on(0, 38, 100, 9), off(20, 38, 9)])
  assert len(midi.read(content)) == 1 and len(midi.read(content, drums=True)) == 2
  with pytest.raises(UserError, match="x.mid has nothing but drums"):
    midi.read(file_of([on(0, 38, 100, 9), off(20, 38, 9)]), "x.mid")


GOOD = file_of([on(0, 60), off(100, 60)])
HOURS = 10 * 3600 * 200  # ticks
BAD = {
  "is not a MIDI file": b"To be, or not to be: that is the question",
  "it does not begin with MThd": b"",
  "is not a whole MIDI file": GOOD[:-9],
  "has no tracks": b"MThd" + struct.pack(">Lhhh", 6, 1, 0, 100),
  "has no notes": file_of([pedal(0, 127)]),
  "lasts 10.0 hours": file_of([on(0, 60), off(HOURS, 60)]),
  "has a tempo of 0": file_of([(0, "set_tempo", {"tempo": 0}), on(0, 60), off(9, 60)]),
  "has no ticks in a beat": b"MThd" + struct.pack(">Lhhh", 6, 1, 1, 0) + GOOD[14:],
  "of format 2": b"MThd" + struct.pack(">Lhhh", 6, 2, 1, 100) + GOOD[14:],
  "numbers of thousands of digits": GOOD[:22] + b"\xff" * 5000 + GOOD[22:],
  # What would be a negative delta is a number that does not end.
  "lasts longer than": GOOD[:18] + struct.pack(">L", len(GOOD) - 22 + 12) + b"\xff" * 12 + b"\x7f" + GOOD[23:],
  "has more than": GOOD + bytes(midi.MOST),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_files_are_named(message):
  with pytest.raises(UserError, match=f"song.mid.*{message}"):
    midi.read(BAD[message], "song.mid")


def test_a_hundred_thousand_notes_at_once_are_as_many_as_there_are_keys():
  notes = [on(0, i % 128, 64, i % 9) for i in range(100_000)]
  assert len(midi.read(file_of(notes + [off(100, i) for i in range(128)]))) == 128


def test_whatever_the_bytes_there_are_notes_or_one_line():
  """1,000 files with bytes changed, taken out, doubled or moved."""
  content = midi.write(tunes.notes(20))
  chance = np.random.default_rng(0)
  begin, read = time.monotonic(), 0
  for _ in range(1000):
    mutated = bytearray(content)
    for _ in range(chance.integers(1, 6)):
      at, stop = sorted(chance.integers(0, len(mutated), 2))
      kind = chance.integers(4)
      if kind == 0:
        mutated[at] = chance.integers(256)
      elif kind == 1:
        del mutated[at : min(stop, at + 4)]
      elif kind == 2:
        mutated[at:at] = mutated[at:stop]
      else:
        mutated[at : at + 4] = chance.bytes(4)
      mutated = mutated[: 4 * len(content)]
    try:
      notes = midi.read(bytes(mutated), "mutated.mid")
    except UserError as error:
      assert "mutated.mid" in str(error) and "\n" not in str(error)
    else:
      read += 1
      assert np.isfinite(notes).all() and (notes[:, 1] > notes[:, 0]).all() and len(notes) < 2000
  assert 50 < read < 950 and time.monotonic() - begin < 120


def test_unknown_meta_events_take_their_time_with_them():
  content = bytearray(file_of([on(0, 60), off(100, 60)]))
  at = content.index(b"MTrk")
  size = int.from_bytes(content[at + 4 : at + 8]) + 5
  content[at + 4 : at + 8] = size.to_bytes(4)
  content[at + 8 : at + 8] = b"\x64\xff\x0a\x01\x41"
  with pytest.raises(UserError, match="the file has meta events of an unknown kind"):
    midi.read(bytes(content))


def test_a_key_is_struck_before_it_is_released_at_the_same_time():
  content = file_of([on(0, 60), on(100, 60), off(0, 60), off(100, 60)])
  np.testing.assert_allclose(midi.read(content), [[0, 0.5, 60, 64], [0.5, 1, 60, 64]])


def test_a_note_without_an_end_is_closed_though_its_key_is_struck_again():
  content = file_of([on(0, 60), on(2000, 60), off(100, 60)])
  np.testing.assert_allclose(midi.read(content), [[0, midi.HANGING, 60, 64], [10, 10.5, 60, 64]])
