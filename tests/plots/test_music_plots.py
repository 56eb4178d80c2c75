"""Sound and pictures of music: onsets where the notes are, nothing outside the scale, skewing's four steps."""

import io
import wave

import numpy as np
import pytest

from attention_zoo.ops import relative
from attention_zoo.plots import piano_roll, skewing, sound

NOTES = np.array([[0.5, 1.0, 69, 100], [1.5, 1.8, 81, 60], [1.5, 2.5, 60, 127.0]])


def test_a_note_sounds_when_and_as_high_as_it_is_written():
  samples = sound.synthesize(NOTES[:1])
  assert not samples[: int(0.5 * sound.RATE)].any() and 0.85 < np.abs(samples).max() <= 0.9001
  part = samples[int(0.55 * sound.RATE) : int(0.95 * sound.RATE)]
  spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part))))
  assert np.argmax(spectrum) * sound.RATE / len(part) == pytest.approx(440, abs=3)
  late = np.abs(samples[int(1.3 * sound.RATE) :]).max()
  assert late < 0.05


def test_loud_notes_are_louder_and_the_file_is_one():
  loud, soft = (sound.synthesize([[0, 1, 60, 100], [2, 3, 60, velocity]]) for velocity in (100, 20))
  ratio = lambda x: np.abs(x[2 * sound.RATE :]).max() / np.abs(x[: sound.RATE]).max()
  assert ratio(soft) < 0.2 < ratio(loud)
  with wave.open(io.BytesIO(sound.wav(NOTES))) as file:
    assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, sound.RATE)
    assert file.getnframes() == len(sound.synthesize(NOTES))
  assert len(sound.synthesize(np.zeros((0, 4)))) > 0
  assert len(sound.synthesize([[1e9, 1e9 + 1, 60, 80]])) < sound.RATE


def test_no_sound_font_is_no_error(monkeypatch, tmp_path):
  monkeypatch.setenv("PATH", str(tmp_path))
  assert sound.sound_font() is None
  program = tmp_path / "fluidsynth"
  program.write_text("#!/bin/sh\nexit 1\n")
  program.chmod(0o755)
  monkeypatch.setenv("SOUND_FONT", str(tmp_path / "piano.sf2"))
  assert sound.sound_font() is None
  (tmp_path / "piano.sf2").touch()
  assert sound.sound_font() == str(tmp_path / "piano.sf2")
  assert sound.wav(NOTES, b"MThd")[:4] == b"RIFF"  # synthesised all the same


def test_the_motif_is_marked():
  fig = piano_roll.roll_figure(NOTES, 1.2, "a $title")
  (axes,) = fig.axes
  colours = [collection.get_facecolors() for collection in axes.collections]
  assert [len(c) for c in colours] == [1, 2] and [text.get_text() for text in axes.texts] == ["motif"]
  assert piano_roll.png(fig).startswith(b"\x89PNG")
  assert piano_roll.png(piano_roll.roll_figure(np.zeros((0, 4)))).startswith(b"\x89PNG")
  html = piano_roll.comparison_page("<x>", (["Run"], [["a"]]), [("<b>", NOTES, 1.2, b"RIFF")])
  assert "&lt;b&gt;" in html and "<b>" not in html and "data:audio/wav;base64,UklGRg==" in html


def test_arcs_go_to_what_is_looked_at():
  weights = np.zeros((2, 4, 4))
  weights[0, 3, 0], weights[1, 3, 2], weights[1, 3, 3] = 0.9, 0.4, 0.6
  fig = piano_roll.arcs_figure(NOTES, [0.5, 0.5, 1.5, 1.5], [69, -1, 81, 60], weights, [3])
  (axes,) = fig.axes
  arcs = [patch for patch in axes.patches if hasattr(patch, "get_connectionstyle")]
  assert [arc._posA_posB for arc in arcs] == [[(1.5, 60), (0.5, 69)], [(1.5, 60), (1.5, 81)]]


def test_the_four_steps_are_those_of_the_code():
  L = 4
  (_, _, _, first), _, _, (_, _, keys, last) = skewing.steps(L)
  x = np.arange(1.0, L * L + 1).reshape(1, 1, L, L)
  number = {cell: x[0, 0, t, r] for t, row in enumerate(first) for r, cell in enumerate(row)}
  found = np.asarray(relative.skew(x, L))[0, 0]
  for t in range(L):
    for s in range(t + 1):
      assert number[last[t][s]] == found[t, s] and last[t][s] == (t, s - t)
  assert keys == ["k0", "k1", "k2", "k3"] and len(skewing.skewing_figure(3).axes) == 4
