"""Sources of music: folders of MIDI files, chorales as JSON, music21's own; bad files reported, skipped or refused."""

import importlib.util
import json

import numpy as np
import pytest

from attention_zoo.configs.language import quickstart
from attention_zoo.data import midi, music, sources
from attention_zoo.data.events import VOCABULARIES
from attention_zoo.errors import UserError
from tests.data import tunes

ROLES = {"train": "train", "dev": "dev", "test": "test"}


def names(source, split):
  return sorted(piece.name for piece in source.pieces(split))


def test_folders_are_splits(tmp_path):
  folder = tunes.folder(tmp_path)
  source = music.midi(ROLES, folder)
  assert names(source, "dev") == ["dev/dev0.mid", "dev/dev1.mid"]
  (piece,) = [piece for piece in source.pieces("train") if piece.name.endswith("3.mid")]
  np.testing.assert_allclose(piece.notes, tunes.scale(key=53), atol=0.001)
  before = source.fingerprint("train")
  assert before == music.midi(ROLES, folder).fingerprint("train") != source.fingerprint("dev")
  assert before != music.midi(ROLES, folder, longest=3.0).fingerprint("train")
  (folder / "train/train0.mid").write_bytes(midi.write(tunes.scale(20)))
  assert before != source.fingerprint("train")


def test_the_hash_of_a_piece_says_its_split(tmp_path):
  for piece in range(30):
    for player in "ab":
      (tmp_path / f"piece{piece}__{player}.midi").write_bytes(midi.write(tunes.scale(5, 40 + piece)))
  source = music.midi(ROLES, tmp_path, split="hash", held_out=0.2, piece=".*__")
  splits = {split: names(source, split) for split in ROLES}
  assert sorted(sum(splits.values(), [])) == sorted(path.name for path in tmp_path.iterdir())
  for found in splits.values():
    assert len(found) > 3 and [n[:-6] for n in found if "__a" in n] == [n[:-6] for n in found if "__b" in n]
  with pytest.raises(UserError, match="train, dev and test, not 'valid'"):
    names(source, "valid")


def test_bad_files_are_skipped_with_a_report_or_refused(tmp_path, caplog):
  folder = tunes.folder(tmp_path)
  (folder / "train/poem.mid").write_bytes(b"to be or not to be")
  (folder / "train/half.mid").write_bytes(midi.write(tunes.scale())[:50])
  assert len(names(music.midi(ROLES, folder), "train")) == 6
  (record,) = caplog.records
  assert "2 of 8 MIDI files" in record.message and "poem.mid is not a MIDI file" in record.message
  assert "half.mid is not a whole MIDI file" in record.message
  with pytest.raises(UserError, match="half.mid is not a whole"):
    names(music.midi(ROLES, folder, bad="refuse"), "train")
  with pytest.raises(UserError, match="6 of 6 MIDI files.*hours"):
    (folder / "train/poem.mid").unlink(), (folder / "train/half.mid").unlink()
    names(music.midi(ROLES, folder, longest=0.5), "train")


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("midi(split='file')", "must be 'folders' or 'hash'"),
    ("midi(bad='ignore')", "must be 'skip' or 'refuse'"),
    ("midi(held_out=0.7)", "below 0.5"),
    ("midi(piece='(')", "no regular expression"),
    ("mid()", "did you mean 'midi'"),
  ],
)
def test_wrong_options_are_told(tmp_path, text, message):
  config = quickstart.get_config()
  config.data.source, config.data.tokenizer = text, "piano"
  with pytest.raises(UserError, match=message):
    music.make_scores(config.data, str(tmp_path))


def test_folders_that_are_not_there(tmp_path):
  with pytest.raises(UserError, match="must name the folder"):
    music.midi(ROLES, "")
  with pytest.raises(UserError, match="does not exist"):
    music.midi(ROLES, tmp_path / "no")
  with pytest.raises(UserError, match="has no folder train"):
    names(music.midi(ROLES, tmp_path), "train")
  (tmp_path / "train").mkdir()
  with pytest.raises(UserError, match="has no MIDI files"):
    names(music.midi(ROLES, tmp_path), "train")


def test_chorales_in_json(tmp_path):
  path = tmp_path / "chorales.json"
  grids = [tunes.grid(16, i) for i in range(3)]
  path.write_text(json.dumps({"train": [grid.tolist() for grid in grids], "valid": [grids[0].tolist()]}))
  source = music.chorales(ROLES | {"dev": "valid"}, path)
  for piece, grid in zip(source.pieces("train"), grids, strict=True):
    np.testing.assert_array_equal(piece.grid, grid)
  assert len(names(source, "dev")) == 1 and source.fingerprint("train") != source.fingerprint("dev")
  with pytest.raises(UserError, match="no chorales of the split 'test'; its splits are 'train', 'valid'"):
    names(source, "test")
  scores = music.Scores(source, "chorales")
  assert list(scores.documents("dev")) == [VOCABULARIES["chorales"].from_grid(grids[0])]
  as_performance = next(music.Scores(source, "performance").documents("dev"))
  chorales = VOCABULARIES["chorales"]
  notes = VOCABULARIES["performance"].to_notes(as_performance)
  assert chorales.from_notes(notes) == chorales.from_notes(chorales.to_notes(chorales.from_grid(grids[0])))


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ({"train": [[[60, 60, 60]]]}, r"train\[0\] has the shape \[1, 3\]"),
    ({"train": [[[60, 60, 60, 60], [60]]]}, "no grid"),
    ({"train": [[[60, 60, 60, 128]]]}, "neither a pitch"),
    ({"train": [[[60, 60, 60, 60.5]]]}, "neither a pitch"),
    ({"train": [[["a", 60, 60, 60]]]}, "no grid"),
    ({"train": [[]]}, "has the shape"),
    ([], "no chorales of the split"),
  ],
)
def test_wrong_chorales_are_told(tmp_path, content, message):
  path = tmp_path / "chorales.json"
  path.write_text(json.dumps(content))
  with pytest.raises(UserError, match=message):
    names(music.chorales(ROLES, path), "train")


def test_pickled_chorales_are_refused(tmp_path):
  with pytest.raises(UserError, match="may run programs"):
    music.chorales(ROLES, tmp_path / "Jsb16thSeparated.npz")


def test_a_data_set_of_midi_files(monkeypatch, caplog):
  contents = [midi.write(tunes.scale(5)), b"no music", midi.write(tunes.scale(7))]

  class Records:
    def __init__(self, name, directory, fields, roles):
      assert (name, directory, fields, roles) == ("groove/full-midionly", "somewhere", ("midi",), ROLES)

    def values(self, split):
      return ((content,) for content in contents)

    def fingerprint(self, split):
      return "0" * 64

  monkeypatch.setattr(sources, "TensorFlowDatasets", Records)
  source = music.tfds(ROLES, "somewhere", name="groove/full-midionly")
  assert [len(piece.notes) for piece in source.pieces("train")] == [5, 7]
  assert "groove/full-midionly, record 2 is not a MIDI file" in caplog.text and len(source.fingerprint("train")) == 64
  with pytest.raises(UserError, match="record 2"):
    names(music.tfds(ROLES, "somewhere", name="groove/full-midionly", bad="refuse"), "train")


@pytest.fixture(scope="module")
def bach():
  if importlib.util.find_spec("music21") is None:
    pytest.skip("music21 is not installed")
  return music.bach(ROLES, "")


def test_the_chorales_of_music21(bach):
  pieces = list(bach.pieces("dev"))
  assert len(pieces) > 30
  for piece in pieces:
    assert piece.grid.shape[1] == 4 and 20 < len(piece.grid) < 2000
    pitches = piece.grid[piece.grid >= 0]
    assert 30 <= pitches.min() and pitches.max() <= 85
    assert (piece.grid[:, 0] >= piece.grid[:, 3]).mean() > 0.95  # the soprano is above the bass
  assert not {p.name for p in pieces} & {p.name for p in bach.pieces("test")}
  assert len(bach.fingerprint("train")) == 64


def test_what_stands_twice_in_the_corpus_stands_in_one_split(bach):
  def relative(piece):
    """The same in every key."""
    return np.where(piece.grid < 0, -1000, piece.grid - piece.grid[piece.grid >= 0][0]).tobytes()

  train, dev, test = ({relative(p): p.name for p in bach.pieces(split)} for split in ("train", "dev", "test"))
  assert len(train) + len(dev) + len(test) < 403  # there are some
  assert not {*train} & {*dev} and not {*train} & {*test} and not {*dev} & {*test}
  known = [music.phrases(p.grid, 10) for p in bach.pieces("train")]
  for piece in [*bach.pieces("dev"), *bach.pieces("test")]:  # more than half of none stands in one training chorale
    own = music.phrases(piece.grid, 10)
    assert all(len(own & other) <= len(own) / 2 for other in known), piece.name



@pytest.mark.filterwarnings("ignore")  # music21's own
def test_music21_reads_the_same_chorale(bach):
  (path,) = bach._folder.glob("bwv66.6.mxl")
  from music21 import converter

  score = converter.parse(path)
  grid = music.read_chorale(path)
  for voice, part in enumerate(score.parts):
    wanted = np.full(len(grid), -1)
    for note in part.flatten().notes:
      start, stop = (int(np.ceil(4 * float(x))) for x in (note.offset, note.offset + note.quarterLength))
      wanted[start:stop] = note.pitch.midi
    np.testing.assert_array_equal(grid[:, voice], wanted)
