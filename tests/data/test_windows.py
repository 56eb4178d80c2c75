"""Batches for language models: every token once an epoch, predicted from what came before it,
the same after a restart."""

import numpy as np
import pytest

from attention_zoo.data import windows
from attention_zoo.data.tokenizer import BOS, EOS
from attention_zoo.errors import UserError

LENGTHS = [5, 1, 12, 30, 2, 7, 9, 21]


def stream_of(lengths=LENGTHS):
  """Documents whose tokens are all different, each ending in EOS."""
  tokens = np.arange(10, 10 + sum(lengths), dtype=np.int32)
  offsets = np.concatenate([[0], np.cumsum(lengths)])
  tokens[offsets[1:] - 1] = EOS
  return windows.Stream(tokens, offsets)


def make(kind, stream=None, length=8, rows=4):
  stream = stream or stream_of()
  return windows.make_batches(kind, stream, batch_tokens=rows * length, row_length=length, seed=3, row_multiple=1)


@pytest.mark.parametrize("kind", windows.KINDS)
def test_inputs_are_what_stands_before(kind):
  stream, batches = stream_of(), make(kind)
  before = dict(zip(stream.tokens.tolist(), stream.inputs(0, len(stream)).tolist(), strict=True))
  assert before[10] == BOS and before[16] == BOS and before[12] == 11
  for step in range(6):
    batch = batches[step]
    real = batch["segments"] > 0
    assert all(not batch[name][~real].any() for name in ("inputs", "targets", "positions"))
    for target, given in zip(batch["targets"][real], batch["inputs"][real], strict=True):
      assert target == EOS or before[target] == given
    begins = batch["positions"] == 0
    same = batch["segments"][:, 1:] == batch["segments"][:, :-1]
    steps = np.diff(batch["positions"], axis=1)
    assert (steps[same & real[:, 1:]] == 1).all() and begins[:, 0].all()


def tokens_of(batches, steps):
  found = [batches[step] for step in steps]
  return np.concatenate([batch["targets"][batch["segments"] > 0] for batch in found])


def test_an_epoch_of_packed_documents_has_every_token_once():
  batches = make("packed", rows=1)
  found = tokens_of(batches, range(batches.rows_per_epoch))
  np.testing.assert_array_equal(np.sort(found), np.sort(stream_of().tokens))


def test_an_epoch_of_windows_has_each_window_once_and_other_epochs_cut_elsewhere():
  batches = make("windows", rows=1)
  for epoch in range(3):
    found = tokens_of(batches, range(epoch * batches.rows_per_epoch, (epoch + 1) * batches.rows_per_epoch))
    inner = found[found != EOS]
    assert len(found) == batches.rows_per_epoch * 8 and len(set(inner)) == len(inner)
  firsts = {batches._epoch(epoch).min() for epoch in range(20)}
  assert len(firsts) > 3


def test_contiguous_rows_go_on_where_the_batch_before_ended():
  batches, stream = make("contiguous"), stream_of()
  assert batches.steps_per_epoch == 2
  first, second, third = (batches[step] for step in range(3))
  part = len(stream) // 4
  for row in range(4):
    expected = stream.tokens[row * part : row * part + 16]
    np.testing.assert_array_equal(np.concatenate([first["targets"][row], second["targets"][row]]), expected)
  assert first["fresh"].all() and not second["fresh"].any() and third["fresh"].all()
  np.testing.assert_array_equal(second["inputs"][1, 0], first["targets"][1, -1])


@pytest.mark.parametrize("kind", windows.KINDS)
def test_parts_are_the_rows_of_the_whole(kind):
  batches = make(kind)
  whole, parts = batches[7], batches.local(7, (1, 3), 4)
  for name, array in parts.items():
    np.testing.assert_array_equal(array, whole[name][[1, 3]])
  again = make(kind)[7]
  assert all((again[name] == whole[name]).all() for name in whole)
  assert {name: array.shape for name, array in whole.items()} == batches.shapes[0]


@pytest.mark.parametrize("kind", windows.KINDS)
def test_evaluation_has_every_token_once(kind):
  stream = stream_of()
  found = list(windows.eval_batches(kind, stream, rows=3, row_length=8))
  assert len({batch["targets"].shape for batch in found}) == 1
  tokens = np.concatenate([batch["targets"][batch["segments"] > 0] for batch in found])
  np.testing.assert_array_equal(np.sort(tokens), np.sort(stream.tokens))
  if kind == "contiguous":
    assert [bool(batch["fresh"].all()) for batch in found] == [True] + [False] * (len(found) - 1)
    rows = np.concatenate([batch["targets"] for batch in found], axis=1)
    np.testing.assert_array_equal(rows[1][:29], stream.tokens[29:58])


def test_what_is_too_short():
  with pytest.raises(UserError, match="87 tokens, fewer than config.data.row_length=100"):
    make("windows", length=100)
  with pytest.raises(UserError, match="fewer than one batch of 4 rows of 30"):
    make("contiguous", length=30)
