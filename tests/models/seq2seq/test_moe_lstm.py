"""LSTMs with mixtures of experts against loops written from the paper; balance and use of the experts in training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attention_zoo.models.seq2seq import moe_lstm
from attention_zoo.ops import mixture_of_experts
from tests.models.seq2seq import cases


def lstm(p, x, state, extra=()):
  """`cases.lstm` whose output is projected."""
  h, c = cases.lstm({**p, "recurrent_FA": p["recurrent_DA"]}, x, state, extra)
  return h @ p["projection_FD"], c


def read(p, xs, reverse=False):
  state, found = (np.zeros(8), np.zeros(6)), [None] * len(xs)
  for t in reversed(range(len(xs))) if reverse else range(len(xs)):
    state = lstm(p, xs[t], state)
    found[t] = state[0]
  return found


def mixture(p, x, k=2):
  """Equations 1 to 5 without noise, and the sigmoid."""
  scores = x @ p["gate_DE"]
  best = np.argsort(-scores)[:k]
  gates = cases.softmax(scores[best])
  experts = [np.maximum(x @ p["experts_in_EDF"][e], 0) @ p["experts_out_EFD"][e] for e in best]
  return cases.sigmoid(sum(gate * y for gate, y in zip(gates, experts, strict=True)))


def loops(p, source, inputs):
  xs = list(p["source_embedding"]["table_VD"][source])
  pair = [read(p["encoder_0"][name], xs, reverse=name == "backward") for name in ("forward", "backward")]
  xs = [x + a + b for x, a, b in zip(xs, *pair, strict=True)]
  xs = [x + h for x, h in zip(xs, read(p["encoder_1"], xs), strict=True)]
  xs = [x + mixture(p["encoder_mixture"], x) for x in xs]
  xs = [x + h for x, h in zip(xs, read(p["encoder_2"], xs), strict=True)]
  a, states, logits = p["cross_attention"], [(np.zeros(8), np.zeros(6))] * 2, []
  for token in inputs:
    q = np.tanh(states[0][0] @ a["query_FK"])  # the first layer's output of the step before
    score = [sum(a["score_K"] * q * np.tanh(x @ a["key_UK"])) for x in xs]
    context = sum(w * x for w, x in zip(cases.softmax(np.array(score)), xs, strict=True))
    x = p["target_embedding"]["table_VD"][token]
    states[0] = lstm(p["decoder_0"], x, states[0], [context])
    x = x + states[0][0]
    x = x + mixture(p["decoder_mixture"], x)
    states[1] = lstm(p["decoder_1"], np.concatenate([x, context]), states[1])
    logits.append(p["output"]["table_VD"] @ (x + states[1][0]))
  return np.array(logits)


def test_is_the_papers_equations():
  cases.assert_is_the_papers(moe_lstm, moe_lstm.small(), loops)


def test_one_device_equals_eight():
  """In training, with the same noise: outputs, gradients, and what balances the experts of the whole batch."""
  cases.assert_one_device_equals_eight(moe_lstm, moe_lstm.small(), scale=0.5, train=True)


def params_and_batch(config, scale=0.5):
  params = jax.tree.map(lambda x: jnp.asarray(scale * x, jnp.float32), cases.random_parameters(moe_lstm, config))
  return params, cases.rows(*[cases.PAIRS, cases.PAIRS[::-1]] * 4, S=10, T=8)


def test_training_without_noise_and_with_room_is_evaluation(monkeypatch):
  """Both ways to run the experts: looked up by their places, and all for all."""
  config = dataclasses.replace(moe_lstm.small(), capacity_factor=2.0)  # E / k: room for all
  params, batch = params_and_batch(config)
  noisy = mixture_of_experts.noisy_top_k_gates
  monkeypatch.setattr(
    mixture_of_experts, "noisy_top_k_gates", lambda *arrays, rng, **options: noisy(*arrays, rng=None, **options)
  )
  run = lambda train: moe_lstm.Model(config).apply(
    {"params": params}, batch, train=train, rngs={"dropout": jax.random.key(0)}, mutable=["figures"]
  )
  (trained, figures), (evaluated, _) = run(True), run(False)
  real = np.asarray(batch["target_segments"]) > 0
  np.testing.assert_allclose(trained[real], evaluated[real], rtol=1e-4, atol=1e-4)
  assert float(figures["figures"]["encoder_mixture"]["expert_dropped"][0]) == 0


def test_who_finds_no_room_is_counted():
  config = dataclasses.replace(moe_lstm.small(), capacity_factor=0.1)
  params, batch = params_and_batch(config)
  apply = lambda train: moe_lstm.Model(config).apply(
    {"params": params}, batch, train=train, rngs={"dropout": jax.random.key(0)}, mutable=["figures"]
  )[1]["figures"]["encoder_mixture"]
  assert 0.5 < float(apply(True)["expert_dropped"][0]) < 1 and float(apply(False)["expert_dropped"][0]) == 0
  assert float(apply(True)["expert_load"][0]) >= 1


def test_training_uses_every_expert():
  """All tokens begin with the same two experts; the balance makes that end."""
  config = dataclasses.replace(moe_lstm.small(), balance=0.1, group_rows=4)
  params, batch = params_and_batch(config)
  for name in ("encoder_mixture", "decoder_mixture"):
    params[name] |= {"gate_DE": jnp.zeros((8, 4)).at[:, :2].set(jnp.sign(params[name]["gate_DE"][:, :1]))}
    params[name] |= {"noise_DE": jnp.zeros((8, 4))}

  def loss(params, key):
    logits, sown = moe_lstm.Model(config).apply(
      {"params": params}, batch, train=True, rngs={"dropout": key}, mutable=["losses", "figures"]
    )
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"])
    figures = [sown["figures"][f"{side}_mixture"]["expert_load"][0] for side in ("encoder", "decoder")]
    return (nll * (batch["target_segments"] > 0)).mean() + sum(jax.tree.leaves(sown["losses"])), jnp.stack(figures)

  optimizer = optax.adam(0.02)

  @jax.jit
  def train(params):
    def step(carry, key):
      params, state = carry
      gradients, loads = jax.grad(loss, has_aux=True)(params, key)
      updates, state = optimizer.update(gradients, state)
      return (optax.apply_updates(params, updates), state), loads

    return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(jax.random.key(0), 80))

  _, loads = train(params)
  # 2 where two of four experts get all tokens, 1 where all are used alike.
  assert loads[0].max() > 1.5 and loads[-10:].mean() < 1.3


def test_the_papers_mixtures_have_most_parameters():
  """8.7 billion (from memory), of which two mixtures of 2,048 experts with 2 million each are 8.6."""
  count = moe_lstm.parameter_count(moe_lstm.Config(vocab_size=32_000))
  mixtures = 2 * 2048 * 2 * 512 * 2048
  assert mixtures < count < 1.03 * mixtures and count == pytest.approx(8.7e9, rel=0.02)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"num_encoder_layers": 1}, r"model\.num_encoder_layers must be at least 2, got 1"),
    ({"num_decoder_layers": 1}, r"model\.num_decoder_layers must be at least 2, got 1"),
    ({"k": 5}, r"model\.k must be at most model\.num_experts = 4, got 5"),
    ({"capacity_factor": 0.0}, r"model\.capacity_factor must be above 0"),
  ],
)
def test_bad_configs_are_told(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(moe_lstm.small(), **change)
