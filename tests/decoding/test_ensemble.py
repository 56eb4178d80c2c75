"""Ensembles against exhaustive search on the mean distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.decoding.beam import beam_search
from attention_zoo.decoding.ensemble import ensemble, mean_logits
from attention_zoo.protocols import Decoding
from tests.decoding import toys
from tests.decoding.toys import BOS, EOS


def mean_table(*tables_MV):
  return np.log(np.mean([np.exp(toys.log_softmax(table_MV)) for table_MV in tables_MV], axis=0))


@pytest.mark.parametrize("beam_size", [1, 3, 162])
def test_a_search_with_several_is_one_on_the_mean_distribution(beam_size):
  tables = [toys.random_tables(seed, batch=3, vocab=4) for seed in (1, 2, 3)]
  limits = [5, 4, 5]

  @jax.jit
  def search(tables):
    model = ensemble([toys.decoding(tables_BMV, beam_size) for tables_BMV in tables])

    def step(tokens_BJ, t, cache):
      logits_BJ1V, cache = model.step(tokens_BJ[..., None], t, cache)
      return logits_BJ1V[:, :, 0], cache

    return beam_search(
      step, model.cache, batch_size=3, beam_size=beam_size, max_lengths_B=jnp.array(limits), max_length=5,
      bos=BOS, eos=EOS, alpha=0.6, reorder=model.reorder,
    )  # fmt: skip

  result = jax.tree.map(np.asarray, search(tables))
  for b, limit in enumerate(limits):
    table_MV = mean_table(*(tables_BMV[b] for tables_BMV in tables))
    expected = toys.reference_search(table_MV, limit, 0.6, beam_size=beam_size)
    if beam_size == 162:
      expected = toys.exhaustive_search(table_MV, limit, 0.6)
    toys.assert_matches(result, b, expected)


def test_mean_logits_are_the_logarithm_of_the_mean():
  rng = np.random.default_rng(0)
  first, second = rng.normal(size=(2, 5, 7), scale=4)
  first[0, :3] = -np.inf
  second[0, :2] = -np.inf
  second[1] += 100  # logits need not be normalised
  with np.errstate(divide="ignore"):
    np.testing.assert_allclose(mean_logits(first, second), mean_table(first, second), rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(mean_logits(first), toys.log_softmax(first), rtol=1e-5, atol=1e-5)
  for fault in (np.nan, np.inf):
    second[2, 3] = fault
    assert np.isnan(mean_logits(first, second)[2]).all()


def test_caches_go_their_own_ways():
  """Each is grown and reordered by its own functions, and the shortest model sets the limit."""
  def model(name, **options):
    return Decoding(name, lambda tokens, t, cache: (jnp.zeros((1, 1, 1, 5)), cache + "."), **options)

  one = model("a", reorder=lambda cache, parents: cache + "r", grow=lambda cache, n: cache + f"g{n}", max_length=9)
  two = model("b", reorder=lambda cache, parents: cache + "R", max_length=7)
  both = ensemble([one, two])
  assert both.grow(both.cache, 4) == ("ag4", "b") and both.reorder(both.cache, None) == ("ar", "bR")
  assert both.step(None, 0, both.cache)[1] == ("a.", "b.") and both.max_length == 7
  assert ensemble([two]).grow is None and ensemble([one._replace(max_length=None)]).max_length is None
