import numpy as np
import pytest

from attention_zoo.data import identity, words
from attention_zoo.data.characters import FIRST
from attention_zoo.data.corpus import _Side
from attention_zoo.data.tokenizer import EOS, UNK
from attention_zoo.errors import UserError

TEXTS = ["The bus goes at 8.30.", "the bus, the train", "Ärger at 9 ?!"]


def make(size, **options):
  return identity.parse(words.learn(TEXTS, vocab_size=size + FIRST + options.get("buckets", 0), **options), "here")


def test_words_are_split_at_white_space_and_marks():
  assert words.split(TEXTS[0], False) == ["The", "bus", "goes", "at", "8.30."]
  assert words.split(TEXTS[0], True) == ["The", "bus", "goes", "at", "8.30", "."]
  assert words.split("what ?!\u00a0U.S.", True) == ["what", "?", "!", "U.S", "."]


def test_the_most_frequent_words_have_ids():
  vocabulary = make(4, marks=True)
  assert vocabulary.words == ["at", "bus", "the", "!"]  # twice, twice, twice, once
  assert vocabulary.encode(["the bus stops at", ""]) == [[FIRST + 2, FIRST + 1, UNK, FIRST], []]
  assert vocabulary.decode([[FIRST + 2, UNK, EOS]]) == ["the <unk>"]
  assert vocabulary.pieces([FIRST, EOS]) == ["at", "</s>"]
  assert vocabulary.unknown("the tram at") == ["tram"] and vocabulary.vocab_size == 4 + FIRST


def test_unknown_words_share_buckets():
  vocabulary = make(4, marks=True, buckets=3)
  first, ids = FIRST + 4, vocabulary.encode(["tram tram ship car plane bike boat"])[0]
  assert ids[0] == ids[1] and set(ids) == {first, first + 1, first + 2}
  assert vocabulary.id("bus") == FIRST + 1 and vocabulary.vocab_size == first + 3
  assert vocabulary.id("tram") == first + 1  # on every machine
  assert vocabulary.pieces([first + 1]) == ["<unk 1>"]


def test_a_vocabulary_that_cannot_be_filled_is_told():
  with pytest.raises(UserError, match=r"vocab_size = 99, but the training text has 13 different words.* at most 17"):
    words.learn(TEXTS, vocab_size=99, marks=True)
  with pytest.raises(UserError, match="leaves no room for words beside 9 other ids"):
    words.learn(TEXTS, vocab_size=9, buckets=5)


@pytest.mark.parametrize(
  "model",
  [
    b'{"vocabulary": []}', b'{"vocabulary": ["a", "a"], "marks": true, "buckets": 0}', b'{"vocabulary": 3}',
    b'{"vocabulary": ["a"], "marks": 1, "buckets": 0}', b'{"vocabulary": ["a"], "marks": true, "buckets": -1}',
    b'{"vocabulary": ["a"], "marks": true, "buckets": 99999999999}', b'{"vocabulary": ',
  ],
)  # fmt: skip
def test_a_damaged_vocabulary_is_told(model):
  with pytest.raises(UserError, match="here"):
    identity.parse(model, "here")


def by_hand(word, width):
  content = [byte + 1 for byte in word.encode()[: width - 2]]
  return ([words.BEGIN_WORD, *content, words.END_WORD] + [words.FILL] * width)[:width]


def test_spelling():
  found = words.spelt(["bus", "Ärger", "a" * 20, ""], 7)
  np.testing.assert_array_equal(found, [by_hand(word, 7) for word in ("bus", "Ärger", "aaaaa", "")])
  assert found.max() < words.NUM_CHARACTERS and found.dtype == np.int32
  with pytest.raises(UserError, match="word_length must be at least 3, not 2"):
    words.spelt(["bus"], 2)


@pytest.mark.parametrize("width", [3, 7, 12])
def test_spelling_from_disk_is_the_same(tmp_path, width):
  texts = [*TEXTS, "x"]
  side = _Side(tmp_path, "source")
  side.add(words.Spelling(True).encode(texts), 10**6)
  side.close()
  spelt = words.Spelt(np.load(tmp_path / "source_tokens.npy", mmap_mode="r"))
  all_words = [word for text in texts for word in [*words.split(text, True), None]]
  assert len(spelt) == len(all_words)
  end = words.special(words.END_TEXT, width)
  wanted = np.array([end if word is None else words.spelt([word], width)[0] for word in all_words])
  np.testing.assert_array_equal(spelt.characters(np.arange(len(spelt)), width), wanted)
  places = np.array([[3, 0], [len(spelt) - 1, 5]])
  np.testing.assert_array_equal(spelt.characters(places, width), wanted[places])
