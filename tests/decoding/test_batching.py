"""Length batches: each sentence once, few shapes, little padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention_zoo.decoding.batching import length_batches, padded_length


def test_padded_lengths():
  lengths = [1, 16, 17, 24, 25, 33, 48, 49, 65, 97, 129, 257]
  assert [padded_length(length) for length in lengths] == [16, 16, 32, 32, 32, 64, 64, 64, 128, 128, 256, 512]


def test_by_hand():
  batches = length_batches([5, 40, 9, 30, 7, 31], batch_tokens=64)
  assert [(list(b.indices), b.padded_length, b.rows) for b in batches] == [
    ([1], 64, 1),
    ([5, 3], 32, 2),
    ([2, 4], 32, 2),  # no batch of 16 would be full
    ([0], 32, 2),
  ]


def test_the_last_batch_keeps_the_shape_it_shares():
  assert [(len(b.indices), b.rows) for b in length_batches([12] * 5, batch_tokens=64)] == [(4, 4), (1, 4)]


@given(
  st.lists(st.integers(1, 300), max_size=200),
  st.integers(1, 2000),
  st.sampled_from([1, 2, 3, 8]),
)
def test_promises(lengths, batch_tokens, row_multiple):
  batches = length_batches(lengths, batch_tokens=batch_tokens, row_multiple=row_multiple)
  order = [index for batch in batches for index in batch.indices]
  assert sorted(order) == list(range(len(lengths)))
  assert sorted(order, key=lambda index: (-lengths[index], index)) == order
  rows_of = {}
  for number, batch in enumerate(batches):
    assert 1 <= len(batch.indices) <= batch.rows
    assert len(batch.indices) == batch.rows or number == len(batches) - 1
    padded = padded_length(max(lengths[index] for index in batch.indices))
    assert batch.padded_length == padded or (padded < batch.padded_length == batches[number - 1].padded_length)
    assert batch.rows % row_multiple == 0
    assert batch.rows * batch.padded_length <= max(batch_tokens, row_multiple * batch.padded_length)
    assert rows_of.setdefault(batch.padded_length, batch.rows) == batch.rows


def test_nothing_is_padded_beyond_the_longest_that_is_possible():
  lengths = [40, 33, 20, 41]
  padded = [batch.padded_length for batch in length_batches(lengths, batch_tokens=41, longest=40)]
  assert padded == [41, 40, 40, 32]


def test_a_single_sentence_costs_a_single_row():
  assert [batch.rows for batch in length_batches([12], batch_tokens=4096)] == [1]
  assert [batch.rows for batch in length_batches([12] * 5, batch_tokens=4096, row_multiple=8)] == [8]
  assert [batch.rows for batch in length_batches([12] * 5, batch_tokens=4096)] == [16]
  assert length_batches([], batch_tokens=4096) == []


def test_results_go_back_in_order():
  words = np.array(["drei", "eins", "zwei", "vier"])
  output = [None] * 4
  for batch in length_batches([3, 50, 20, 1], batch_tokens=64):
    for index, word in zip(batch.indices, words[batch.indices], strict=True):
      output[index] = word
  assert output == list(words)


@pytest.mark.parametrize("wrong", [{"lengths": [3, 0]}, {"batch_tokens": 0}, {"row_multiple": 0}])
def test_wrong_arguments(wrong):
  with pytest.raises(ValueError, match="at least 1"):
    length_batches(**({"lengths": [3], "batch_tokens": 8, "row_multiple": 1} | wrong))


def test_a_test_set_meets_few_shapes_and_little_padding():
  """Lengths as in news, mean 32: each shape is a compilation."""
  lengths = np.clip(np.random.default_rng(0).lognormal(3.3, 0.55, 3003).astype(int) + 1, 2, 128)
  batches = length_batches(lengths, batch_tokens=4096)
  assert len({(batch.padded_length, batch.rows) for batch in batches}) <= 4
  assert sum(batch.padded_length * batch.rows for batch in batches) < 1.5 * lengths.sum()


def test_a_notebook_meets_few_shapes():
  shapes = {(b.padded_length, b.rows) for n in range(1, 17) for b in length_batches([5 + n] * n, batch_tokens=4096)}
  assert len(shapes) == 4
