"""Entities are counted as conlleval counts them, the script of CoNLL's shared tasks (Tjong Kim Sang, version of 2004).

Its rules, of two neighbouring words whose tags are a kind and a type, "O" before and behind each sentence:

  - a chunk starts at B; at I behind O; and at B or I behind another type;
  - a chunk ends before B and before O; and before another type;
  - what was found is right where both columns start a chunk of one type at the same word and end it at the same word.
"""

import numpy as np
import pytest

from attention_zoo.data.tagged import bio_of, check_bio
from attention_zoo.errors import UserError
from attention_zoo.evaluation.tags import entities, score

# A word, its tag, and the tag found for it.
FILE = """\
John B-PER B-PER
Smith I-PER I-PER
saw O O
Rome B-LOC B-LOC

in O O
Paris B-LOC I-LOC
today O O

Bank B-ORG B-ORG
of I-ORG I-LOC
Rome I-ORG I-LOC

Ann B-PER B-PER
Bob B-PER I-PER
Eve B-PER B-PER

the O O
UN B-ORG B-ORG

Council I-ORG I-ORG
met O O

New B-LOC O
York I-LOC B-LOC
City I-LOC I-LOC
Hall O I-LOC

nothing O O
here O O

May O B-PER
Day B-MISC O
noon O B-MISC

Kyiv B-GEO-POL B-GEO-POL
Oblast I-GEO-POL I-GEO-POL

to O O
Oslo B-LOC B-LOC"""

COUNTS = {  # type: (right, found, wanted), by hand
  "PER": (2, 4, 4),  # John Smith, Eve | also Ann Bob, May | also Ann, Bob: B- behind B- begins another one
  "LOC": (3, 5, 4),  # Rome, Paris (I- behind O begins one), Oslo | of Rome (I- of another type), York .. | New ..
  "ORG": (2, 3, 3),  # UN, Council: no entity goes on over the end of a sentence | Bank | Bank of Rome
  "MISC": (0, 1, 1),  # noon | Day
  "GEO-POL": (1, 1, 1),  # the kind ends at the first hyphen
}
COUNTS[""] = (8, 14, 13)


def columns(file):
  """(wanted, found): the tags of each sentence."""
  rows = [[line.split() for line in block.split("\n")] for block in file.split("\n\n")]
  return tuple([[row[column] for row in block] for block in rows] for column in (1, 2))


def starts(before, tag):
  """Whether a chunk starts at the second of two neighbouring tags."""
  (kind_before, type_before), (kind, type_) = parts(before), parts(tag)
  if kind == "O":
    return False
  return kind == "B" or kind_before == "O" or type_before != type_


def ends(tag, after):
  """Whether a chunk ends at the first of two neighbouring tags."""
  (kind, type_), (kind_after, type_after) = parts(tag), parts(after)
  if kind == "O":
    return False
  return kind_after in ("B", "O") or type_ != type_after


def parts(tag):
  kind, _, type_ = tag.partition("-")
  return kind, type_


def machine(found, wanted):
  """{type: [right, found, wanted]}, of one pass through both columns. Knows nothing of entities as a whole."""
  counts = {"": [0, 0, 0]}

  def count(type_, place):
    for name in (type_, ""):
      counts.setdefault(name, [0, 0, 0])[place] += 1

  for ours, theirs in zip(found, wanted, strict=True):
    alike = False  # whether the chunks that both columns are in began alike
    for i in range(len(ours) + 1):
      last, this = ([(["O", *tags, "O"])[i + j] for tags in (ours, theirs)] for j in (0, 1))
      stopped = [ends(*pair) for pair in zip(last, this, strict=True)]
      started = [starts(*pair) for pair in zip(last, this, strict=True)]
      if alike and all(stopped):
        count(parts(last[0])[1], 0)
      alike = alike and not any(stopped)
      for place, tag in enumerate(this, 1):
        if started[place - 1]:
          count(parts(tag)[1], place)
      if all(started) and parts(this[0])[1] == parts(this[1])[1]:
        alike = True
  return counts


def counts_of(found, wanted):
  return {name: list(value[3:]) for name, value in score(found, wanted).items()}


def test_a_file_by_hand():
  wanted, found = columns(FILE)
  scores = score(found, wanted)
  assert {name: value[3:] for name, value in scores.items()} == COUNTS
  assert machine(found, wanted) == {name: list(value) for name, value in COUNTS.items()}
  shown = {name: [f"{x:.2f}" for x in value[:3]] for name, value in scores.items()}
  assert shown == {  # as conlleval prints them
    "": ["57.14", "61.54", "59.26"], "PER": ["50.00", "50.00", "50.00"], "LOC": ["60.00", "75.00", "66.67"],
    "ORG": ["66.67", "66.67", "66.67"], "MISC": ["0.00", "0.00", "0.00"], "GEO-POL": ["100.00", "100.00", "100.00"],
  }  # fmt: skip


def test_one_type_alone_and_nothing_at_all():
  wanted, found = columns("a B-X B-X\nb I-X I-X\n\nc B-X B-X\nd B-X I-X")
  assert score(found, wanted) == dict.fromkeys(("", "X"), (50, 100 / 3, 40, 1, 2, 3))
  wanted, found = columns("a O O\nb O O\n\nc O O")
  assert score(found, wanted) == {"": (0, 0, 0, 0, 0, 0)}
  wanted, found = columns("a O B-X\nb O O")
  assert score(found, wanted) == dict.fromkeys(("", "X"), (0, 0, 0, 0, 1, 0))


def legal(tags):
  """The same entities in BIO."""
  before, found = "O", []
  for tag in tags:
    found.append(f"B-{parts(tag)[1]}" if starts(before, tag) else tag)
    before = tag
  return found


def test_a_machine_that_goes_by_the_rules_counts_the_same():
  """2,000 sentences of any tags, half of them made BIO, with a share of the tags found to be others."""
  rng = np.random.default_rng(0)
  names = np.array(["O", "B-X", "I-X", "B-Y", "I-Y", "I-Z-1"])
  wanted, found = [], []
  for i in range(2000):
    tags = rng.choice(names, rng.integers(0, 13))
    others = np.where(rng.random(len(tags)) < 0.3, rng.choice(names, len(tags)), tags)
    pair = [tags.tolist(), others.tolist()]
    theirs, ours = map(legal, pair) if i % 2 else pair
    for tags in (ours, theirs) if i % 2 else ():
      check_bio(tags, "here")
    wanted.append(theirs)
    found.append(ours)
    assert counts_of([ours], [theirs]) == machine([ours], [theirs]), (ours, theirs)
  right, ours, theirs = counts_of(found, wanted)[""]
  assert counts_of(found, wanted) == machine(found, wanted) and 1000 < right < min(ours, theirs)


def test_other_schemes():
  """IOB1 begins an entity with I- unless one of its type ends just before: it has the entities of what it is read as.
  IOBES is not read."""
  rng = np.random.default_rng(1)
  for _ in range(200):
    bio = legal(rng.choice(["O", "B-X", "I-X", "B-Y", "I-Y"], 9).tolist())
    iob1 = [
      f"I{tag[1:]}" if tag[0] == "B" and parts(before)[1] != parts(tag)[1] else tag
      for before, tag in zip(["O", *bio], bio, strict=False)
    ]
    assert bio_of(iob1) == bio and entities(iob1) == entities(bio)
  for tag in ("S-X", "E-X"):
    with pytest.raises(UserError, match=f"the tag '{tag}' of word 1 is neither O nor B-TYPE nor I-TYPE"):
      check_bio([tag], "here")
