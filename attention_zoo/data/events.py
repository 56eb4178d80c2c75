"""Music as a sequence of events: performances (Simon & Oore 2017) and chorales, and their vocabularies.

A *performance* has 128 NOTE_ON, 128 NOTE_OFF, 100 TIME_SHIFT of 10 ms to 1 s and 32 VELOCITY events: 388
("performance"); with the 88 keys of a piano alone 308 ("piano"). A VELOCITY holds for the notes that follow. A
*chorale* is a grid of four voices at sixteenths, written row by row, soprano, alto, tenor, bass: one of 128 pitches or
a rest (129, "chorales"). It does not tell a note that is held from one that is struck again.

A piece is a text in which each character is an event (U+E000 and on, where Unicode has no letters), so that all that
reads texts reads music. A vocabulary turns notes (`data/midi.py`) into such texts and back; it has the interface of
`tokenizer.Tokenizer`, with its special ids before the events.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence

import numpy as np

from attention_zoo.data import midi
from attention_zoo.data.characters import FIRST, SPECIAL
from attention_zoo.data.tokenizer import UNK
from attention_zoo.errors import UserError

STEP = 0.01  # seconds of the shortest TIME_SHIFT
SHIFTS, VELOCITIES = 100, 32
SIXTEENTH = 0.15  # seconds at which chorales are played: 100 quarters a minute
VOICES = 4  # soprano, alto, tenor, bass
REST = -1
_BASE = 0xE000
_LOUDNESS = 80  # of a chorale
_NAMES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


def learn(kind: str, *, vocab_size: int) -> bytes:
  """The content of tokenizer.model for a vocabulary of VOCABULARIES: nothing is learnt. UserError for another size."""
  wanted = VOCABULARIES[kind].num_events + FIRST
  if vocab_size != wanted:
    raise UserError(f"config.data.vocab_size = {vocab_size}: the events of {kind!r} need {wanted}")
  return json.dumps({"events": kind}).encode()


def parse(model: bytes, path=None):
  """The vocabulary that `learn` wrote; None for another kind of file."""
  for vocabulary in VOCABULARIES.values():
    if model == json.dumps({"events": vocabulary.kind}).encode():
      return vocabulary
  return None


def to_text(events) -> str:
  """Numbers of events as a text."""
  return "".join(chr(_BASE + int(event)) for event in events)


def name_of(pitch: int) -> str:
  """60 is C4."""
  return f"{_NAMES[pitch % 12]}{pitch // 12 - 1}"


class Vocabulary:
  """What performances and chorales share. kind: its name in a config."""

  def __init__(self, kind: str, num_events: int):
    self.kind, self.num_events = kind, num_events
    self.fingerprint = hashlib.sha256(f"events {kind}".encode()).hexdigest()

  quarter = 0.0  # seconds of a quarter note, where the events have one
  target = property(lambda self: self)

  @property
  def vocab_size(self) -> int:
    return FIRST + self.num_events

  def encode(self, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, without special ids; what is no event is <unk>."""
    return [
      [FIRST + event if 0 <= (event := ord(character) - _BASE) < self.num_events else UNK for character in text]
      for text in texts
    ]

  def unknown(self, text: str) -> list[str]:
    return sorted({character for character in text if self.encode([character]) == [[UNK]]})

  def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
    """The text of each list of ids; special ids vanish."""
    return [to_text(int(i) - FIRST for i in some if FIRST <= i < self.vocab_size) for some in ids]

  def pieces(self, ids: Sequence[int]) -> list[str]:
    """Each event in words."""
    return [SPECIAL.get(int(i)) or self._word(int(i) - FIRST) for i in ids]

  def transpose(self, ids: np.ndarray, semitones: int) -> np.ndarray:
    """The ids so many semitones higher, or fewer where a note would be outside."""
    return np.where(self._is_note(ids), ids + int(np.clip(semitones, *self.room(ids))), ids)

  def events(self, text: str) -> np.ndarray:
    """The numbers of a text's events. Raises UserError for a text of something else."""
    if found := self.unknown(text):
      raise UserError(f"this is no text of events: it has {found[0]!r}")
    return np.array([ord(character) - _BASE for character in text], np.int64)


class Performance(Vocabulary):
  """lowest, keys: the pitches that it has; notes outside are left out."""

  per_second = 60  # events of dense playing

  def __init__(self, kind: str, lowest: int, keys: int):
    super().__init__(kind, 2 * keys + SHIFTS + VELOCITIES)
    self.lowest, self.keys = lowest, keys
    self.shift, self.velocity = 2 * keys, 2 * keys + SHIFTS  # the first event of each of these

  def from_notes(self, notes: np.ndarray) -> str:
    """The text of these notes; times are rounded to 10 ms and velocities to one of 32."""
    at = np.floor(notes[:, :2] / STEP + 0.5)
    short = at[:, 1] <= at[:, 0]  # lasts a whole step, and neither end moves by more than one
    at[short, 0] = np.floor(notes[short, 0] / STEP)
    at[short, 1] = at[short, 0] + 1
    bins = np.clip((notes[:, 3] - 1) // 4, 0, VELOCITIES - 1)
    inside = (notes[:, 2] >= self.lowest) & (notes[:, 2] < self.lowest + self.keys)
    notes = midi.separate(np.stack([*at.T, notes[:, 2] - self.lowest, bins], 1)[inside]).astype(np.int64)
    # At one time keys are released before others are struck, the lowest first.
    ends = [(end, 0, key, 0) for _, end, key, _ in notes.tolist()]
    starts = [(start, 1, key, velocity) for start, _, key, velocity in notes.tolist()]
    events, now, loud = [], 0, None
    for time, struck, key, velocity in sorted(ends + starts):
      events += self._shifts(time - now)
      now = time
      if struck and velocity != loud:
        events.append(self.velocity + velocity)
        loud = velocity
      events.append(key if struck else self.keys + key)
    return to_text(events)

  def _shifts(self, steps: int) -> list[int]:
    whole, rest = divmod(steps, SHIFTS)
    return [self.shift + SHIFTS - 1] * whole + ([self.shift + rest - 1] if rest else [])

  def to_notes(self, text: str) -> np.ndarray:
    """The notes of a text, whatever it holds: the end of a note that does not sound is ignored, a key that is struck
    while it sounds is released first, and what is never released ends after `midi.HANGING` seconds."""
    found, sounding, now, loud = [], {}, 0, VELOCITIES // 2

    def close(key, end):
      if key in sounding:
        start, velocity = sounding.pop(key)
        found.append((start * STEP, end * STEP, self.lowest + key, 4 * velocity + 3))

    for event in self.events(text).tolist():
      if event >= self.velocity:
        loud = event - self.velocity
      elif event >= self.shift:
        now += event - self.shift + 1
      else:
        close(event % self.keys, now)
        if event < self.keys:
          sounding[event] = now, loud
    for key in [*sounding]:
      close(key, sounding[key][0] + midi.HANGING / STEP)
    return midi.separate(np.array(found, np.float64).reshape(-1, 4))

  def times(self, text: str) -> np.ndarray:
    """The second at which each event happens; that of a TIME_SHIFT is its end."""
    events = self.events(text)
    shifts = (events >= self.shift) & (events < self.velocity)
    return np.cumsum(np.where(shifts, events - self.shift + 1, 0)) * STEP

  def duration(self, text: str) -> float:
    """The seconds until its last event."""
    return float(self.times(text)[-1]) if text else 0.0

  def pitches(self, text: str) -> np.ndarray:
    """The pitch that each event strikes; -1 for other events."""
    events = self.events(text)
    return np.where(events < self.keys, events + self.lowest, -1)

  def _is_note(self, ids):
    return (ids >= FIRST) & (ids < FIRST + 2 * self.keys)

  def room(self, ids: np.ndarray) -> tuple[int, int]:
    """By how many semitones all notes can be moved, down (no more than 0) and up."""
    keys = (ids[self._is_note(ids)] - FIRST) % self.keys
    return -int(keys.min(initial=self.keys)), self.keys - 1 - int(keys.max(initial=-1))

  def stretch(self, ids: np.ndarray, factor: float) -> np.ndarray:
    """The ids with all times multiplied by a factor, each rounded to 10 ms: there may be more of them, or fewer.

    What falls into one step of 10 ms keeps its order, which need not be that of `from_notes`; a note that begins and
    ends in one step is none.
    """
    shift = FIRST + self.shift
    is_shift = (ids >= shift) & (ids < shift + SHIFTS)
    now = np.floor(np.cumsum(np.where(is_shift, ids - shift + 1, 0)) * factor + 0.5).astype(np.int64)
    stay = np.flatnonzero(~is_shift)
    if not len(ids):
      return ids
    # The time that passes before each event that stays, and behind the last of them.
    steps = np.diff(np.concatenate([[0], now[stay], now[-1:]]))
    whole, rest = np.divmod(steps, SHIFTS)
    counts = whole + (rest > 0) + 1
    found = np.full(counts.sum(), shift + SHIFTS - 1, ids.dtype)
    ends = np.cumsum(counts) - 1  # where the events that stay come to stand
    partly = rest > 0
    found[ends[partly] - 1] = shift + rest[partly] - 1
    found[ends[:-1]] = ids[stay]
    return found[:-1]

  def _word(self, event):
    if event >= self.velocity:
      return f"velocity {event - self.velocity + 1}"
    if event >= self.shift:
      return f"+{10 * (event - self.shift + 1)} ms"
    return f"{'on' if event < self.keys else 'off'} {name_of(self.lowest + event % self.keys)}"


class Chorales(Vocabulary):
  """Event 0 is a rest, event 1 + p the pitch p."""

  per_second = round(VOICES / SIXTEENTH)
  quarter = 4 * SIXTEENTH

  def __init__(self):
    super().__init__("chorales", 129)

  def from_grid(self, grid: np.ndarray) -> str:
    """grid [sixteenths, VOICES]: pitches, soprano first; REST where a voice is silent."""
    return to_text(np.asarray(grid).reshape(-1) + 1)

  def from_notes(self, notes: np.ndarray) -> str:
    """The text of what sounds in the middle of each sixteenth: the highest four, the highest of them as soprano.

    Of three pitches alto and tenor have the middle one, since notes do not tell a unison: the lowest stays the bass.
    """
    length = int(np.ceil(notes[:, 1].max(initial=0) / SIXTEENTH - 1e-6))
    grid = np.full((length, VOICES), REST)
    for i in range(length):
      now = (i + 0.5) * SIXTEENTH
      sounding = np.unique(notes[(notes[:, 0] <= now) & (now < notes[:, 1]), 2])[::-1][:VOICES]
      if len(sounding) == VOICES - 1:
        sounding = sounding[[0, 1, 1, 2]]
      grid[i, : len(sounding)] = sounding
    return self.from_grid(grid)

  def grid(self, text: str) -> np.ndarray:
    """A last row that is not whole is filled up with rests."""
    events = self.events(text) - 1
    return np.concatenate([events, np.full(-len(events) % VOICES, REST)]).reshape(-1, VOICES)

  def to_notes(self, text: str) -> np.ndarray:
    """The notes of a text; a pitch that a voice has in several sixteenths on end is one note. Where another voice takes
    up the pitch meanwhile, that note sounds for as long as either has it."""
    found = []
    for voice in self.grid(text).T:
      bounds = np.concatenate([[0], np.flatnonzero(np.diff(voice)) + 1, [len(voice)]])
      found += [
        (start * SIXTEENTH, end * SIXTEENTH, voice[start], _LOUDNESS)
        for start, end in zip(bounds[:-1], bounds[1:], strict=True)
        if end > start and voice[start] != REST
      ]
    notes = np.array(sorted(found, key=lambda note: (note[2], *note[:2])), np.float64).reshape(-1, 4)
    for before, after in itertools.pairwise(notes):
      if before[2] == after[2] and after[0] < before[1]:
        after[1] = max(before[1], after[1])
    return midi.separate(notes)

  def times(self, text: str) -> np.ndarray:
    """The second at which each event begins."""
    return np.arange(len(text)) // VOICES * SIXTEENTH

  def duration(self, text: str) -> float:
    """The seconds until its last sixteenth ends."""
    return -(-len(text) // VOICES) * SIXTEENTH

  def pitches(self, text: str) -> np.ndarray:
    """The pitch of each event; -1 for a rest."""
    return self.events(text) - 1

  def _is_note(self, ids):
    return (ids > FIRST) & (ids < self.vocab_size)

  def room(self, ids: np.ndarray) -> tuple[int, int]:
    """By how many semitones all notes can be moved, down (no more than 0) and up."""
    notes, lowest, highest = ids[self._is_note(ids)], FIRST + 1, self.vocab_size - 1
    return lowest - int(notes.min(initial=self.vocab_size)), highest - int(notes.max(initial=FIRST))

  def _word(self, event):
    return name_of(event - 1) if event else "rest"


VOCABULARIES = {
  vocabulary.kind: vocabulary
  for vocabulary in (Performance("performance", 0, 128), Performance("piano", 21, 88), Chorales())
}
