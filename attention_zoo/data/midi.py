"""MIDI files as notes, and notes as MIDI files.

Notes are a float64 array [n, 4], one row a note: start and end in seconds, pitch, velocity; sorted by start, then
pitch. At no time does a pitch sound twice.

mido reads and writes the bytes. It is pure Python, so that a hostile file can at worst raise an exception; libraries in
C++ are several times faster, but what they do wrong ends the process, and each file is read once a run.
"""

import io
import re

import numpy as np

from attention_zoo.errors import UserError

ENDINGS = (".mid", ".midi")
HANGING = 5.0  # seconds after which a note without an end is closed
MOST = 4 << 20  # bytes of a file; ten hours of piano playing have fewer
_HIGH = re.compile(rb"[\x80-\xff]{4097}")  # read as one number: with millions of digits that would take hours
_MOST_TICKS = 1 << 53
_DRUMS = 9  # the channel


def read(
  content: bytes, name="the file", *, longest: float = 7200.0, drums: bool = False, quarter: float = 0.0
) -> np.ndarray:
  """The notes of a MIDI file, those of all its tracks and channels together.

  A note lasts as long as the sustain pedal holds it, at most until its key is struck again. Ends without a note are
  ignored. A note without an end is closed after HANGING seconds. drums: whether to take the drums' channel too.
  quarter: the seconds of each quarter note, whatever tempo the file says; 0: as it says. Raises UserError that names
  the file and what is wrong with it; longest: seconds that it may last.
  """
  mido = _mido()
  if not content.startswith(b"MThd"):
    raise UserError(f"{name} is not a MIDI file: it does not begin with MThd")
  if len(content) > MOST:
    raise UserError(f"{name} has more than {MOST:,} bytes")
  if _HIGH.search(content):
    raise UserError(f"{name} is not a sound MIDI file: it has numbers of thousands of digits")
  seconds_of, events = _events(_parse(mido, content, name), name, quarter)
  times = seconds_of(np.array([event[0] for event in events], np.float64)).tolist()
  last = times[-1] if times else 0.0
  if last > longest:
    raise UserError(f"{name} lasts {last / 3600:.1f} hours: at most {longest / 3600:.1f} are read (longest)")
  timed = [(time, *event[1:]) for time, event in zip(times, events, strict=True) if drums or event[2] != _DRUMS]
  notes = _notes(timed, last)
  if not len(notes):
    only_drums = any(kind == "note_on" and channel == _DRUMS for _, kind, channel, *_ in events)
    raise UserError(f"{name} has {'nothing but drums' if only_drums and not drums else 'no notes'}")
  return separate(notes)


def _mido():
  """The library. Raises UserError where it is not installed."""
  try:
    import mido
  except ImportError as error:
    raise UserError("for MIDI files install what reads them: pip install 'attention_zoo[music]'") from error
  return mido


def _parse(mido, content, name):
  try:
    file = mido.MidiFile(file=io.BytesIO(content), clip=True)
  except EOFError:
    raise UserError(f"{name} is not a whole MIDI file: it ends in the middle of a track") from None
  except Exception as error:  # whatever the bytes led mido to
    raise UserError(f"{name} is not a sound MIDI file: {str(error) or type(error).__name__}") from None
  if any(message.type == "unknown_meta" for track in file.tracks for message in track):
    raise UserError(f"{name} has meta events of an unknown kind: when the events behind them come cannot be read")
  if file.type == 2:
    raise UserError(f"{name} is a MIDI file of format 2, whose tracks are not played together")
  if not file.tracks:
    raise UserError(f"{name} has no tracks")
  return file


def _events(file, name, quarter):
  """(ticks -> seconds, [(tick, kind, channel, value, other value)] in their order) of a parsed file."""
  events, tempos = [], []
  for track in file.tracks:
    tick = 0
    for message in track:
      tick += message.time
      if tick > _MOST_TICKS:
        raise UserError(f"{name} lasts longer than can be counted")
      if message.type in ("note_on", "note_off"):
        kind = "note_on" if message.type == "note_on" and message.velocity else "note_off"
        events.append((tick, kind, message.channel, message.note, message.velocity))
      elif message.type == "control_change" and message.control in (64, 120, 123):
        kind = "pedal" if message.control == 64 else "silence"
        events.append((tick, kind, message.channel, message.value, 0))
      elif message.type == "set_tempo":
        if not message.tempo:
          raise UserError(f"{name} has a tempo of 0")
        tempos.append((tick, message.tempo))
  events.sort(key=lambda event: event[0])
  division = file.ticks_per_beat
  if division == 0 or (division < 0 and not division & 0xFF):
    raise UserError(f"{name} has no ticks in a beat")
  if division < 0:  # so many ticks in each of so many frames a second; 29 stands for 29.97
    frames = -(division >> 8)
    tick = 1 / ((30 / 1.001 if frames == 29 else frames) * (division & 0xFF))
    return (lambda ticks: ticks * tick), events
  if quarter:
    return (lambda ticks: ticks / division * quarter), events
  tempos = sorted([(0, 500_000), *tempos], key=lambda tempo: tempo[0])
  at, each = np.array([t for t, _ in tempos], np.float64), np.array([x for _, x in tempos]) / 1e6 / division
  begin = np.concatenate([[0], np.cumsum(np.diff(at) * each[:-1])])

  def seconds(ticks):
    i = np.searchsorted(at, ticks, "right") - 1
    return begin[i] + (ticks - at[i]) * each[i]

  return seconds, events


def _notes(events, last) -> np.ndarray:
  """events: (seconds, kind, channel, value, other value) in their order. last: when the file ends."""
  found, pedals = [], set()
  channels = [({}, {}) for _ in range(16)]  # of each the notes that sound and that a pedal holds: (start, velocity)
  struck_again = {}  # (channel, pitch) -> when a strike closed a note whose own end may still come at that time

  def close(notes, pitch, end):
    if pitch in notes:
      start, velocity = notes.pop(pitch)
      found.append((start, end, pitch, velocity))

  for time, kind, channel, value, velocity in events:
    key, (sounding, held) = (channel, value), channels[channel]
    if kind == "note_on":
      if value in sounding:
        struck_again[key] = time
        close(sounding, value, min(time, sounding[value][0] + HANGING))
      close(held, value, time)
      sounding[value] = time, velocity
    elif kind == "note_off" and struck_again.pop(key, None) == time:
      continue
    elif kind == "note_off":
      if channel in pedals and value in sounding:
        held[value] = sounding.pop(value)
      close(sounding, value, time)
    elif kind == "pedal" and value >= 64:
      pedals.add(channel)
    elif kind == "pedal" and channel not in pedals:
      continue
    else:  # the pedal is released, or all is to be silent
      pedals.discard(channel)
      for pitch in [*held]:
        close(held, pitch, time)
      for pitch in [*sounding] if kind == "silence" else ():
        close(sounding, pitch, time)
  for sounding, held in channels:
    for pitch in [*held]:
      close(held, pitch, last)
    for pitch in [*sounding]:
      close(sounding, pitch, sounding[pitch][0] + HANGING)
  return np.array(found, np.float64).reshape(-1, 4)


def separate(notes: np.ndarray) -> np.ndarray:
  """The notes in their order. One whose key is struck again ends there; of those struck at once the longest stays."""
  notes = notes[np.lexsort((notes[:, 1], notes[:, 0], notes[:, 2]))]
  again = notes[1:, 2] == notes[:-1, 2]
  notes[:-1, 1] = np.where(again, np.minimum(notes[:-1, 1], notes[1:, 0]), notes[:-1, 1])
  notes = notes[notes[:, 1] > notes[:, 0]]
  return notes[np.lexsort((notes[:, 2], notes[:, 0]))]


def write(notes: np.ndarray, program: int = 0, *, quarter: float = 0.5) -> bytes:
  """The content of a MIDI file with these notes, for one instrument (General MIDI's; 0 is a grand piano).

  quarter: the seconds of a quarter note, as the file's tempo. A tick is a millisecond.
  """
  mido = _mido()
  messages = [(0.0, 0, "program", 0, 0)]
  for start, end, pitch, velocity in np.asarray(notes, np.float64):
    messages.append((start, 2, "note_on", int(pitch), int(np.clip(velocity, 1, 127))))
    messages.append((end, 1, "note_off", int(pitch), 0))
  track, before = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=round(quarter * 1e6))]), 0
  for time, _, kind, pitch, velocity in sorted(messages):
    tick = round(time * 1000)
    delta, before = tick - before, tick
    if kind == "program":
      track.append(mido.Message("program_change", program=program, time=delta))
    else:
      track.append(mido.Message(kind, note=pitch, velocity=velocity, time=delta))
  buffer = io.BytesIO()
  mido.MidiFile(type=0, ticks_per_beat=round(quarter * 1000), tracks=[track]).save(file=buffer)
  return buffer.getvalue()
