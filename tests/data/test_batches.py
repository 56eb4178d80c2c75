import itertools
import os
import pathlib
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attention_zoo.data.batches import BucketedBatches, PackedBatches, eval_batches, prefetch
from attention_zoo.data.corpus import build_corpus
from attention_zoo.data.packing import row_shape
from attention_zoo.data.sources import TextFiles
from attention_zoo.data.tokenizer import BOS, EOS, PAD, Tokenizer, train
from attention_zoo.errors import UserError
from tests.data.texts import corpus

ROW = 24
lengths = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=40)
kinds = st.sampled_from([PackedBatches, BucketedBatches])
seeds = st.integers(0, 2**40)


def make(kind, pairs, seed=0, batch_tokens=4 * ROW):
  text = corpus(*zip(*pairs, strict=True))
  try:
    return text, kind(text, batch_tokens=batch_tokens, row_length=ROW, seed=seed, row_multiple=4)
  except UserError:  # much longer on one side than on the other: the rows of the other are too short
    return text, kind(text, batch_tokens=batch_tokens * 12, row_length=ROW * 12, seed=seed, row_multiple=4)


def sentences_of(text):
  return [
    (text.source_tokens[a:b].tolist(), text.target_tokens[c:d].tolist())
    for a, b, c, d in zip(
      *(text.source_offsets[:-1], text.source_offsets[1:], text.target_offsets[:-1], text.target_offsets[1:]),
      strict=True,
    )
  ]


def unpack(batch):
  """The pairs in a batch row by row, having checked every array of it."""
  assert all(array.dtype == np.int32 for array in batch.values())
  rows = []
  for row in zip(*batch.values(), strict=True):
    row = dict(zip(batch, row, strict=True))
    pairs = []
    for segment in range(1, row["source_segments"].max(initial=0) + 1):
      pair = []
      for tokens, segments in (("source", "source_segments"), ("targets", "target_segments")):
        (where,) = np.nonzero(row[segments] == segment)
        assert (np.diff(where) == 1).all(), "a sentence in pieces"
        assert (row[segments.replace("segments", "positions")][where] == np.arange(len(where))).all()
        pair.append(row[tokens][where].tolist())
      (where,) = np.nonzero(row["target_segments"] == segment)
      assert row["inputs"][where].tolist() == [BOS, *pair[1][:-1]]
      assert pair[0][-1] == EOS and pair[1][-1] == EOS
      pairs.append(tuple(pair))
    assert row["target_segments"].max(initial=0) == len(pairs)
    for side, arrays in dict(
      source=("source", "source_positions"), target=("inputs", "targets", "target_positions")
    ).items():
      empty = row[f"{side}_segments"] == 0
      assert all((row[name][empty] == PAD).all() for name in arrays)
    rows.append(pairs)
  return rows


def flatten(rows):
  return [pair for row in rows for pair in row]


@given(lengths, seeds)
@settings(deadline=None, max_examples=60)
def test_packed_epochs_hold_every_sentence_once_and_roll_over(pairs, seed):
  text, batches = make(PackedBatches, pairs, seed)
  n, (shape,) = batches.rows_per_epoch, batches.shapes
  rows = []
  for step in itertools.count():
    batch = batches[step]
    assert {name: array.shape for name, array in batch.items()} == shape
    rows += unpack(batch)
    if len(rows) >= 3 * n:
      break
  for epoch in range(3):
    assert sorted(flatten(rows[epoch * n : (epoch + 1) * n])) == sorted(sentences_of(text))
  source, target = batches.fill()
  lengths = [sum(len(pair[side]) for row in rows[:n] for pair in row) for side in (0, 1)]
  room = n * shape["source"][1], n * shape["targets"][1]
  assert (source, target) == pytest.approx((lengths[0] / room[0], lengths[1] / room[1]))


@given(lengths, seeds)
@settings(deadline=None, max_examples=60)
def test_bucketed_epochs_hold_every_sentence_once_and_roll_over(pairs, seed):
  text, batches = make(BucketedBatches, pairs, seed)
  n, tokens, room = batches.batches_per_epoch, 0, 0
  for epoch in range(3):
    rows = []
    for step in range(epoch * n, (epoch + 1) * n):
      batch = batches[step]
      assert {name: array.shape for name, array in batch.items()} in batches.shapes
      rows += unpack(batch)
      tokens += (batch["source_segments"] > 0).sum()
      room += batch["source"].size
    assert all(len(row) <= 1 for row in rows)
    assert sorted(flatten(rows)) == sorted(sentences_of(text))
  assert batches.fill()[0] == pytest.approx(tokens / room)


@given(
  kinds,
  lengths,
  st.integers(0, 50),
  st.sampled_from([((0, 1, 2, 3),), ((0, 1), (2, 3)), ((0, 3), (1, 2)), ((1,), (0,))]),
)
@settings(deadline=None, max_examples=60)
def test_what_the_processes_feed_makes_up_the_global_batch(kind, pairs, step, processes):
  """processes: the parts that each feeds, neighbours or not."""
  _, batches = make(kind, pairs)
  count = sum(map(len, processes))
  fed = [batches.local(step, parts, count) for parts in processes]
  for name, array in batches[step].items():
    whole = np.concatenate([np.split(part[name], len(parts)) for part, parts in zip(fed, processes, strict=True)])
    np.testing.assert_array_equal(np.concatenate(whole[np.argsort(np.concatenate(processes))]), array)


@given(kinds, lengths, seeds, st.integers(0, 10**9))
@settings(deadline=None, max_examples=60)
def test_a_batch_is_a_function_of_seed_and_step_alone(kind, pairs, seed, step):
  _, asked_before = make(kind, pairs, seed)
  for other in (0, step + 1, step):
    asked_before[other]
  _, fresh = make(kind, pairs, seed)
  for name, array in fresh[step].items():
    np.testing.assert_array_equal(asked_before[step][name], array)


@pytest.mark.parametrize("kind", [PackedBatches, BucketedBatches])
def test_epochs_and_seeds_differ_in_their_order(kind):
  def epoch(seed, number):
    _, batches = make(kind, [(1 + i % 7, 1 + i % 5) for i in range(200)], seed)
    if kind is BucketedBatches:
      n = batches.batches_per_epoch
      return flatten(row for i in range(n) for row in unpack(batches[number * n + i]))
    n = batches.rows_per_epoch
    rows = [row for i in range(2 * n // 4 + 1) for row in unpack(batches[i])]
    return flatten(rows[number * n : (number + 1) * n])

  assert epoch(1, 0) == epoch(1, 0)
  assert epoch(1, 0) != epoch(1, 1) and sorted(epoch(1, 0)) == sorted(epoch(1, 1))
  assert epoch(1, 0) != epoch(2, 0)


@given(lengths, st.integers(1, 5))
@settings(deadline=None, max_examples=60)
def test_evaluation_sees_every_sentence_once_in_one_shape(pairs, rows):
  text = corpus(*zip(*pairs, strict=True))
  batches = list(eval_batches(text, rows=rows, row_length=ROW))
  assert len({tuple(array.shape for array in batch.values()) for batch in batches}) == 1
  assert sorted(flatten(row for batch in batches for row in unpack(batch))) == sorted(sentences_of(text))


def test_rows_follow_from_the_budget():
  text = corpus([5] * 100, [5] * 100)

  def rows(**change):
    settings = dict(batch_tokens=1000, row_length=10, seed=0) | change
    return PackedBatches(text, **settings).shapes[0]["source"][0]

  assert rows() == 96 and rows(row_multiple=1) == 100 and rows(batch_tokens=75) == 7
  with pytest.raises(UserError, match="data.batch_tokens=9 is less than one row of 10"):
    rows(batch_tokens=9)


def test_a_sentence_longer_than_a_row_is_told_with_what_to_set():
  text = corpus([3, 50, 3], [3, 3, 30])
  with pytest.raises(
    UserError, match=r"source sentence has 50 tokens.*row_length=40.*at most 40.*at least 50"
  ):
    PackedBatches(text, batch_tokens=400, row_length=40, seed=0)
  with pytest.raises(UserError, match="source sentence has 50 tokens"):
    BucketedBatches(text, batch_tokens=400, row_length=40, seed=0)
  with pytest.raises(UserError, match="source sentence has 50 tokens"):
    next(eval_batches(text, rows=2, row_length=40))
  PackedBatches(text, batch_tokens=400, row_length=50, seed=0)


def test_parts_that_do_not_divide_the_rows_are_told():
  _, batches = make(PackedBatches, [(3, 3)] * 50)
  with pytest.raises(UserError, match="4 rows cannot be divided into 3 parts"):
    batches.local(0, (0,), 3)


def test_the_shorter_side_is_in_proportion():
  assert row_shape(np.array([100]), np.array([100]), 128) == (128, 128)
  assert row_shape(np.array([94]), np.array([100]), 256) == (240, 256)
  assert row_shape(np.array([100]), np.array([94]), 256) == (256, 240)
  # 120 would leave 4 % of the target side empty, 124 leaves less than 1 %.
  assert row_shape(np.full(8, 122), np.full(8, 125), 128) == (124, 128)


def test_the_shorter_side_has_room_for_its_longest_sentence():
  source, target = np.array([61, *[10] * 99]), np.full(100, 13)
  assert row_shape(source, target, 64) == row_shape(target, source, 64)[::-1] == (64, 64)
  assert row_shape(np.array([55, *[10] * 99]), target, 64) == (56, 64) and row_shape(source[1:], target, 64) == (49, 64)
  text = corpus(source, target)
  for batches in (
    PackedBatches(text, batch_tokens=640, row_length=64, seed=0),
    eval_batches(text, rows=2, row_length=64),
  ):
    assert next(iter(batches))["source"].shape[1] == 64


def test_rows_are_nearly_full_on_both_sides():
  """Lengths like those of captions and of news: log-normal, the sides correlated."""
  rng = np.random.default_rng(0)
  for mean, spread in ((13, 0.25), (25, 0.55)):
    common = np.log(mean) + spread * rng.standard_normal(3000)
    sides = [
      np.clip(np.exp(common + 0.15 * rng.standard_normal(3000)) * ratio, 2, 100).astype(int)
      for ratio in (1, 1.07)
    ]
    for row_length in (128, 256):
      batches = PackedBatches(corpus(*sides), batch_tokens=4096, row_length=row_length, seed=0)
      assert min(batches.fill()) >= 0.97, (mean, row_length, batches.fill())


# A directory with multi30k/tok/{train,val}.{en,de} and wmt_news/{newstest2013,newstest2014}.{en,de}.
DATA = pathlib.Path(os.environ.get("ATTENTION_ZOO_TEXT", "nowhere"))


@pytest.mark.parametrize(
  "directory, train_split, splits",
  [
    ("multi30k/tok", "train", ("train", "val")),
    ("wmt_news", "newstest2013", ("newstest2013", "newstest2014")),
  ],
)
def test_rows_of_real_text_are_nearly_full(directory, train_split, splits, tmp_path):
  if not (DATA / directory).is_dir():
    pytest.skip(f"ATTENTION_ZOO_TEXT names no directory with {directory}")
  source = TextFiles(str(DATA / directory), ("en", "de"), {})
  train((s for pair in source.pairs(train_split) for s in pair), tmp_path / "m", vocab_size=8000)
  tokenizer = Tokenizer(tmp_path / "m")
  for split in splits:
    text = build_corpus(source, split, tokenizer, max_length=100, cache_dir=tmp_path)
    for row_length in (128, 256):
      batches = PackedBatches(text, batch_tokens=25_000, row_length=row_length, seed=0)
      assert min(batches.fill()) >= 0.97, (split, row_length, batches.fill())


def test_prefetching_starts_anywhere_and_closes():
  _, batches = make(PackedBatches, [(3, 4)] * 50)
  before = threading.active_count()
  ahead = prefetch(batches, 1000, (1,), 2)
  for step in range(1000, 1040):
    batch = next(ahead)
    for name, array in batches.local(step, (1,), 2).items():
      np.testing.assert_array_equal(batch[name], array)
  ahead.close()
  deadline = time.monotonic() + 10
  while threading.active_count() > before and time.monotonic() < deadline:
    time.sleep(0.01)
  assert threading.active_count() <= before


def test_nothing_before_the_first_step_is_computed():
  class Recorder:
    seen = []

    def local(self, step, parts, count):
      self.seen.append(step)
      return {"step": np.array(step)}

  ahead = prefetch(Recorder(), 10**6)
  assert [int(next(ahead)["step"]) for _ in range(3)] == [10**6, 10**6 + 1, 10**6 + 2]
  ahead.close()
  assert min(Recorder.seen) == 10**6


def test_what_goes_wrong_while_reading_ahead_is_raised():
  class Broken:
    def local(self, step, parts, count):
      if step == 3:
        raise UserError("the disk is gone")
      return {"step": np.array(step)}

  ahead = prefetch(Broken())
  assert [int(next(ahead)["step"]) for _ in range(3)] == [0, 1, 2]
  with pytest.raises(UserError, match="the disk is gone"):
    next(ahead)
  ahead.close()
