"""Where tagged text comes from: sentences with a tag for each word, in the manner of `data/labelled.py`."""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from attention_zoo.data import textfiles
from attention_zoo.data.documents import Files, make_documents
from attention_zoo.data.labelled import OUTSIDE, TYPE_OF, Phrases
from attention_zoo.errors import UserError


class Tagged(NamedTuple):
  """words with a tag each: "O", or "B-" and "I-" with a type."""

  words: tuple[str, ...]
  tags: tuple[str, ...]
  where: str


def tags_of(types: Sequence[str]) -> tuple[str, ...]:
  """All tags of these types, in the order of a tagger's outputs."""
  return (OUTSIDE, *(f"{kind}-{name}" for name in types for kind in "BI"))


def make_tagged(data, directory: str):
  """The source of `Tagged` sentences that the config group `data` names. Raises UserError."""
  return make_documents(data, directory, TAGGED)


def check_bio(tags: Sequence[str], where: str) -> None:
  """Raises UserError unless each tag is "O", "B-TYPE", or an "I-TYPE" that goes on with an entity of that type."""
  before = OUTSIDE
  for i, tag in enumerate(tags):
    kind, dash, name = tag.partition("-")
    if tag != OUTSIDE and not (kind in ("B", "I") and dash and name):
      raise UserError(f"{where}: the tag {tag!r:.60} of word {i + 1} is neither O nor B-TYPE nor I-TYPE")
    if kind == "I" and before[2:] != name:
      raise UserError(
        f"{where}: the tag {tag} of word {i + 1} follows {before}, but an entity begins with B-{name}. In files that "
        "begin entities with I- set scheme='iob1'"
      )
    before = tag


def conll(roles, directory, word: int = 0, tag: int = -1, scheme: str = "bio"):
  """SPLIT.conll or SPLIT.txt files, plain or .gz, or folders of them: a word a line with its tag, an empty line between
  sentences. Lines with -DOCSTART- are none.

  word, tag: numbers of their columns, from the end if negative; spaces or tabs stand between columns. scheme: "bio", or
  "iob1", where an entity begins with I- unless one of its type ends just before.
  """
  if scheme not in ("bio", "iob1"):
    raise ValueError(f"scheme must be 'bio' or 'iob1', not {scheme!r}")
  return _Conll(roles, directory, word, tag, scheme)


class _Conll(Files):
  def __init__(self, roles, directory, word, tag, scheme):
    super().__init__(roles, directory, (".conll", ".txt"))
    self._word, self._tag, self._scheme = word, tag, scheme

  def _options(self):
    return (self._word, self._tag, self._scheme)

  def examples(self, split) -> Iterator[Tagged]:
    for path in self._files(split):
      words, tags = [], []
      for number, line in enumerate(itertools.chain(textfiles.lines(path), [""]), 1):
        parts = re.split(r"[ \t]+", stripped) if (stripped := line.strip(" \t\r\n")) else []  # a word may hold U+00A0
        if parts and parts[0] != "-DOCSTART-":
          try:
            word, tag = parts[self._word], parts[self._tag]
          except IndexError as error:
            raise UserError(f"{path}, line {number} has {len(parts)} columns, too few for word and tag") from error
          if len(parts) < 2:
            raise UserError(f"{path}, line {number} has a word, but no tag")
          words.append(word)
          tags.append(tag)
        elif words:
          where = f"{path}, sentence before line {number}"
          found = bio_of(tags) if self._scheme == "iob1" else tags
          check_bio(found, where)
          yield Tagged(tuple(words), tuple(found), where)
          words, tags = [], []


def bio_of(tags: Sequence[str]) -> list[str]:
  """Tags of the scheme IOB1 as BIO."""
  found, before = [], OUTSIDE
  for tag in tags:
    begins = tag.startswith("I-") and before[2:] != tag[2:]
    found.append("B" + tag[1:] if begins else tag)
    before = tag
  return found


def _tagged_phrasebook(roles, directory, language: str = "en", most: int = 0):
  """The sentences of the embedded phrasebook, their values tagged by `TYPES`. most: of training sentences; 0: all."""
  return _PhraseTags(roles, language, most, "tags")


class _PhraseTags(Phrases):
  def examples(self, split) -> Iterator[Tagged]:
    for i, (sentence, slots, _) in enumerate(self._found(split)):
      words, tags, before = [], [], None
      for start, stop in _words(sentence):
        inside = next((slot for slot in slots if slot.source[0] < stop and start < slot.source[1]), None)
        begins = inside is not before
        words.append(sentence[start:stop])
        tags.append(("B-" if begins else "I-") + TYPE_OF[inside.kind] if inside else OUTSIDE)
        before = inside
      yield Tagged(tuple(words), tuple(tags), f"sentence {i + 1} of the phrasebook")


def _words(sentence: str) -> list[tuple[int, int]]:
  """From where to where each word stands; a mark at the end of one is a word of its own."""
  found, at = [], 0
  for word in sentence.split(" "):
    bare = word.rstrip(".,:;?!")
    if bare:
      found.append((at, at + len(bare)))
    found += [(i, i + 1) for i in range(at + len(bare), at + len(word))]
    at += len(word) + 1
  return found


TAGGED = {"conll": conll, "phrasebook": _tagged_phrasebook}
