import numpy as np
import pytest

from attention_zoo.data import windows, words
from attention_zoo.data.characters import FIRST
from attention_zoo.data.spelt_batches import SpeltBatches
from attention_zoo.data.tokenizer import BOS, EOS
from attention_zoo.errors import UserError

TEXTS = ["the bus goes", "at noon", "a b c d e f g", "one"]
W = 6


def made():
  """(batches, the words of the texts with None for ends)."""
  all_words = [word for text in TEXTS for word in (*text.split(), None)]
  ids = {word: FIRST + i for i, word in enumerate(filter(None, all_words))}
  tokens = np.array([ids.get(word, EOS) for word in all_words], np.int32)
  offsets = np.cumsum([0, *(len(text.split()) + 1 for text in TEXTS)])
  spelling = [token for text in words.Spelling(False).encode(TEXTS) for token in (*text, EOS)]
  stream = windows.Stream(tokens, offsets)
  return SpeltBatches(stream, words.Spelt(np.array(spelling, np.int32)), W), ids


def check(batch, ids):
  """Every target has its own characters, and is the input of the next place of its document."""
  names = {index: word for word, index in ids.items()}
  for b, t in np.argwhere(batch["segments"] > 0):
    target = batch["targets"][b, t]
    end = words.special(words.END_TEXT, W)
    wanted = end if target == EOS else words.spelt([names[target]], W)[0]
    np.testing.assert_array_equal(batch["characters"][b, t], wanted)
    first = batch["positions"][b, t] == 0
    assert batch["inputs"][b, t] == (BOS if first else batch["targets"][b, t - 1])
  for name, x in batch.items():
    assert not x[batch["segments"] == 0].any() and x.dtype == np.int32, name


def test_batches_hold_every_word_with_its_characters():
  batches, ids = made()
  found = []
  for batch in batches.in_order(rows=2, row_length=5):
    check(batch, ids)
    found += batch["targets"][batch["segments"] > 0].tolist()
  assert sorted(found) == sorted([*ids.values(), *[EOS] * len(TEXTS)])
  endless = batches.endless(batch_tokens=16, row_length=8, row_multiple=1, seed=0)
  assert endless.shapes == ({**windows.shapes(2, 8), "characters": (2, 8, W)},)
  for step in range(3):
    check(endless[step], ids)
    halves = [endless.local(step, (part,), 2)["characters"] for part in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(halves), endless[step]["characters"])


def test_files_of_other_texts_are_told():
  batches, _ = made()
  with pytest.raises(UserError, match=r"has 17 words in one file of the cache, and 2 in another"):
    SpeltBatches(batches._stream, words.Spelt(np.array([FIRST + 32, EOS], np.int32)), W)
