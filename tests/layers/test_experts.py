"""The layer of experts: equal to its parts, balanced by its loss, and nothing for padding."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from attention_zoo.layers.mixture_of_experts import MixtureOfExperts

B, T, D, F, E = 2, 8, 6, 10, 4


def setup(**options):
  module = MixtureOfExperts(F, num_experts=E, **options)
  x_BTD = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, D)), jnp.float32)
  params = module.init(jax.random.key(0), x_BTD)["params"]
  gate = np.random.default_rng(1).normal(size=(D, E))
  return module, params | {"gate_DE": jnp.asarray(gate, jnp.float32)}, x_BTD


def test_each_token_gets_its_two_best_experts():
  module, params, x_BTD = setup(k=2, capacity_factor=E / 2)
  y_BTD = module.apply({"params": params}, x_BTD)
  x, gate, into, out = (
    np.asarray(a, np.float64) for a in (x_BTD, params["gate_DE"], params["experts_in_EDF"], params["experts_out_EFD"])
  )
  for b, t in np.ndindex(B, T):
    scores = x[b, t] @ gate
    best = np.argsort(scores)[-2:]
    weights = np.exp(scores[best]) / np.exp(scores[best]).sum()
    wanted = sum(w * np.maximum(x[b, t] @ into[e], 0) @ out[e] for w, e in zip(weights, best, strict=True))
    np.testing.assert_allclose(y_BTD[b, t], wanted, rtol=1e-4, atol=1e-5)


def test_padding_gets_nothing_and_takes_no_place():
  module, params, x_BTD = setup(k=1, capacity_factor=1.0)
  segments_BT = jnp.asarray(np.arange(T)[None] >= np.array([[0], [4]]), jnp.int32)
  y_BTD = module.apply({"params": params}, x_BTD, segments_BT)
  assert not np.asarray(y_BTD)[1, :4].any()
  noisy = module.apply({"params": params}, jnp.where(segments_BT[..., None] > 0, x_BTD, 9.0), segments_BT)
  np.testing.assert_array_equal(noisy, y_BTD)


def test_noise_is_drawn_in_training_alone():
  module, params, x_BTD = setup()
  run = lambda seed, **options: module.apply(
    {"params": params}, x_BTD, rngs={"dropout": jax.random.key(seed)}, **options
  )
  np.testing.assert_array_equal(run(0), run(1))
  assert (np.asarray(run(0, train=True)) != np.asarray(run(1, train=True))).any()


def test_the_balancing_loss_makes_every_expert_used():
  """All tokens start at one expert; after some steps down the loss each has its share."""
  module, params, _ = setup(k=1)
  x_BTD = jnp.asarray(np.random.default_rng(2).normal(size=(8, 16, D)), jnp.float32).at[..., 0].set(1.0)
  params = params | {"gate_DE": jnp.zeros((D, E)).at[0, 0].set(2.0)}

  def loss(params, rng):
    _, sown = module.apply({"params": params}, x_BTD, train=True, rngs={"dropout": rng}, mutable=["losses"])
    return sum(jax.tree.leaves(sown))

  def shares(params):
    scores = np.asarray(x_BTD).reshape(-1, D) @ np.asarray(params["gate_DE"])
    return np.bincount(scores.argmax(-1), minlength=E) / len(scores)

  optimizer = optax.adam(0.05)
  step = jax.jit(lambda params, state, rng: optimizer.update(jax.grad(loss)(params, rng), state))
  state = optimizer.init(params)
  assert shares(params)[0] == 1
  for i in range(100):
    updates, state = step(params, state, jax.random.key(i))
    params = optax.apply_updates(params, updates)
  assert shares(params).min() > 0.1


def test_it_is_a_feed_forward_network_of_its_own_for_each_expert():
  """First values: as Glorot draws a [D, F] matrix."""
  module = MixtureOfExperts(64, num_experts=E)
  params = module.init(jax.random.key(0), jnp.zeros((1, 2, 32)))["params"]
  bound = np.sqrt(6 / (32 + 64))
  for name in ("experts_in_EDF", "experts_out_EFD"):
    assert 0.97 * bound < np.abs(params[name]).max() <= bound * (1 + 1e-6)
  assert not params["gate_DE"].any() and not params["noise_DE"].any()
