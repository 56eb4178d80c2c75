"""The mixture of experts against loops over tokens and experts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from attention_zoo.ops import mixture_of_experts as moe
from tests.ops.against import (
  as_float32,
  assert_bfloat16,
  assert_close,
  assert_matches,
  assert_same_on_eight_devices,
  normal,
  softmax,
)

B, T, D, E, F = 2, 6, 3, 4, 5
KEY = jax.random.key(0)


def gate_arguments(batch=B, length=T):
  return normal(0, (batch, length, D), (D, E), (D, E))


def gate_oracle(x, gate, noise, k, draws=None):
  """Shazeer et al., eq. 3-5, 8 and 9, one token and expert at a time. Returns gates and load."""
  gates, load = np.zeros((2, *x.shape[:2], E))
  for b, t in np.ndindex(*x.shape[:2]):
    clean, scale = x[b, t] @ gate, np.log1p(np.exp(x[b, t] @ noise)) + 0.01
    scores = clean if draws is None else clean + draws[b, t] * scale
    chosen = sorted(range(E), key=lambda e: -scores[e])[:k]
    gates[b, t, chosen] = softmax(scores[chosen])
    for e in range(E):
      others = sorted(np.delete(scores, e), reverse=True)
      if draws is None or k == E:
        load[b, t, e] = e in chosen
      else:
        load[b, t, e] = norm.cdf((clean[e] - others[k - 1]) / scale[e])
  return gates, load


@pytest.mark.parametrize("k", [1, 2, E])
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("output", [0, 1], ids=["gates", "load"])
def test_gates_and_load_are_the_papers_equations(k, noisy, output):
  draws = np.asarray(jax.random.normal(KEY, (B, T, E)), np.float64) if noisy else None
  rng = KEY if noisy else None
  assert_matches(
    lambda *a: moe.noisy_top_k_gates(*a, k=k, rng=rng)[output],
    lambda *a: gate_oracle(*a, k, draws)[output],
    *gate_arguments(),
  )


def test_load_is_how_often_an_expert_is_chosen_when_its_own_noise_is_drawn_again():
  x, gate, noise = gate_arguments(1, 1)
  _, load = moe.noisy_top_k_gates(*as_float32([x, gate, noise]), k=2, rng=KEY)
  draws = np.asarray(jax.random.normal(KEY, (1, 1, E)), np.float64)[0, 0]
  clean, scale = (x @ gate)[0, 0], np.log1p(np.exp(x @ noise))[0, 0] + 0.01
  rng = np.random.default_rng(0)
  for e in range(E):
    again = np.tile(draws, (100_000, 1))
    again[:, e] = rng.standard_normal(100_000)
    chosen = np.argsort(-(clean + again * scale), axis=1)[:, :2]
    assert abs((chosen == e).any(1).mean() - load[0, 0, e]) < 0.01


def test_gradients_are_finite_where_the_noise_vanishes():
  """At x W_noise = -60 softplus is 1e-26, and its square underflows."""
  x, gate, noise = jnp.ones((B, T, D)), as_float32(gate_arguments())[1], jnp.full((D, E), -20.0)

  def loss(x, gate, noise):
    gates, load = moe.noisy_top_k_gates(x, gate, noise, k=2, rng=KEY)
    return (gates * jnp.arange(E)[None, None]).sum() + moe.load_balancing_loss(gates, load)

  value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(x, gate, noise)
  assert np.isfinite(value) and all(np.isfinite(gradient).all() for gradient in gradients)


def test_ties_and_padding():
  """Gates that start at zero, as the paper's, tie everywhere: still k experts, and none for padding."""
  x = jnp.ones((B, T, D))
  zeros = jnp.zeros((D, E))
  mask = jnp.arange(T)[None].repeat(B, 0) < 4
  gates, load = moe.noisy_top_k_gates(x, zeros, zeros, k=2, mask_BT=mask)
  assert_close(gates, np.where(mask[:, :, None], [0.5, 0.5, 0, 0], 0))
  assert_close(load, np.where(mask[:, :, None], [1, 1, 0, 0], 0))
  gates, load = moe.noisy_top_k_gates(x, zeros, zeros, k=2, rng=KEY, mask_BT=mask)
  assert ((gates > 0).sum(-1) == np.where(mask, 2, 0)).all()
  assert (load[:, 4:] == 0).all() and (load[:, :4] > 0).all()


def balance_oracle(gates, load):
  """0.1 CV(importance)^2 + 0.1 CV(load)^2, eq. 6, 7 and 11."""
  total = 0
  for amounts in (gates, load):
    use = [sum(amounts[b, t, e] for b, t in np.ndindex(*amounts.shape[:2])) for e in range(E)]
    total += 0.1 * np.std(use) ** 2 / np.mean(use) ** 2
  return np.array(total)


def test_load_balancing_loss():
  arrays = [np.abs(array) for array in normal(1, (B, T, E), (B, T, E))]
  assert_matches(moe.load_balancing_loss, balance_oracle, *arrays)
  even = jnp.full((B, T, E), 1 / E)
  assert moe.load_balancing_loss(even, even) == 0
  one = jnp.zeros((B, T, E)).at[..., 1].set(1.0)
  assert_close(moe.load_balancing_loss(one, even, importance_weight=2.0), 2 * (E - 1))
  assert_close(moe.load_balancing_loss(even, one, load_weight=3.0), 3 * (E - 1))
  assert moe.load_balancing_loss(jnp.zeros((0, T, E)), jnp.zeros((0, T, E))) == 0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.booleans(), min_size=B * T * E, max_size=B * T * E))
def test_places_go_to_the_first_who_come(chosen):
  gates = np.array(chosen, np.float32).reshape(B, T, E) * 0.5
  dispatch, combine = moe.dispatch_and_combine(jnp.asarray(gates), 3)
  wanted = np.zeros((B, T, E, 3))
  for b in range(B):
    for e in range(E):
      for place, t in enumerate(np.flatnonzero(gates[b, :, e])[:3]):
        wanted[b, t, e, place] = 1
  assert (np.asarray(dispatch) == wanted).all()
  assert (np.asarray(combine) == wanted / 2).all()


def moe_arguments(batch=B, length=T):
  gates = gate_oracle(*gate_arguments(batch, length), 2)[0]
  return [*normal(2, (batch, length, D)), gates, *normal(3, (E, D, F), (E, F, D))]


def apply(x, gates, into, out, capacity):
  experts = partial(moe.feed_forward_experts, in_EDF=into, out_EFD=out)
  return moe.mixture_of_experts(x, gates, experts, capacity=capacity)


def moe_oracle(x, gates, into, out, capacity):
  y = np.zeros_like(x)
  for b in range(x.shape[0]):
    taken = np.zeros(E, int)
    for t in range(x.shape[1]):
      for e in np.flatnonzero(gates[b, t] > 0):
        if taken[e] < capacity:
          y[b, t] += gates[b, t, e] * (np.maximum(x[b, t] @ into[e], 0) @ out[e])
        taken[e] += 1
  return y


@pytest.mark.parametrize("capacity", [1, 3, T])
def test_mixture_is_the_sum_over_the_chosen_experts(capacity):
  # The gates are held fixed: which experts are chosen is not differentiable.
  x, gates, into, out = moe_arguments()
  assert_matches(
    lambda x, into, out: apply(x, jnp.asarray(gates, jnp.float32), into, out, capacity),
    lambda x, into, out: moe_oracle(x, gates, into, out, capacity),
    x,
    into,
    out,
  )


@pytest.mark.parametrize("capacity", [1, 3, T])
def test_looking_up_is_the_same(capacity):
  """As the products with dispatch and combine tensors: values and gradients, those of the gates too."""
  arguments = as_float32(moe_arguments())

  def looked_up(x, gates, into, out):
    experts = partial(moe.feed_forward_experts, in_EDF=into, out_EFD=out)
    return moe.looked_up_experts(x, gates, experts, k=2, capacity=capacity)

  for one in (lambda f: f(*arguments), lambda f: jax.grad(lambda *a: (f(*a) ** 2).sum(), (0, 1, 2, 3))(*arguments)):
    jax.tree.map(assert_close, one(looked_up), one(partial(apply, capacity=capacity)))


def test_every_expert_is_the_mixture_where_all_have_room():
  x, gates, into, out = arguments = as_float32(moe_arguments())
  assert_close(moe.every_expert(*arguments), apply(*arguments, capacity=T))


def test_use_of_the_experts():
  """Expert 0 is asked by five of six tokens of each row, expert 1 by all, expert 2 by one."""
  gates = np.zeros((B, T, E), np.float32)
  gates[:, :5, 0] = gates[:, 5:, 2] = gates[..., 1] = 0.5
  load, dropped = moe.expert_use(jnp.asarray(gates), 4)
  assert_close(load, 12 / (24 / 4))
  assert_close(dropped, 2 * (1 + 2) / 24)
  assert moe.expert_use(jnp.asarray(gates))[1] == 0
  assert moe.expert_use(jnp.zeros((B, T, E)), 4) == (0, 0)


def test_gates_learn_through_the_mixture():
  x, gates, into, out = as_float32(moe_arguments())
  slope = jax.grad(lambda gates: jnp.sum(apply(x, gates, into, out, T) ** 2))(gates)
  assert ((slope != 0) == (gates > 0)).mean() > 0.9


def test_rows_and_later_tokens_change_nothing():
  """Capacity is short, so that a place more for one token is a place less for another: but only for a later one."""
  x, gates, into, out = as_float32(moe_arguments())
  whole = apply(x, gates, into, out, 2)
  assert_close(apply(x[:, :4], gates[:, :4], into, out, 2), whole[:, :4], 1e-6)
  assert_close(apply(x[1:], gates[1:], into, out, 2), whole[1:], 1e-6)
  assert np.abs(apply(x[:, ::-1], gates[:, ::-1], into, out, 2)[:, ::-1] - whole).max() > 0.1


def test_capacity():
  assert moe.expert_capacity(100, 8, k=2, capacity_factor=1.0) == 25
  assert moe.expert_capacity(100, 8, k=2, capacity_factor=1.25) == 32
  assert moe.expert_capacity(1, 8, k=1, capacity_factor=1.0) == 1


def train_toy(balance_weight, steps=400):
  """Four experts for eight clusters of tokens, each with a linear map of its own. Returns the use of each expert."""
  width, hidden, tokens = 8, 16, 32
  rng = np.random.default_rng(0)
  centres, maps = (
    jnp.asarray(np.eye(8) * 3, jnp.float32),
    jnp.asarray(rng.standard_normal((8, 8, 8)) / 3, jnp.float32),
  )
  params = {
    # The first expert starts as everybody's favourite; the paper found that this feeds on itself.
    "gate": jnp.zeros((width, E)).at[:, 0].set(0.5),
    "noise": jnp.zeros((width, E)),
    "into": jnp.asarray(rng.standard_normal((E, width, hidden)) * 0.3, jnp.float32),
    "out": jnp.asarray(rng.standard_normal((E, hidden, width)) * 0.3, jnp.float32),
  }

  def loss(params, key, noisy=True):
    which_key, spread_key, noise_key = jax.random.split(key, 3)
    which = jax.random.randint(which_key, (4, tokens), 0, 8)
    x = centres[which] + 0.3 * jax.random.normal(spread_key, (4, tokens, width))
    rng = noise_key if noisy else None
    gates, load = moe.noisy_top_k_gates(x, params["gate"], params["noise"], k=1, rng=rng)
    y = apply(x, gates, params["into"], params["out"], tokens)
    error = jnp.mean((y - jnp.einsum("BTD,BTDE->BTE", x, maps[which])) ** 2)
    balance = moe.load_balancing_loss(
      gates, load, importance_weight=balance_weight, load_weight=balance_weight
    )
    return error + balance, (gates > 0).mean((0, 1))

  @jax.jit
  def train(params):
    def step(params, key):
      gradients = jax.grad(loss, has_aux=True)(params, key)[0]
      return jax.tree.map(lambda p, g: p - 0.2 * g, params, gradients), None

    params, _ = jax.lax.scan(step, params, jax.random.split(KEY, steps))
    return loss(params, jax.random.key(1), noisy=False)[1]

  return train(params)


def test_every_expert_is_used_thanks_to_the_balancing_loss():
  """Share of the tokens by expert: the favourite takes all, or each takes about a quarter."""
  alone, balanced = train_toy(0.0), train_toy(0.5)
  assert alone.max() == 1
  assert balanced.min() > 0.1 and balanced.max() < 0.5


def test_bfloat16():
  x, gates, into, out = moe_arguments()
  fixed = jnp.asarray(gates, jnp.float32)
  assert_bfloat16(
    lambda x, into, out: apply(x, fixed, into, out, T),
    lambda x, into, out: moe_oracle(x, gates, into, out, T),
    x,
    into,
    out,
    bound=2e-2,
  )
  gates, load = moe.noisy_top_k_gates(
    *(a.astype(jnp.bfloat16) for a in as_float32(gate_arguments())), k=2, rng=KEY
  )
  assert gates.dtype == load.dtype == jnp.float32
  assert_close(gates.sum(-1), np.ones((B, T)))


@pytest.mark.parametrize("batch, length", [(0, 3), (2, 0), (1, 1)])
def test_empty_and_one_element(batch, length):
  arrays = gate_arguments(batch, length)
  gates, load = moe.noisy_top_k_gates(*as_float32(arrays), k=2)
  assert_close(gates, gate_oracle(*arrays, 2)[0])
  arrays = moe_arguments(batch, length)
  assert_close(apply(*as_float32(arrays), 2), moe_oracle(*arrays, 2))
  assert np.isfinite(moe.load_balancing_loss(gates, load))


def test_one_device_equals_eight_over_the_batch():
  arrays = as_float32(moe_arguments(batch=8))
  specs = [("all",), ("all",), (), ()]
  assert_same_on_eight_devices(partial(apply, capacity=3), arrays, specs, ("all",))


def test_one_device_equals_eight_over_the_experts():
  x, gates, into, out = moe_arguments(batch=1)
  arrays = as_float32([x, np.tile(gates / 2, 2), np.tile(into, (2, 1, 1)), np.tile(out, (2, 1, 1))])
  queue = as_float32([normal(4, (8, 1, 2, D))[0]])
  specs = [("all",), ("all",), ("all",)]
  assert_same_on_eight_devices(moe.feed_forward_experts, queue + arrays[2:], specs, ("all",))


@pytest.mark.parametrize(
  "call, message",
  [
    (
      lambda: moe.noisy_top_k_gates(jnp.zeros((T, D)), jnp.zeros((D, E)), jnp.zeros((D, E)), k=1),
      r"x_BTD has shape \(6, 3\), wanted BTD",
    ),
    (
      lambda: moe.noisy_top_k_gates(jnp.zeros((B, T, D)), jnp.zeros((D, E)), jnp.zeros((D, E + 1)), k=1),
      r"noise_DE has shape \(3, 5\), wanted DE = \(3, 4\)",
    ),
    (
      lambda: moe.noisy_top_k_gates(jnp.zeros((B, T, D)), jnp.zeros((D, E)), jnp.zeros((D, E)), k=E + 1),
      r"k must be between 1 and E = 4 \(gate_DE has shape \(3, 4\)\), got 5",
    ),
    (
      lambda: moe.noisy_top_k_gates(
        jnp.zeros((B, T, D)), jnp.zeros((D, E)), jnp.zeros((D, E)), k=1, mask_BT=jnp.ones((B, T))
      ),
      "mask_BT must be bool",
    ),
    (
      lambda: moe.load_balancing_loss(jnp.zeros((B, T, E)), jnp.zeros((B, T))),
      r"load_BTE has shape \(2, 6\)",
    ),
    (lambda: moe.dispatch_and_combine(jnp.zeros((B, T, E)), 0), "capacity must be at least 1, got 0"),
    (
      lambda: moe.mixture_of_experts(jnp.zeros((B, T, D)), jnp.zeros((B, T + 1, E)), None, capacity=1),
      r"gates_BTE has shape \(2, 7, 4\), wanted BTE = \(2, 6, E\)",
    ),
    (
      lambda: moe.feed_forward_experts(jnp.zeros((E, B, 2, D)), jnp.zeros((E, D, F)), jnp.zeros((E, D, F))),
      r"out_EFD has shape \(4, 3, 5\), wanted EFD = \(4, 5, 3\)",
    ),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()
