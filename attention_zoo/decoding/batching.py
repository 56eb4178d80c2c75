"""Batches for decoding: sentences of like length together, in few static shapes."""

from typing import NamedTuple

import numpy as np

_SHORTEST = 16


class LengthBatch(NamedTuple):
  """indices: of at most `rows` sentences, longest first; what is left of [rows, padded_length] is padding."""

  indices: np.ndarray
  padded_length: int
  rows: int


def padded_length(length):
  """The smallest of 16, 32, 64, 128, ... that holds `length`."""
  return max(_SHORTEST, 1 << (int(length) - 1).bit_length())


def length_batches(lengths, *, batch_tokens, row_multiple=1, longest=None):
  """Cuts sentences into batches, longest first; every sentence is in exactly one.

  Every batch but the last is full, and all batches of one padded length have the same rows, so that one
  executable serves a padded length. Compiling takes seconds and padding little: a shorter length is used only
  where it fills a batch, and what is left goes with the length before. `rows` follows from the budget; where all
  sentences together are fewer, it is the next of 1, 4, 16, 64, ... (times row_multiple).
  Results go back to input order by `output[index] = result` over each batch's indices.

  Args:
    lengths: tokens of each sentence, at least 1 (what is empty is not to be decoded).
    batch_tokens: budget of rows times padded length. A single sentence may exceed it.
    row_multiple: rows are a multiple of it (the number of devices that share a batch).
    longest: sentences are not padded beyond it.

  Returns:
    list of LengthBatch.

  Raises:
    ValueError: a length, the budget or the multiple below 1.
  """
  lengths = np.asarray(lengths, np.int64)
  if min(batch_tokens, row_multiple, *lengths) < 1:
    raise ValueError("lengths, batch_tokens and row_multiple must be at least 1")
  order = np.argsort(-lengths, kind="stable")
  batches, start = [], 0
  while start < len(order):
    length = lengths[order[start]]
    padded = padded_length(length)
    if longest is not None:
      padded = int(max(length, min(padded, longest)))
    rows = max(batch_tokens // padded // row_multiple, 1) * row_multiple
    left = len(order) - start
    if left < rows:
      if batches:
        padded, rows = batches[-1].padded_length, batches[-1].rows
      else:
        few = row_multiple
        while few < left:
          few *= 4
        rows = min(rows, few)
    batches.append(LengthBatch(order[start : start + rows], padded, rows))
    start += rows
  return batches
