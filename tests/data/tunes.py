"""Small made-up music for tests."""

import numpy as np

from attention_zoo.data import midi


def notes(number=40, seed=0):
  """Notes at random: [n, 4], as `midi.separate` leaves them."""
  chance = np.random.default_rng(seed)
  start = np.sort(chance.uniform(0, number / 5, number))
  end = start + chance.uniform(0.05, 1.5, number)
  return midi.separate(np.stack([start, end, chance.integers(40, 80, number), chance.integers(1, 128, number)], 1))


def scale(number=40, key=60):
  """A scale up and down, a note every 0.2 s."""
  steps = np.array([0, 2, 4, 5, 7, 9, 11, 12, 11, 9, 7, 5, 4, 2])
  start = np.arange(number) * 0.2
  return np.stack([start, start + 0.2, key + steps[np.arange(number) % 14], np.full(number, 80.0)], 1)


def folder(path, splits=(("train", 6), ("dev", 2), ("test", 2)), number=40):
  """A folder of MIDI files for each split."""
  for split, count in splits:
    (path / split).mkdir(parents=True)
    for i in range(count):
      (path / split / f"{split}{i}.mid").write_bytes(midi.write(scale(number, 50 + i)))
  return path


def grid(length=32, seed=0):
  """A chorale: [length, 4], with a rest here and there."""
  chance = np.random.default_rng(seed)
  chords = np.array([[72, 67, 64, 48], [74, 67, 62, 43], [69, 65, 60, 53]])[chance.integers(0, 3, -(-length // 4))]
  found = np.repeat(chords, 4, 0)[:length]
  found[chance.uniform(size=found.shape) < 0.05] = -1
  return found
