"""Precision, recall and F1 of entities, counted as CoNLL's conlleval does: an entity is right where its first word, its
last word and its type are."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Entity(NamedTuple):
  """Of the words start, ..., stop - 1 of a sentence."""

  type: str
  start: int
  stop: int


def entities(tags: Sequence[str]) -> list[Entity]:
  """The entities that tags say. One begins with B-, or with an I- that does not go on with one of its type; so tags
  that are no BIO have entities too."""
  found, open = [], None  # open: (type, start)
  for i, tag in enumerate((*tags, "O")):
    kind, _, name = tag.partition("-")
    if open is not None and (kind != "I" or name != open[0]):
      found.append(Entity(open[0], open[1], i))
      open = None
    if kind != "O" and open is None:
      open = name, i
  return found


class Score(NamedTuple):
  """In percent; 0 where nothing is to divide by. right: of found entities, in both. wanted: entities that there are."""

  precision: float
  recall: float
  f1: float
  right: int
  found: int
  wanted: int


def score(found: Iterable[Sequence[str]], wanted: Iterable[Sequence[str]]) -> dict[str, Score]:
  """The score of all entities, "", and of those of each type. found, wanted: the tags of the same sentences."""
  counts = {"right": Counter(), "found": Counter(), "wanted": Counter()}
  for ours, theirs in zip(found, wanted, strict=True):
    if len(ours) != len(theirs):
      raise ValueError(f"a sentence has {len(ours)} and {len(theirs)} tags")
    ours, theirs = set(entities(ours)), set(entities(theirs))
    for name, some in (("right", ours & theirs), ("found", ours), ("wanted", theirs)):
      counts[name].update(entity.type for entity in some)
      counts[name][""] += len(some)
  types = ["", *sorted((counts["found"] | counts["wanted"]).keys() - {""})]
  return {name: _score(*(counts[kind][name] for kind in ("right", "found", "wanted"))) for name in types}


def _score(right, found, wanted) -> Score:
  precision, recall = (100 * right / number if number else 0.0 for number in (found, wanted))
  f1 = 2 * precision * recall / (precision + recall) if right else 0.0
  return Score(precision, recall, f1, right, found, wanted)
