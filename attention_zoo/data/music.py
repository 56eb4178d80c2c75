"""Where music comes from: folders of MIDI files, chorales as JSON, the Bach chorales that music21 brings, or TensorFlow
Datasets.

A config names a source with its options: source="midi(split='hash')". Each yields pieces, which a vocabulary of
`data/events.py` makes into the texts that a language model learns from.
"""

import functools
import hashlib
import importlib.util
import logging
import pathlib
import re
import zipfile
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from attention_zoo import files
from attention_zoo.data import midi as midi_files
from attention_zoo.data.documents import make_documents
from attention_zoo.data.events import REST, VOCABULARIES, VOICES
from attention_zoo.data.splits import resolve
from attention_zoo.data.textfiles import digest
from attention_zoo.errors import UserError

logger = logging.getLogger(__name__)

_FORMAT = 1  # of what becomes of a file; part of every fingerprint
_TOLD = 20  # skipped files that a report names
_MOST = 256 << 20  # bytes of a JSON file


class Piece(NamedTuple):
  """notes as in `data/midi.py`, or a chorale's grid [sixteenths, VOICES] of pitches and rests."""

  name: str
  notes: np.ndarray | None = None
  grid: np.ndarray | None = None


class Pieces(Protocol):
  def pieces(self, split: str) -> Iterator[Piece]:
    """Streams the pieces of the split of this role or name. UserError on bad input."""

  def fingerprint(self, split: str) -> str:
    """A hexadecimal digest that changes when the content of the split does."""


class Scores:
  """A source of pieces as `documents.Documents`. kind: of the vocabulary that writes them."""

  def __init__(self, source: Pieces, kind: str):
    self.source, self._vocabulary = source, VOCABULARIES[kind]

  def documents(self, split: str) -> Iterator[str]:
    for piece in self.source.pieces(split):
      if text := to_text(piece, self._vocabulary):
        yield text

  def fingerprint(self, split: str) -> str:
    return _digest(_FORMAT, self._vocabulary.fingerprint, self.source.fingerprint(split))


def make_scores(data, directory: str) -> Scores:
  """The source that the config group `data` names. Raises UserError."""
  return Scores(make_documents(data, directory, SOURCES), data.tokenizer)


def to_text(piece: Piece, vocabulary) -> str:
  """A piece in the events of a vocabulary."""
  chorales = VOCABULARIES["chorales"]
  if piece.grid is None:
    return vocabulary.from_notes(piece.notes)
  text = chorales.from_grid(piece.grid)
  return text if vocabulary is chorales else vocabulary.from_notes(chorales.to_notes(text))


def _digest(*parts) -> str:
  return hashlib.sha256(repr(parts).encode()).hexdigest()


def _drawn(name: str, held_out: float) -> str:
  """The split of a piece, by the hash of its name: "dev" and "test" with the probability `held_out` each."""
  chance = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8]) / 2**64
  return "dev" if chance < held_out else "test" if chance < 2 * held_out else "train"


def _check_held_out(held_out):
  if not 0 < held_out < 0.5:
    raise ValueError(f"held_out must be above 0 and below 0.5, not {held_out}")


def _check_drawn(name):
  if name not in ("train", "dev", "test"):
    raise UserError(f"pieces that are split by their hash have the splits train, dev and test, not {name!r}")
  return name


# MIDI files


def midi(
  roles, directory, split: str = "folders", held_out: float = 0.1, piece: str = "", bad: str = "skip",
  longest: float = 7200.0, drums: bool = False, quarter: float = 0.0,
):  # fmt: skip
  """A folder of MIDI files, at any depth.

  split: "folders": each split is a folder of its name in the directory; "hash": the hash of a file's piece says its
  split, `held_out` of the pieces for "dev" and as many for "test". piece: a regular expression; what it matches of a
  file's path is its piece, by default the whole path without its ending. bad: what becomes of a file that cannot be
  read: "skip" leaves it out and tells so, "refuse" ends. longest, drums, quarter: see `data/midi.read`.
  """
  if not 0 <= quarter <= 10:
    raise ValueError(f"quarter must be 0 or the seconds of a quarter note, at most 10, not {quarter}")
  if split not in ("folders", "hash"):
    raise ValueError(f"split must be 'folders' or 'hash', not {split!r}")
  if bad not in ("skip", "refuse"):
    raise ValueError(f"bad must be 'skip' or 'refuse', not {bad!r}")
  _check_held_out(held_out)
  try:
    pattern = re.compile(piece)
  except re.error as error:
    raise ValueError(f"piece is no regular expression: {error}") from error
  options = {"longest": longest, "drums": drums, "quarter": quarter}
  return _MidiFolder(roles, directory, split, held_out, pattern, bad, options)


class _MidiFolder:
  def __init__(self, roles, directory, split, held_out, piece, bad, options):
    if not directory:
      raise UserError("config.data.dir must name the folder of MIDI files.")
    if not files.exists(directory):
      raise UserError(f"config.data.dir={directory} does not exist.")
    self._roles, self._root = roles, files.expand(directory)
    self._split, self._held_out, self._piece, self._bad, self._options = split, held_out, piece, bad, options

  def pieces(self, split: str) -> Iterator[Piece]:
    paths, skipped = self._files(split), []
    for path in paths:
      try:
        yield Piece(str(path.relative_to(self._root)), midi_files.read(_content(path), path, **self._options))
      except UserError as error:
        if self._bad == "refuse":
          raise
        skipped.append(str(error))
    _tell(skipped, len(paths), self._root)

  def fingerprint(self, split: str) -> str:
    named = [(str(path.relative_to(self._root)), _digest_of(path)) for path in self._files(split)]
    return _digest(_FORMAT, self._options, named)

  def _files(self, split) -> list:
    name = resolve(split, self._roles)
    folder = self._root / name if self._split == "folders" else self._root
    if self._split == "hash":
      _check_drawn(name)
    if not folder.is_dir():
      raise UserError(
        f"config.data.dir={self._root} has no folder {name}: name its folders in config.data.train_split and "
        "dev_split, or split the pieces by their hash: midi(split='hash')"
      )
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in midi_files.ENDINGS)
    if self._split == "hash":
      found = [path for path in found if _drawn(self._name(path), self._held_out) == name]
    if not found:
      raise UserError(f"{folder} has no MIDI files ({', '.join(midi_files.ENDINGS)}) for the split {name!r}.")
    return found

  def _name(self, path) -> str:
    name = str(path.relative_to(self._root).with_suffix(""))
    match = self._piece.search(name)
    return (match and match[0]) or name


def _content(path) -> bytes:
  return files.read_bytes(path, midi_files.MOST)


def _digest_of(path) -> str:
  """Of what can be read of a file: one that cannot is skipped, or refused, when its notes are asked for."""
  try:
    return hashlib.sha256(_content(path)).hexdigest()
  except UserError as error:
    return str(error)


def _tell(skipped, number, where):
  """Reports the files that were left out. Raises UserError where none is left."""
  if not skipped:
    return
  more = f"; and {len(skipped) - _TOLD} more" if len(skipped) > _TOLD else ""
  report = f"{len(skipped)} of {number} MIDI files in {where} were skipped: {'; '.join(skipped[:_TOLD])}{more}"
  if len(skipped) == number:
    raise UserError(report)
  logger.warning("%s", report)


def tfds(
  roles, directory, name: str, field: str = "midi", bad: str = "skip", longest: float = 7200.0, drums: bool = False
):
  """A data set of TensorFlow Datasets, prepared as array_record, with MIDI files in a field:
  tfds(name='groove/full-midionly', drums=True)."""
  if bad not in ("skip", "refuse"):
    raise ValueError(f"bad must be 'skip' or 'refuse', not {bad!r}")
  return _MidiRecords(roles, directory, name, field, bad, {"longest": longest, "drums": drums})


class _MidiRecords:
  def __init__(self, roles, directory, name, field, bad, options):
    from attention_zoo.data.sources import TensorFlowDatasets

    self._records = TensorFlowDatasets(name, directory, (field,), roles)
    self._name, self._bad, self._options = name, bad, options

  def pieces(self, split: str) -> Iterator[Piece]:
    number, skipped = 0, []
    for number, (content,) in enumerate(self._records.values(split), 1):
      try:
        name = f"{self._name}, record {number}"
        yield Piece(name, midi_files.read(content, name, **self._options))
      except UserError as error:
        if self._bad == "refuse":
          raise
        skipped.append(str(error))
    _tell(skipped, number, self._name)

  def fingerprint(self, split: str) -> str:
    return _digest(_FORMAT, self._options, self._records.fingerprint(split))


# Chorales


def chorales(roles, directory):
  """A JSON file {split: [chorale, ..]}, a chorale a list of sixteenths [soprano, alto, tenor, bass], each a MIDI pitch
  or -1: the format of github.com/czhuang/JSB-Chorales-dataset, whose splits are "train", "valid" and "test"."""
  return _Chorales(roles, directory)


class _Chorales:
  def __init__(self, roles, path):
    if not path:
      raise UserError("config.data.dir must name the JSON file of chorales.")
    if str(path).endswith((".npz", ".pkl")):
      raise UserError(f"{path} holds Python objects, which may run programs and are not opened: take the .json")
    self._roles, self._path = roles, path

  def pieces(self, split: str) -> Iterator[Piece]:
    name = resolve(split, self._roles)
    content = files.read_json(self._path, _MOST, depth=6)
    if not isinstance(content, dict) or not isinstance(content.get(name), list):
      found = ", ".join(map(repr, content)) if isinstance(content, dict) else "none"
      raise UserError(f"{self._path} has no chorales of the split {name!r}; its splits are {found}")
    for i, chorale in enumerate(content[name]):
      where = f"{self._path}, {name}[{i}]"
      try:
        grid = np.array(chorale, np.float64)
      except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{where} is no grid of pitches: {error}") from error
      if grid.ndim != 2 or grid.shape[1] != VOICES or not len(grid):
        raise UserError(f"{where} has the shape {list(grid.shape)}: a chorale has {VOICES} voices at each sixteenth")
      if ((grid != np.round(grid)) | (grid < REST) | (grid > 127)).any():
        raise UserError(f"{where} has a value that is neither a pitch of 0 to 127 nor {REST} for a rest")
      yield Piece(where, grid=grid.astype(np.int64))

  def fingerprint(self, split: str) -> str:
    return _digest(_FORMAT, resolve(split, self._roles), digest(self._path).hex())


def bach(roles, directory, held_out: float = 0.1):
  """The chorales of J. S. Bach in the corpus that the package music21 brings (pip install 'attention_zoo[music]'):
  some 400 that have the parts soprano, alto, tenor and bass. No network. Chorales with a phrase of the soprano in
  common are in one split: Bach set many a melody several times, and some settings are there twice, in two keys."""
  _check_held_out(held_out)
  return _Bach(roles, held_out)


class _Bach:
  def __init__(self, roles, held_out):
    found = importlib.util.find_spec("music21")
    if found is None:
      raise UserError("the source bach needs the package music21: pip install 'attention_zoo[music]'")
    self._folder = pathlib.Path(found.submodule_search_locations[0]) / "corpus" / "bach"
    self._roles, self._held_out = roles, held_out

  def pieces(self, split: str) -> Iterator[Piece]:
    name, families = _check_drawn(resolve(split, self._roles)), _families(self._all)
    yield from (piece for piece in self._all if _drawn(families[piece.name], self._held_out) == name)

  def fingerprint(self, split: str) -> str:
    return _digest(_FORMAT, [(piece.name, piece.grid.tolist()) for piece in self.pieces(split)])

  @functools.cached_property
  def _all(self) -> list[Piece]:
    paths = sorted(self._folder.glob("*.mxl"))
    if not paths:
      raise UserError(f"music21 is installed without its corpus: there is no {self._folder}")
    grids = ((path.stem, read_chorale(path)) for path in paths)
    return [Piece(name, grid=grid) for name, grid in grids if grid is not None]


_PHRASE = 14  # intervals


def _families(pieces) -> dict[str, str]:
  """Name -> the name of the first piece of its family: pieces with a phrase in common are one, in whatever key."""
  family, first = {}, {}  # a piece -> one of its family, in the end the first; a phrase -> the first piece that has it

  def root(name):
    while family[name] != name:
      name = family[name]
    return name

  for piece in pieces:
    family[piece.name] = piece.name
    for phrase in phrases(piece.grid, _PHRASE):
      one, other = sorted((root(piece.name), root(first.setdefault(phrase, piece.name))))
      family[other] = one
  return {piece.name: root(piece.name) for piece in pieces}


def phrases(grid, length: int) -> set[bytes]:
  """All runs of so many intervals of the soprano, which are the same in every key."""
  steps = np.diff(grid[grid[:, 0] != REST, 0])
  steps = steps[steps != 0].astype(np.int8)
  return {steps[i : i + length].tobytes() for i in range(len(steps) - length + 1)}


_PARTS = ("Soprano", "Alto", "Tenor", "Bass")
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def read_chorale(path) -> np.ndarray | None:
  """The grid [sixteenths, VOICES] of a compressed MusicXML file; None where it has not the four parts."""
  from xml.etree import ElementTree

  with zipfile.ZipFile(path) as archive:
    (name,) = [n for n in archive.namelist() if n.endswith("xml") and not n.startswith("META-INF")]
    score = ElementTree.fromstring(archive.read(name))
  names = {part.get("id"): (part.findtext("part-name") or "").strip() for part in score.iter("score-part")}
  parts = {names[part.get("id")]: part for part in score.iter("part")}
  if any(name not in parts for name in _PARTS):
    return None
  voices = [_voice(parts[name]) for name in _PARTS]
  grid = np.full((max(map(len, voices)), VOICES), REST)
  for i, voice in enumerate(voices):
    grid[: len(voice), i] = voice
  return grid


def _voice(part) -> list[int]:
  """The pitch at each sixteenth of a part of a MusicXML score."""
  divisions, start, notes = 1, 0.0, []  # start: of the measure, in sixteenths
  for measure in part.iter("measure"):
    at = furthest = start
    for element in measure:
      if element.tag == "attributes":
        divisions = float(element.findtext("divisions") or divisions)
        continue
      length = float(element.findtext("duration") or 0) * 4 / divisions
      if element.tag == "backup":
        at -= length
      elif element.tag == "forward" or (element.tag == "note" and element.find("chord") is None):
        if (pitch := element.find("pitch")) is not None and length:  # grace notes have no length
          alter = round(float(pitch.findtext("alter") or 0))
          number = 12 * (int(pitch.findtext("octave")) + 1) + _STEPS[pitch.findtext("step")] + alter
          notes.append((at, at + length, number))
        at += length
      furthest = max(furthest, at)
    start = furthest
  # What sounds when a sixteenth begins, as in the JSB data set.
  voice = [REST] * int(np.ceil(start - 1e-6))
  for begin, end, number in notes:
    for i in range(int(np.ceil(begin - 1e-6)), int(np.ceil(end - 1e-6))):
      voice[i] = number
  return voice


SOURCES = {function.__name__: function for function in (midi, chorales, bach, tfds)}
