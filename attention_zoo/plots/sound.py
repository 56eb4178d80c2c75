"""Notes as sound: a plain additive synthesiser, or FluidSynth where that and a sound font are at hand.

Notes are rows of start and end in seconds, pitch, velocity.
"""

import glob
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile

import numpy as np

from attention_zoo import files

RATE = 22050  # samples a second
FONTS = ("/usr/share/sounds/sf2/*.sf2", "/usr/share/sounds/sf3/*.sf3", "/usr/share/soundfonts/*.sf[23]")
_LONGEST = 3600.0  # seconds
_HARMONICS = (1.0, 0.5, 0.25, 0.18, 0.1, 0.06)
_DECAY = 1.6  # seconds in which a struck string falls to 1/e
_RELEASE = 0.08  # seconds in which it does when the key is released
_ATTACK = 0.004


def wav(notes, midi: bytes | None = None) -> bytes:
  """The content of a WAV file, 16 bits, mono. midi: the same notes as a MIDI file, for FluidSynth; None: synthesised
  here."""
  font = sound_font()
  if midi is not None and font and (played := _fluidsynth(midi, font)):
    return played
  data = (synthesize(notes) * 32767).astype("<i2").tobytes()
  # RIFF: PCM, one channel, samples and bytes a second, bytes and bits a sample.
  form = struct.pack("<4sLHHLLHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
  return struct.pack("<4sL4s", b"RIFF", 4 + len(form) + 8 + len(data), b"WAVE") + form + _chunk(b"data", data)


def _chunk(name, content):
  return struct.pack("<4sL", name, len(content)) + content


def synthesize(notes) -> np.ndarray:
  """Samples of -1 to 1: each note a few harmonics that decay, as those of a struck string do."""
  notes = np.asarray(notes, np.float64).reshape(-1, 4)
  notes = notes[notes[:, 0] < _LONGEST]
  end = min(notes[:, 1].max(initial=0.0), _LONGEST) + 5 * _RELEASE
  samples = np.zeros(int(end * RATE) + 1)
  for start, stop, pitch, velocity in notes:
    first = int(start * RATE)
    held = max(min(stop, _LONGEST, start + 12 * _DECAY) - start, 0.0)  # later nothing is heard
    t = np.arange(min(int((held + 5 * _RELEASE) * RATE), len(samples) - first)) / RATE
    frequency = 440.0 * 2 ** ((pitch - 69) / 12)
    tone = sum(
      strength * np.sin(2 * np.pi * frequency * i * t) * np.exp(-t * (i - 1) / _DECAY)
      for i, strength in enumerate(_HARMONICS, 1)
      if frequency * i < RATE / 2
    )
    shape = np.minimum(t / _ATTACK, 1) * np.exp(-t / _DECAY - np.maximum(t - held, 0) / _RELEASE)
    samples[first : first + len(t)] += tone * shape * (velocity / 127) ** 1.5
  return samples / max(np.abs(samples).max(), 1e-9) * 0.9


def sound_font() -> str | None:
  """The file that FluidSynth would play with: $SOUND_FONT, or one of FONTS; None without it or without FluidSynth."""
  if shutil.which("fluidsynth") is None:
    return None
  named = os.environ.get("SOUND_FONT")
  found = [path for pattern in FONTS for path in sorted(glob.glob(pattern))]
  return next((path for path in ([named] if named else found) if os.path.isfile(path)), None)


def _fluidsynth(midi, font) -> bytes | None:
  """None where it fails."""
  with tempfile.TemporaryDirectory() as folder:
    source, target = pathlib.Path(folder) / "in.mid", pathlib.Path(folder) / "out.wav"
    files.write_bytes(source, midi)
    command = ["fluidsynth", "-ni", "-F", str(target), "-r", str(RATE), font, str(source)]
    try:
      subprocess.run(command, capture_output=True, timeout=600, check=True)
      return files.read_bytes(target, 1 << 30)
    except (OSError, subprocess.SubprocessError, ValueError):
      return None
