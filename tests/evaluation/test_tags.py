"""Entities as conlleval counts them."""

import numpy as np
import pytest

from attention_zoo.evaluation.tags import Entity, entities, score


def test_entities_of_bio_and_of_what_is_none():
  assert entities("O B-A I-A O B-A B-A I-B".split()) == [
    Entity("A", 1, 3), Entity("A", 4, 5), Entity("A", 5, 6), Entity("B", 6, 7)
  ]  # fmt: skip
  assert entities(["I-A", "I-A", "O", "I-A", "I-B"]) == [
    Entity("A", 0, 2), Entity("A", 3, 4), Entity("B", 4, 5)
  ]  # fmt: skip
  assert entities([]) == entities(["O"]) == []


def test_a_score_by_hand():
  wanted = ["B-PER I-PER O B-LOC".split(), ["O", "B-ORG"]]
  found = ["B-PER I-PER O B-ORG".split(), ["B-LOC", "B-ORG"]]
  whole = score(found, wanted)
  assert whole[""][3:] == (2, 4, 3) and whole["PER"] == (100, 100, 100, 1, 1, 1)
  np.testing.assert_allclose(whole[""][:3], (50, 200 / 3, 400 / 7))
  assert whole["LOC"][:3] == (0, 0, 0) and whole["ORG"].precision == 50 and whole["ORG"].recall == 100
  assert score([["O"]], [["O"]])[""] == (0, 0, 0, 0, 0, 0)
  with pytest.raises(ValueError, match="2 and 1 tags"):
    score([["O", "O"]], [["O"]])


def test_a_machine_with_two_states_counts_the_same():
  """conlleval's own way: it goes through both columns once and compares where chunks begin and end."""
  rng = np.random.default_rng(0)
  tags = ["O", "B-X", "I-X", "B-Y", "I-Y"]
  wanted, found = ([rng.choice(tags, 12).tolist() for _ in range(200)] for _ in range(2))

  def begins(before, tag):
    return tag != "O" and (tag[0] == "B" or before == "O" or before[2:] != tag[2:])

  def ends(tag, after):
    return tag != "O" and (after == "O" or after[0] == "B" or after[2:] != tag[2:])

  right = in_found = in_wanted = 0
  for ours, theirs in zip(found, wanted, strict=True):
    open = False
    for i in range(12):
      before = [x[i - 1] if i else "O" for x in (ours, theirs)]
      after = [x[i + 1] if i < 11 else "O" for x in (ours, theirs)]
      starts = [begins(b, x[i]) for b, x in zip(before, (ours, theirs), strict=True)]
      stops = [ends(x[i], a) for x, a in zip((ours, theirs), after, strict=True)]
      in_found, in_wanted = in_found + starts[0], in_wanted + starts[1]
      open = all(starts) and ours[i][2:] == theirs[i][2:] or (open and not any(starts))
      right += open and all(stops)
      open = open and not any(stops)
  assert score(found, wanted)[""][3:] == (right, in_found, in_wanted)
