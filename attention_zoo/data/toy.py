"""Embedded toy tasks: pairs whose target follows from the source by a rule, for what a model can and cannot learn.

  copy      "c a b"                   -> "c a b"
  reverse   "c a b"                   -> "b a c"
  sort      "c a b"                   -> "a b c"
  addition  "twenty one plus four"    -> "twenty five"

A pair is a pure function of (options, split, number of the pair). The split of a source sentence depends on nothing but
its text, so that no sentence is in two splits; within a split it may come more than once.
"""

import functools
import hashlib
import random
from collections.abc import Iterator
from typing import NamedTuple

from attention_zoo.data.splits import resolve
from attention_zoo.errors import UserError

SPLITS = ("train", "dev", "test")

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_HELD_OUT = 10  # of 100 source sentences, for dev and for test each
_DRAWS = 1000  # after so many in vain there is no sentence for the split, or hardly one


class _Kind(NamedTuple):
  """max_length: the default. draw: (random numbers, length, vocabulary) -> (source, target)."""

  max_length: int
  draw: object


class Toy:
  """The source "toy"; its options are those of `toy` in `data/sources.py`. Raises ValueError for one that does not fit.
  """

  splits = SPLITS

  def __init__(self, languages, roles, *, kind, min_length, max_length, vocabulary, train, dev, test, seed):
    if kind not in KINDS:
      raise ValueError(f"toy(kind=..) must be one of {', '.join(KINDS)}, not {kind!r}")
    if kind == "addition" and vocabulary:
      raise ValueError("toy(kind='addition') has no option vocabulary: its words are those of numbers")
    max_length = max_length or max(KINDS[kind].max_length, min_length)
    if not 1 <= min_length <= max_length:
      raise ValueError(f"toy needs 1 <= min_length <= max_length, got {min_length} and {max_length}")
    if kind == "addition" and max_length > 12:
      raise ValueError(f"toy(kind='addition') has numbers of at most 12 digits, not max_length={max_length}")
    if vocabulary < 0:
      raise ValueError(f"toy(vocabulary=..) must not be negative, got {vocabulary}")
    for name, number in (("train", train), ("dev", dev), ("test", test)):
      if number < 1:
        raise ValueError(f"toy({name}=..) must be at least 1, got {number}")
    self.languages, self._roles = tuple(languages), roles
    self._kind, self._lengths, self._vocabulary = kind, (min_length, max_length), vocabulary or len(_LETTERS)
    self._sizes, self._seed = {"train": train, "dev": dev, "test": test}, seed

  def pairs(self, split: str) -> Iterator[tuple[str, str]]:
    name = resolve(split, self._roles)
    if name not in SPLITS:
      raise UserError(f'The toy source has no split "{name}"; it has {", ".join(SPLITS)}.')
    return (self._pair(name, number) for number in range(self._sizes[name]))

  def fingerprint(self, split: str) -> str:
    found = hashlib.sha256(repr(self.languages).encode())
    for pair in self.pairs(split):
      found.update(repr(pair).encode())
    return found.hexdigest()

  def _pair(self, split: str, number: int) -> tuple[str, str]:
    rng = random.Random(f"{self._seed} {split} {number}")
    for _ in range(_DRAWS):
      pair = KINDS[self._kind].draw(rng, rng.randint(*self._lengths), self._vocabulary)
      if _split_of(pair[0]) == split:
        return pair
    raise UserError(
      f"config.data.source: of {_DRAWS} sentences of toy(kind={self._kind!r}), none was of the split {split}: "
      "there are too few different ones; raise max_length or vocabulary"
    )


def _split_of(source: str) -> str:
  bucket = int.from_bytes(hashlib.blake2b(source.encode(), digest_size=8).digest(), "big") % 100
  return "test" if bucket < _HELD_OUT else "dev" if bucket < 2 * _HELD_OUT else "train"


def _words(rule):
  """The kind that applies a rule to a list of numbers, each written as a word: a letter, or w26 and so on."""

  def draw(rng, length, vocabulary):
    numbers = [rng.randrange(vocabulary) for _ in range(length)]
    return _say(numbers), _say(rule(numbers))

  return draw


def _say(numbers) -> str:
  return " ".join(_LETTERS[n] if n < len(_LETTERS) else f"w{n}" for n in numbers)


def _addition(rng, length, vocabulary):
  """length: digits of the longer number."""
  del vocabulary
  terms = [rng.randrange(10 ** (length - 1) if length > 1 else 0, 10**length), rng.randrange(10**length)]
  rng.shuffle(terms)
  return " plus ".join(map(number_words, terms)), number_words(sum(terms))


@functools.lru_cache(maxsize=1 << 16)
def number_words(number: int) -> str:
  """ "two hundred and one", "twenty one": without hyphens and commas."""
  from num2words import num2words

  return num2words(number, lang="en").replace("-", " ").replace(",", "")


KINDS = {
  "copy": _Kind(10, _words(list)),
  "reverse": _Kind(10, _words(lambda numbers: numbers[::-1])),
  "sort": _Kind(10, _words(sorted)),
  "addition": _Kind(3, _addition),
}
