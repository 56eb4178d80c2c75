"""The forward algorithm and Viterbi against all paths of labels, one by one, in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops import crf
from tests.ops.against import as_float32, assert_close, assert_matches, assert_same_on_eight_devices, normal

B, T, V = 3, 4, 3
LENGTHS = (4, 2, 1)
MASK_BT = np.arange(T)[None] < np.array(LENGTHS)[:, None]


def arguments(batch=B):
  return normal(2, (batch, T, V), (V, V), (V,), (V,))


def scores(emission_TV, n, transition_VV, start_V, end_V):
  """path -> s(path), of all paths of n labels: the definition."""
  found = {}
  for path in itertools.product(range(V), repeat=n):
    s = start_V[path[0]] + end_V[path[-1]] + sum(emission_TV[t, y] for t, y in enumerate(path))
    found[path] = s + sum(transition_VV[a, b] for a, b in itertools.pairwise(path))
  return found


def all_scores(arrays, mask_BT=MASK_BT):
  emission_BTV, *rest = arrays
  return [scores(emission_BTV[b], int(mask_BT[b].sum()), *rest) for b in range(len(emission_BTV))]


def brute_log_partition(*arrays):
  return np.array([np.log(sum(np.exp(s) for s in found.values())) for found in all_scores(arrays)])


def log_partition(emission_BTV, *rest):
  return crf.log_partition(emission_BTV, jnp.asarray(MASK_BT), crf.Potentials(*rest))


def test_the_forward_algorithm_sums_over_all_paths():
  assert_matches(log_partition, brute_log_partition, *arguments())


def test_the_gradient_of_log_z_is_the_marginals():
  arrays = arguments()
  gradients = jax.jit(jax.grad(lambda *a: log_partition(*a).sum(), argnums=(0, 1)))(*as_float32(arrays))
  marginal_BTV, pair_VV = np.zeros((B, T, V)), np.zeros((V, V))
  for b, found in enumerate(all_scores(arrays)):
    whole = sum(np.exp(s) for s in found.values())
    for path, s in found.items():
      for t, y in enumerate(path):
        marginal_BTV[b, t, y] += np.exp(s) / whole
      for pair in itertools.pairwise(path):
        pair_VV[pair] += np.exp(s) / whole
  assert_close(gradients[0], marginal_BTV)
  assert_close(gradients[1], pair_VV)


def test_viterbi_finds_the_best_of_all_paths():
  arrays = arguments()
  emission_BTV, *rest = as_float32(arrays)
  found_BT, score_B = jax.jit(crf.viterbi)(emission_BTV, jnp.asarray(MASK_BT), crf.Potentials(*rest))
  for b, every in enumerate(all_scores(arrays)):
    best = max(every, key=every.get)
    assert tuple(found_BT[b, : len(best)]) == best and not found_BT[b, len(best) :].any()
    assert_close(score_B[b], every[best])


def test_likelihoods_of_all_paths_sum_to_one():
  arrays = arguments(1)
  emission_BTV, *rest = as_float32(arrays)
  paths = np.array(list(itertools.product(range(V), repeat=3)))
  label_BT = jnp.asarray(np.pad(paths, ((0, 0), (0, 1)), constant_values=99))  # what stands in padding is not looked at
  mask_BT = jnp.broadcast_to(jnp.arange(T)[None] < 3, label_BT.shape)
  emission_BTV = jnp.broadcast_to(emission_BTV, (len(paths), T, V))
  found_B = crf.log_likelihood(emission_BTV, label_BT, mask_BT, crf.Potentials(*rest))
  assert_close(jnp.exp(found_B).sum(), 1.0)
  every = scores(arrays[0][0], 3, *arrays[1:])
  wanted = np.array(list(every.values()))
  assert_close(found_B, wanted - np.log(np.exp(wanted).sum()))


def test_a_row_of_padding_adds_nothing():
  emission_BTV, *rest = as_float32(arguments())
  nothing_BT, label_BT = jnp.zeros((B, T), bool), jnp.ones((B, T), int)
  loss = lambda *a: crf.log_likelihood(a[0], label_BT, nothing_BT, crf.Potentials(*a[1:])).sum()
  value, gradients = jax.value_and_grad(loss, argnums=(0, 1, 2, 3))(emission_BTV, *rest)
  assert value == 0 and not any(gradient.any() for gradient in gradients)
  found_BT, score_B = crf.viterbi(emission_BTV, nothing_BT, crf.Potentials(*rest))
  assert not found_BT.any() and not score_B.any()


LABELS = ("O", "B-DATE", "I-DATE", "B-PLACE", "I-PLACE")


def test_rules_of_bio():
  transition_VV, start_V = crf.bio_rules(LABELS)
  allowed = {(a, b) for i, a in enumerate(LABELS) for j, b in enumerate(LABELS) if transition_VV[i, j]}
  forbidden = {(a, "I-DATE") for a in ("O", "B-PLACE", "I-PLACE")} | {(a, "I-PLACE") for a in ("O", "B-DATE", "I-DATE")}
  assert allowed == set(itertools.product(LABELS, repeat=2)) - forbidden
  assert start_V.tolist() == [True, True, False, True, False]


def test_constrained_viterbi_keeps_the_rules_and_its_loss_is_finite():
  n = len(LABELS)
  emission_BTV, transition_VV, start_V, end_V = as_float32(normal(3, (16, 6, n), (n, n), (n,), (n,)))
  rules = crf.bio_rules(LABELS)
  potentials = crf.constrained(crf.Potentials(transition_VV, start_V, end_V), *rules)
  mask_BT = jnp.ones((16, 6), bool)
  found_BT, _ = crf.viterbi(emission_BTV, mask_BT, potentials)
  assert rules[1][found_BT[:, 0]].all() and rules[0][found_BT[:, :-1], found_BT[:, 1:]].all()
  free_BT, _ = crf.viterbi(emission_BTV, mask_BT, crf.Potentials(transition_VV, start_V, end_V))
  assert not rules[0][free_BT[:, :-1], free_BT[:, 1:]].all()  # the draw would break them
  loss = lambda x: crf.log_likelihood(x, jnp.full((16, 6), 2), mask_BT, potentials).sum()  # I-DATE alone
  value, gradient = jax.value_and_grad(loss)(emission_BTV)
  assert np.isfinite(value) and np.isfinite(gradient).all() and value < -1e8


def test_bad_input():
  emission_BTV, *rest = as_float32(arguments())
  mask_BT, potentials = jnp.asarray(MASK_BT), crf.Potentials(*rest)
  with pytest.raises(ValueError, match="transition_VV has shape"):
    crf.log_partition(emission_BTV, mask_BT, potentials._replace(transition_VV=jnp.zeros((V, V + 1))))
  with pytest.raises(ValueError, match="mask_BT must be bool"):
    crf.viterbi(emission_BTV, mask_BT.astype(int), potentials)
  with pytest.raises(ValueError, match="no position"):
    crf.log_partition(emission_BTV[:, :0], mask_BT[:, :0], potentials)


def test_eight_devices_are_one():
  arrays = as_float32(arguments(8))
  mask_BT = jnp.asarray(np.arange(T)[None] < np.array([4, 2, 1, 0, 3, 4, 1, 2])[:, None])
  assert_same_on_eight_devices(
    lambda emission, mask, *rest: crf.log_partition(emission, mask, crf.Potentials(*rest)),
    [arrays[0], mask_BT, *arrays[1:]], [("all",), ("all",), (), (), ()], ("all",),
  )  # fmt: skip
