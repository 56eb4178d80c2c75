import subprocess
import sys

import ml_collections
import pytest

from attention_zoo.data.documents import make_documents
from attention_zoo.data.sources import make_source
from attention_zoo.data.toy import KINDS, number_words
from attention_zoo.errors import UserError


def source(text, **roles):
  data = dict(source=text, languages=("plain", "done"), train_split="train", dev_split="dev", test_split="test")
  return make_source(ml_collections.ConfigDict(data | roles), "")


RULES = {"copy": list, "reverse": lambda words: words[::-1], "sort": sorted}


@pytest.mark.parametrize("kind", RULES)
def test_the_target_follows_from_the_source(kind):
  pairs = list(source(f"toy(kind={kind!r}, min_length=2, max_length=5, vocabulary=9, train=300)").pairs("train"))
  assert len(pairs) == 300
  for plain, done in pairs:
    assert done.split() == RULES[kind](plain.split())
  assert {len(plain.split()) for plain, _ in pairs} == {2, 3, 4, 5}
  assert {word for plain, _ in pairs for word in plain.split()} == set("abcdefghi")


def test_sorting_is_by_number_where_there_are_more_words_than_letters():
  words = {f"w{n}" for n in range(26, 120)} | set("abcdefghijklmnopqrstuvwxyz")
  for plain, done in source("toy(kind='sort', vocabulary=120, dev=200)").pairs("dev"):
    numbers = [int(word[1:]) if word[1:] else ord(word) - ord("a") for word in done.split()]
    assert set(plain.split()) <= words and numbers == sorted(numbers)


def test_numbers_are_added_in_words():
  value = {number_words(n): n for n in range(2000)}
  assert value["twenty one"] == 21 and value["one thousand one hundred and two"] == 1102
  pairs = list(source("toy(kind='addition', max_length=3, train=300)").pairs("train"))
  for plain, done in pairs:
    one, other = plain.split(" plus ")
    assert value[one] + value[other] == value[done]
  assert {len(str(max(value[n] for n in plain.split(" plus ")))) for plain, _ in pairs} == {1, 2, 3}


@pytest.mark.parametrize("kind", KINDS)
def test_no_sentence_is_in_two_splits(kind):
  toy = source(f"toy(kind={kind!r}, max_length=2, train=3000)")
  train, dev, test = ({plain for plain, _ in toy.pairs(split)} for split in ("train", "dev", "test"))
  assert train and dev and test and not (train & dev or train & test or dev & test)


def test_a_pair_is_a_function_of_seed_split_and_number():
  """In another process and another order too, and whatever the number of pairs."""
  toy = source("toy(train=20)")
  first = list(toy.pairs("train"))
  assert list(toy.pairs("train")) == first == list(source("toy(train=30)").pairs("train"))[:20]
  assert list(source("toy(train=20, seed=1)").pairs("train")) != first
  code = (
    "from attention_zoo.data.sources import toy; roles = dict(train='train', dev='dev', test='test'); "
    "print(toy(roles, '', ('plain', 'done'), train=20).fingerprint('train'))"
  )
  environment = {"PYTHONHASHSEED": "7"}
  done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
  assert done.stdout.strip() == toy.fingerprint("train")


def test_a_fingerprint_is_of_the_text():
  toy = source("toy(train=20, dev=20)")
  assert toy.fingerprint("train") != toy.fingerprint("dev")
  assert source("toy(train=21, dev=20)").fingerprint("train") != toy.fingerprint("train")
  assert source("toy(train=21, dev=20)").fingerprint("dev") == toy.fingerprint("dev")
  assert len(toy.fingerprint("test")) == 64


@pytest.mark.parametrize(
  ("options", "complaint"),
  [
    ("kind='shuffle'", "copy, reverse, sort, addition, not 'shuffle'"),
    ("min_length=5, max_length=4", "min_length <= max_length, got 5 and 4"),
    ("min_length=0", "1 <= min_length"),
    ("vocabulary=-1", "vocabulary"),
    ("dev=0", r"toy\(dev=..\) must be at least 1, got 0"),
    ("kind='addition', vocabulary=3", "has no option vocabulary"),
    ("kind='addition', max_length=13", "at most 12 digits"),
    ("length=3", "toy has no option 'length'"),
    ("train='many'", r"toy\(train=..\) must be int"),
  ],
)
def test_bad_options_are_told(options, complaint):
  with pytest.raises(UserError, match=f"config.data.source: .*{complaint}"):
    source(f"toy({options})")


def test_too_few_sentences_for_three_splits_are_told():
  toy = source("toy(vocabulary=1, max_length=1)")
  with pytest.raises(UserError, match="none was of the split .*raise max_length or vocabulary"):
    [list(toy.pairs(split)) for split in ("train", "dev", "test")]


def test_splits_and_roles():
  toy = source("toy(train=5, dev=4)", train_split="dev", test_split="")
  assert len(list(toy.pairs("train"))) == 4 and toy.languages == ("plain", "done")
  with pytest.raises(UserError, match='no split "validation"; it has train, dev, test'):
    toy.pairs("validation")
  with pytest.raises(UserError, match="data.test_split"):
    toy.pairs("test")


def test_documents_hold_both_sides():
  data = dict(source="toy(kind='reverse', train=50)", train_split="train", dev_split="dev", test_split="test")
  documents = make_documents(ml_collections.ConfigDict(data), "")
  pairs = source(data["source"]).pairs("train")
  assert list(documents.documents("train")) == [f"{plain} = {done}" for plain, done in pairs]
  assert documents.fingerprint("train") != documents.fingerprint("dev")
