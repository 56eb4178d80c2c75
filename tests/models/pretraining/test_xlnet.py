"""Two streams: masks by brute force, attention against a float64 loop, what each stream sees, and recurrence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.data.permutations import permuted
from attention_zoo.models.pretraining import xlnet
from attention_zoo.ops.two_stream import permutation_mask, relative_attention

B, T = 2, 6


@pytest.fixture(scope="module")
def made():
  """(config, parameters, jitted streams)."""
  config = xlnet.small()
  model = xlnet.Model(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0), batch_of(np.zeros((B, T))))["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.4, x.shape), x.dtype), shapes)
  run = lambda p, batch, carry=None: model.apply({"params": p}, batch, carry=carry, method="streams")
  return config, params, jax.jit(run)


def batch_of(tokens_BT, **more):
  tokens_BT = jnp.asarray(tokens_BT, jnp.int32)
  return {"inputs": tokens_BT, "segments": jnp.ones_like(tokens_BT), "types": jnp.zeros_like(tokens_BT)} | more


def draw(rows=B, length=T):
  return np.random.default_rng(1).integers(0, 11, (rows, length))


def test_the_mask_by_brute_force():
  """Of every factorisation: token i is predicted from those that come before it in the permutation z."""
  rng = np.random.default_rng(0)
  for _ in range(20):
    z = rng.permutation(T)
    order = np.empty(T, int)
    order[z] = np.arange(T)
    wanted = {True: np.zeros((T, T), bool), False: np.zeros((T, T), bool)}
    for t, i in enumerate(z):
      wanted[False][i, z[:t]] = True
      wanted[True][i, z[: t + 1]] = True
    for itself, mask in wanted.items():
      found = permutation_mask(order[None], order[None], itself=itself)
      np.testing.assert_array_equal(found[0, 0], mask)


def test_attention_against_a_loop():
  rng = np.random.default_rng(0)
  N, K, H, S = 2, 3, 4, 5
  rows = {"q": (B, T, N, K), "k": (B, S, N, K), "v": (B, S, N, H), "r": (T + S, N, K)}
  q, k, v, r, *more = (rng.normal(size=shape) for shape in (*rows.values(), (N, K), (N, K), (N, K), (2, N, K)))
  u, w, s, e = more
  which, same, mask = rng.integers(0, T + S, (B, T, S)), rng.random((B, T, S)) < 0.5, rng.random((B, 1, T, S)) < 0.7
  mask[0, 0, 0] = False  # the first of a permutation sees nothing
  wanted = np.zeros((B, T, N, H))
  for b, t, n in np.ndindex(B, T, N):
    seen = [i for i in range(S) if mask[b, 0, t, i]]
    logits = np.array([
      (q[b, t, n] + u[n]) @ k[b, i, n] + (q[b, t, n] + w[n]) @ r[which[b, t, i], n]
      + (q[b, t, n] + s[n]) @ e[0 if same[b, t, i] else 1, n] for i in seen
    ]) / np.sqrt(K)  # fmt: skip
    if seen:
      weights = np.exp(logits - logits.max())
      wanted[b, t, n] = (weights / weights.sum()) @ v[b, seen, n]
  arrays = [jnp.asarray(x, jnp.float32) for x in (q, k, v, r, u, w, s, e)]
  found = relative_attention(*arrays, rows_BTS=jnp.asarray(which), same_BTS=jnp.asarray(same), mask=jnp.asarray(mask))
  np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


def test_the_content_stream_sees_itself_and_the_query_stream_does_not(made):
  _, params, streams = made
  order = np.random.default_rng(2).permutation(T)
  every = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
  more = {"order": jnp.asarray(np.tile(order, (B, 1)), jnp.int32), "places": every}
  tokens = draw()
  first_h, first_g, _ = streams(params, batch_of(tokens, **more))
  for j in range(T):
    changed = tokens.copy()
    changed[:, j] = (changed[:, j] + 1) % 11
    h, g, _ = streams(params, batch_of(changed, **more))
    for i in range(T):
      assert np.any(h[:, i] != first_h[:, i]) == (order[j] <= order[i]), (i, j)
      assert np.any(g[:, i] != first_g[:, i]) == (order[j] < order[i]), (i, j)


def test_queries_at_some_places_are_those_at_all(made):
  _, params, streams = made
  batch = permuted({"targets": draw(), "segments": np.ones((B, T), np.int32)}, [0, 1], 2, seed=3)
  batch = {name: jnp.asarray(x) for name, x in batch.items()}
  every = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
  h, g, _ = streams(params, batch)
  h_all, g_all, _ = streams(params, batch | {"places": every})
  np.testing.assert_allclose(h, h_all, rtol=1e-5, atol=1e-6)
  wanted = jnp.take_along_axis(g_all, batch["places"][:, :, None], 1)
  np.testing.assert_allclose(g, wanted, rtol=2e-5, atol=2e-5)


def test_a_carry_makes_two_segments_one(made):
  """Where the first half comes before the second in the order, and the memory holds it."""
  config, params, streams = made
  tokens, half = draw(length=8), 4
  assert config.memory == half
  order = jnp.asarray(np.tile(np.repeat([0, 1], half), (B, 1)), jnp.int32)
  whole, *_ = streams(params, batch_of(tokens, order=order))
  carry = xlnet.carry(config, B)
  first, _, carry = streams(params, batch_of(tokens[:, :half]), carry)
  second, _, new = streams(params, batch_of(tokens[:, half:]), carry)
  np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole, rtol=2e-5, atol=2e-5)
  assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, carry)
  alone, *_ = streams(params, batch_of(tokens[:, :half]))
  np.testing.assert_allclose(first, alone, rtol=2e-5, atol=2e-5)

  def loss(carry):
    return streams(params, batch_of(tokens[:, half:]), carry)[2]["layers"][0].sum()

  layers = carry["layers"]
  gradient = jax.grad(lambda x: loss(carry | {"layers": (x, *layers[1:])}))(layers[0])
  assert not gradient.any()


def test_permutations():
  batch = {"targets": np.arange(24).reshape(2, 12), "segments": np.ones((2, 12), np.int32)}
  found = permuted(batch, [0, 7], 3, seed=1)
  for order, places in zip(found["order"], found["places"], strict=True):
    assert sorted(order) == [0] * 8 + [1, 2, 3, 4] and (np.flatnonzero(order) == places).all()
  assert (found["order"][0] != found["order"][1]).any()
  again = permuted({name: x[1:] for name, x in batch.items()}, [7], 3, seed=1)
  np.testing.assert_array_equal(again["order"][0], found["order"][1])
