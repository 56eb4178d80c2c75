"""Entities of tags, and their score by hand; `test_conlleval.py` holds both to conlleval's rules."""

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
