"""The discretised mixture of logistics against the paper's equations in float64, value by value."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops import dmol
from tests.ops.against import assert_close, assert_same_on_eight_devices, normal

# Compiled once for each shape.
log_likelihoods = jax.jit(dmol.log_likelihoods)
value_and_gradient = jax.jit(jax.value_and_grad(lambda outputs, values: dmol.log_likelihoods(outputs, values).sum()))
sample = jax.jit(dmol.sample, static_argnums=1)


def sigmoid(x):
  return np.where(x > 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def bin_probability(value, mean, scale):
  """Equation 2 of the paper. Both ends are mirrored where the difference of two numbers near 1 would lose digits."""
  x = value / 127.5 - 1
  upper = np.inf if value == 255 else (x + 1 / 255 - mean) / scale
  lower = -np.inf if value == 0 else (x - 1 / 255 - mean) / scale
  return sigmoid(upper) - sigmoid(lower) if lower < 0 else sigmoid(-lower) - sigmoid(-upper)


def oracle(outputs, values):
  """log P of one pixel, channel by channel, from one row of outputs."""
  D = len(values)
  parts = outputs.reshape(-1, dmol.outputs_per_component(D))
  weights = np.exp(parts[:, 0]) / np.exp(parts[:, 0]).sum()
  x = values / 127.5 - 1
  joint, found = weights, []
  for d in range(D):
    terms = []
    for part in parts:
      c = np.tanh(part[1 + 2 * D + d * (d - 1) // 2 :][:d])
      terms.append(bin_probability(values[d], part[1 + d] + c @ x[:d], np.exp(max(part[1 + D + d], -7))))
    now = joint * np.array(terms)
    found.append(np.log(now.sum() / joint.sum()))
    joint = now
  return np.array(found)


def draw(rows, channels, components=3, seed=0):
  (outputs,) = normal(seed, (rows, components * dmol.outputs_per_component(channels)))
  outputs = outputs.reshape(rows, components, -1)
  outputs[..., 1 + channels : 1 + 2 * channels] -= 2
  values = np.random.default_rng(seed).integers(0, 256, (rows, channels))
  values[0], values[1] = 0, 255
  return outputs.reshape(rows, -1), values


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_have_the_papers_likelihood(channels):
  outputs, values = draw(12, channels)
  found = log_likelihoods(jnp.asarray(outputs, jnp.float32), jnp.asarray(values))
  assert found.dtype == jnp.float32
  assert_close(found, np.stack([oracle(*row) for row in zip(outputs, values, strict=True)]), 2e-5)


@pytest.mark.parametrize(
  ("value", "mean", "log_scale", "wanted"),
  [
    (128, 0.0, 0.0, 0.00196077),  # sigma(2/255) - 1/2 = 2/255 / 4 - (2/255)^3 / 48
    (255, 0.0, 0.0, 0.26971315),  # all above 254/255: 1 / (1 + e^(254/255))
    (0, 0.0, 0.0, 0.26971315),
    (0, 3.0, 0.0, 0.01805561),  # all below -254/255: 1 / (1 + e^(3 + 254/255))
    (255, 1.0, -5.0, 0.64153033),  # 1 / (1 + e^(-e^5 / 255))
    (127, -1 / 255, -7.0, 0.97323995),  # tanh(e^7 / 510): a scale of a quarter of a place
  ],
)
def test_cases_by_hand(value, mean, log_scale, wanted):
  outputs = jnp.array([[0.0, mean, log_scale]])
  found = np.exp(log_likelihoods(outputs, jnp.array([[value]])))[0, 0]
  assert found == pytest.approx(wanted, rel=2e-5)


def published(value, mean, log_scale):
  """The three cases of the published code, one component, float64."""
  x, inverse = value / 127.5 - 1, np.exp(-log_scale)
  upper, lower, middle = inverse * (x - mean + 1 / 255), inverse * (x - mean - 1 / 255), inverse * (x - mean)
  if x < -0.999:
    return upper - np.logaddexp(0, upper)
  if x > 0.999:
    return -np.logaddexp(0, lower)
  difference = sigmoid(upper) - sigmoid(lower)
  if difference > 1e-5:
    return np.log(difference)
  return middle - log_scale - 2 * np.logaddexp(0, middle) - np.log(127.5)


def test_the_published_code_has_the_same_numbers():
  """Where it goes over to the density, the scale has to be wide against a place: it is an approximation there."""
  cases = [
    (v, m, s)
    for v, m, s in itertools.product((0, 1, 100, 254, 255), (-1.0, 0.1, 2.0), (-7.0, -4.0, -2.0, 0.0, 3.0, 9.0))
  ]
  outputs = jnp.array([[0.5, m, s] for _, m, s in cases])
  found = np.asarray(log_likelihoods(outputs, jnp.array([[v] for v, *_ in cases])))[:, 0]
  for (value, mean, log_scale), ours in zip(cases, found, strict=True):
    if bin_probability(value, mean, np.exp(log_scale)) > 1e-5 or log_scale >= -2 or value in (0, 255):
      assert ours == pytest.approx(published(value, mean, log_scale), rel=2e-5, abs=2e-5), (value, mean, log_scale)


@functools.partial(jax.jit, static_argnums=2)
def conditional(outputs, values, channel):
  return dmol.conditional(outputs, values, channel)


@pytest.mark.parametrize("scale", [-12.0, -6.0, -3.0, 0.0, 4.0, 30.0])
@pytest.mark.parametrize("mean", [-30.0, 0.2, 1.0])
def test_each_channels_probabilities_sum_to_one(mean, scale):
  outputs, values = draw(4, 3)
  outputs = outputs.reshape(4, 3, 10)
  outputs[..., 1:4] += mean
  outputs[..., 4:7] = scale
  outputs = jnp.asarray(outputs.reshape(4, 30), jnp.float32)
  for channel in range(3):
    found = conditional(outputs, jnp.asarray(values), channel)
    assert found.shape == (4, 256) and np.isfinite(found).all()
    assert_close(np.exp(np.asarray(found, np.float64)).sum(-1), np.ones(4), 3e-5)


def test_conditionals_are_those_of_the_likelihood():
  outputs, values = draw(5, 3, seed=4)
  outputs, values = jnp.asarray(outputs, jnp.float32), jnp.asarray(values)
  wanted = log_likelihoods(outputs, values)
  for channel in range(3):
    found = conditional(outputs, values, channel)
    at = jnp.take_along_axis(found, values[:, channel, None], 1)[:, 0]
    assert_close(at, np.asarray(wanted[:, channel], np.float64), 3e-5)
    later = values.at[:, channel:].set(7)
    np.testing.assert_array_equal(conditional(outputs, later, channel), found)


def test_a_constant_picture_costs_what_it_costs_a_categorical_with_the_same_probabilities():
  outputs = jnp.broadcast_to(jnp.array([0.3, -0.2, -4.0]), (2, 4, 4, 3))
  values = jnp.full((2, 4, 4, 1), 101)
  logits = conditional(outputs, values, 0) + 5  # a softmax does not see the 5
  nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), values, -1)
  assert_close(-log_likelihoods(outputs, values).sum(), float(nats.sum()), 1e-5)


@pytest.mark.parametrize("extreme", [-200.0, -40.0, 40.0, 90.0, 1e4])
def test_values_and_gradients_are_finite_at_all_scales(extreme):
  outputs, values = draw(6, 3, seed=2)
  for at in (slice(1, 4), slice(4, 7)):
    one = outputs.reshape(6, 3, 10).copy()
    one[..., at] = extreme
    value, gradient = value_and_gradient(jnp.asarray(one.reshape(6, 30), jnp.float32), jnp.asarray(values))
    assert np.isfinite(value) and np.isfinite(gradient).all() and np.any(gradient)


def test_gradients_are_the_oracles():
  outputs, values = draw(6, 3, seed=5)
  _, gradient = value_and_gradient(jnp.asarray(outputs, jnp.float32), jnp.asarray(values))
  direction = np.random.default_rng(1).standard_normal(outputs.shape)
  ends = [sum(oracle(*row).sum() for row in zip(outputs + e * direction, values, strict=True)) for e in (-1e-6, 1e-6)]
  assert np.sum(np.asarray(gradient, np.float64) * direction) == pytest.approx((ends[1] - ends[0]) / 2e-6, rel=1e-4)


def test_samples_have_the_probabilities():
  """Of a picture with two channels, all of whose weight lies in a few values and at the edges."""
  place = lambda v: v / 127.5 - 1
  one = np.array([0.4, place(2), place(3), -5.0, -4.6, 0.8, -0.3, place(254), place(100), -4.8, -5.0, -0.1])
  outputs = jnp.broadcast_to(jnp.asarray(one, jnp.float32), (40_000, 12))
  drawn = np.asarray(sample(outputs, 2, jax.random.key(0)))
  assert drawn.dtype == np.int32 and drawn.min() == 0 and drawn.max() == 255
  pairs, inverse, counts = np.unique(drawn, axis=0, return_inverse=True, return_counts=True)
  wanted_of_each = np.exp(np.asarray(log_likelihoods(outputs, jnp.asarray(drawn)), np.float64).sum(-1)) * len(drawn)
  wanted = np.zeros(len(pairs))
  wanted[inverse.ravel()] = wanted_of_each
  often = wanted > 20
  assert often.sum() > 20
  assert np.abs((counts[often] - wanted[often]) / np.sqrt(wanted[often])).max() < 5


def test_no_temperature_is_the_likeliest_components_mean():
  outputs = jnp.tile(jnp.array([[0.0, 0.3, 0.2, -2.0, -2.0, 0.5, 1.0, -0.4, 0.1, -1.0, -1.0, 3.0]]), (500, 1))
  cold, cool, warm = (np.asarray(sample(outputs, 2, jax.random.key(3), temperature=t)) for t in (0.0, 0.3, 1.0))
  first = round((-0.4 + 1) * 127.5)
  second = round((0.1 + np.tanh(3.0) * (first / 127.5 - 1) + 1) * 127.5)
  assert np.unique(cold, axis=0).tolist() == [[first, second]]
  assert 0 < cool[:, 0].std() < 0.5 * warm[:, 0].std()


def test_what_is_no_mixture_is_refused():
  with pytest.raises(ValueError, match=r"outputs of shape \(2, 7\) are no mixture for 3 channels.*multiple of 10"):
    dmol.mixture(jnp.zeros((2, 7)), 3)
  with pytest.raises(ValueError, match="are no mixture for 3 channels"):
    dmol.mixture(jnp.zeros((2, 0)), 3)


def test_eight_devices_give_the_same():
  outputs, values = draw(8, 3)
  arrays = [jnp.asarray(outputs, jnp.float32), jnp.asarray(values)]
  assert_same_on_eight_devices(dmol.log_likelihoods, arrays, [("all",), ("all",)], ("all",))
