"""Batches of examples: each once an epoch, of like length, with everything that is known of them."""

import numpy as np
import pytest

from attention_zoo.data import examples
from attention_zoo.data.examples import Encoded, ExampleBatches, build, encode, in_batches
from attention_zoo.data.tokenizer import BOS, EOS
from attention_zoo.errors import UserError


def test_sentences_and_pairs():
  (one, cut) = encode([[5, 6]], length=8)
  assert one.ids.tolist() == [BOS, 5, 6, EOS] and one.first == 4 and not cut
  (two, _) = encode([[5, 6], [7]], length=8)
  assert two.ids.tolist() == [BOS, 5, 6, EOS, 7, EOS] and two.first == 4
  (two, _) = encode([[5, 6], [7]], length=8, separators=2)
  assert two.ids.tolist() == [BOS, 5, 6, EOS, EOS, 7, EOS] and two.first == 4


@pytest.mark.parametrize("sizes", [(9,), (3, 30), (30, 3), (9, 9), (7, 8), (30, 0)])
@pytest.mark.parametrize("length", [8, 11])
def test_what_is_too_long_loses_its_end_the_longer_one_first(sizes, length):
  sentences = [list(range(10, 10 + size)) for size in sizes]
  found, cut = encode(sentences, length=length)
  room = length - 1 - len(sizes)
  kept = list(sizes)
  while sum(kept) > room:
    kept[int(np.argmax(kept))] -= 1
  ids = [BOS]
  for sentence, size in zip(sentences, kept, strict=True):
    ids += sentence[:size] + [EOS]
  assert sorted(len(part) for part in np.split(found.ids, [found.first])) == sorted(
    len(part) for part in np.split(np.array(ids), [kept[0] + 2])
  )
  assert len(found.ids) <= length and cut == (kept != list(sizes))


def some(number=45):
  rng = np.random.default_rng(0)
  sizes = rng.integers(3, 40, number)
  return [
    Encoded(np.arange(100, 100 + size).astype(np.int32), 2, {"label": i, "firsts": np.array([1, 2]), "x": i / 2})
    for i, size in enumerate(sizes)
  ]


def test_a_batch_holds_everything():
  found = some(3)
  batch = build(found, 4, 40)
  assert batch["inputs"].shape == (4, 40) and batch["label"].tolist() == [0, 1, 2, 0]
  assert batch["x"].dtype == np.float32 and batch["x"].tolist() == [0, 0.5, 1, 0]
  assert batch["firsts"][2, :3].tolist() == [1, 2, 0] and batch["firsts"].shape == (4, 40)
  size = len(found[1].ids)
  assert batch["segments"][1].sum() == size and batch["types"][1].sum() == size - 2
  assert batch["positions"][1, :size].tolist() == list(range(size)) and not batch["inputs"][1, size:].any()


def test_an_epoch_has_each_example_once_and_alike_ones_together():
  found = some()
  batches = ExampleBatches(found, rows=8, length=40, seed=3)
  shapes = [{name: tuple(shape) for name, shape in shapes.items()} for shapes in batches.shapes]
  for epoch in range(2):
    seen, padding = [], 0
    for step in range(batches.steps_per_epoch):
      batch = batches[epoch * batches.steps_per_epoch + step]
      assert {name: x.shape for name, x in batch.items()} in shapes
      seen += batch["label"].tolist()
      padding += (batch["segments"] == 0).sum()
    assert len(set(seen)) == len(seen) == 40
    assert padding < 40 * 12  # rows of 40 would have 40 * 18
  parts = [batches.local(3, (part,), 4) for part in range(4)]
  for name, x in batches[3].items():
    np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), x)
  assert any(batches[i]["label"].tolist() != batches[i + 5]["label"].tolist() for i in range(5))


def test_fewer_examples_than_rows_and_none():
  batches = ExampleBatches(some(3), rows=8, length=40, seed=3)
  assert sorted(batches[7]["label"].tolist()) == [0, 0, 0, 0, 0, 0, 1, 2]
  halves = [batches.local(0, (part,), 2) for part in (0, 1)]
  assert not halves[1]["segments"].any() and len(halves[1]["inputs"]) == 4
  with pytest.raises(UserError, match="no example"):
    ExampleBatches([], rows=8, length=40, seed=3)


def test_every_batch_of_an_epoch_is_full():
  """Also where so few are left at the end that they fill none: more than fifty batches are sorted in parts."""
  batches = ExampleBatches(some(50 * 2 + 1), rows=2, length=40, seed=3)
  seen = [batches[step]["inputs"][:, 0].tolist() for step in range(batches.steps_per_epoch)]
  assert seen == [[100, 100]] * 50
  labels = [label for step in range(50) for label in batches[step]["label"].tolist()]
  assert len(set(labels)) == 100


def test_in_batches_each_comes_once():
  found = some()
  seen = {}
  for indices, batch in in_batches(found, rows=8, length=40):
    assert batch["inputs"].shape[0] == 8
    seen |= dict(zip(indices, batch["label"].tolist(), strict=False))
  assert seen == {i: i for i in range(45)}
  assert examples.lengths_up_to(40) == [16, 32, 40] and examples.lengths_up_to(16) == [16]


def test_rows_without_room():
  assert examples.encode([[7, 8]], length=3)[0].ids.tolist() == [1, 7, 2]
  for sentences, length, least in (([[7]], 2, 3), ([[7], [8]], 4, 5)):
    with pytest.raises(UserError, match=f"row_length = {length} leaves no room for text: set it to {least} or more"):
      examples.encode(sentences, length=length)
