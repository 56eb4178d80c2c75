"""Sentences of ids as rows of static shapes, split over all devices of this process."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np

from attention_zoo.data.tokenizer import PAD
from attention_zoo.decoding.batching import length_batches
from attention_zoo.errors import UserError
from attention_zoo.training import sharding


class Rows:
  """decode: the config group of that name. longest: no row is padded beyond it (the model's own limit)."""

  def __init__(self, decode, longest):
    self.mesh = sharding.local_mesh()
    self._decode, self._longest = decode, longest
    self._usual = decode.beam_size  # what is set later is an option, as an argument is

  def batches(self, *sides: list[list[int]], beam_size=1) -> Iterator[tuple]:
    """(indices, (ids [rows, length], lengths [rows]) for each side) until every sentence was in one batch.

    sides: lists of the same sentences, ids of each, none empty. Rows that only fill a batch have length 0;
    indices are those of the rows before them. config.decode.batch_tokens fits at the config's own beam size: of
    wider beams, fewer rows do.
    """
    lengths = [max(map(len, sentence)) for sentence in zip(*sides, strict=True)]
    cut = length_batches(
      lengths,
      batch_tokens=max(self._decode.batch_tokens * self._usual // max(self._usual, beam_size), 1),
      row_multiple=self.mesh.size,
      longest=self._longest,
    )
    for indices, length, rows in cut:
      padded = (_padded([side[i] for i in indices], length, rows) for side in sides)
      yield indices, *self.spread(tuple(padded))

  def spread(self, tree):
    """A tree of arrays with the rows first, split over the devices as the batches are."""
    return jax.device_put(tree, sharding.batch_sharding(self.mesh))

  @contextlib.contextmanager
  def enough_memory(self, verb):
    """UserError where the devices have too little memory for what is computed inside."""
    try:
      yield
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      raise UserError(
        f"not enough memory to {verb}: ask for fewer beams, or lower decode.batch_tokens = {self._decode.batch_tokens} "
        "in the run's config.json"
      ) from error


def check_finite(scores) -> None:
  """Raises UserError where the model has failed."""
  if np.isnan(scores).any():
    raise UserError("the model's logits are not finite: the checkpoint is of a run that has diverged, take another")


def _padded(batch, length, rows):
  ids = np.full((rows, length), PAD, np.int32)
  lengths_B = np.zeros(rows, np.int32)
  for b, sentence in enumerate(batch):
    ids[b, : len(sentence)] = sentence
    lengths_B[b] = len(sentence)
  return ids, lengths_B
