"""Sequence to sequence without attention against loops written from the paper."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from attention_zoo.models.seq2seq import sutskever
from tests.models.seq2seq import cases


def loops(config, p, source, inputs):
  xs, starts = list(p["source_embedding"]["table_VD"][source]), []
  for i in range(config.num_layers):
    states = cases.read(config.cell, p["encoder"][f"layer_{i}"], xs, reverse=config.reverse_source)
    starts.append(states[0 if config.reverse_source else -1])
    xs = [state[0] for state in states]
  ys = list(p["target_embedding"]["table_VD"][inputs])
  for i in range(config.num_layers):
    ys = [state[0] for state in cases.read(config.cell, p["decoder"][f"layer_{i}"], ys, state=starts[i])]
  return np.array([p["output"]["table_VD"] @ y for y in ys])


@pytest.mark.parametrize(("cell", "reverse"), [("lstm", True), ("gru", False), ("rnn", True)])
def test_is_the_papers_equations(cell, reverse):
  config = dataclasses.replace(sutskever.small(), cell=cell, reverse_source=reverse)
  cases.assert_is_the_papers(sutskever, config, functools.partial(loops, config))


def test_one_device_equals_eight():
  cases.assert_one_device_equals_eight(sutskever, sutskever.small())


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_parameters_of_other_cells_are_counted(cell):
  config = dataclasses.replace(sutskever.small(), cell=cell)
  found = jax.tree.leaves(cases.random_parameters(sutskever, config))
  assert sum(leaf.size for leaf in found) == sutskever.parameter_count(config)


def test_the_paper_counts_as_many():
  """384 million, of which 64 million are the two LSTMs'; its three tables have 160,000, 80,000 and 80,000 rows."""
  recurrent = sutskever.parameter_count(sutskever.Config(vocab_size=1)) - 3 * 1000
  assert recurrent == pytest.approx(64e6, rel=1e-2)
  assert recurrent + (160_000 + 80_000 + 80_000) * 1000 == pytest.approx(384e6, rel=1e-2)


def test_an_unknown_cell_is_told():
  with pytest.raises(ValueError, match=r"model\.cell must be one of \('rnn', 'gru', 'lstm'\), got 'elman'"):
    sutskever.Config(vocab_size=11, cell="elman")
