"""Discretised mixture of logistics, DMOL: the likelihood of PixelCNN++ (Salimans et al. 2017, section 2.1).

A pixel of D channels, each a whole number v from 0 to 255 at the place x = v / 127.5 - 1, is drawn in three steps.
A component k has the probability w_k. Given it, channel d is logistic around a mean that goes linearly with the
channels before it, m_d + sum_{e < d} c_de x_e. The result is rounded to the nearest of the 256 places. With s_d the
scale and sigma the logistic function,

  P(v | k, channels before) = sigma((x + 1/255 - mean) / s) - sigma((x - 1/255 - mean) / s)

where the first term is 1 for v = 255 and the second is 0 for v = 0: the edges take the tails.

What a network gives for a pixel is `outputs` [..., components * outputs_per_component(D)]: for each component its
logit, D means, D logarithms of scales and D (D - 1) / 2 coefficients, which go through tanh. Ten for D = 3, three for
D = 1. Cost of each function, a pixel: time and memory O(components D^2), of `conditional` O(256 components).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

VALUES = 256
MIN_LOG_SCALE = -7.0  # of the published code; a scale is then below a quarter of the distance of two places


class Mixture(NamedTuple):
  """log_weights [..., components]; means, log_scales [..., components, D]; coefficients [..., components,
  D (D - 1) / 2] by rows of d: c_10, c_20, c_21, ... All float32."""

  log_weights: jax.Array
  means: jax.Array
  log_scales: jax.Array
  coefficients: jax.Array


def outputs_per_component(channels: int) -> int:
  return 1 + 2 * channels + channels * (channels - 1) // 2


def mixture(outputs, channels: int, *, min_log_scale=MIN_LOG_SCALE) -> Mixture:
  """The mixture that a network's outputs stand for. Logarithms of scales below min_log_scale are lifted to it.

  Raises ValueError where the last dimension is not a whole number of components.
  """
  width, D = outputs_per_component(channels), channels
  if channels < 1 or not outputs.shape[-1] or outputs.shape[-1] % width:
    raise ValueError(
      f"outputs of shape {outputs.shape} are no mixture for {channels} channels: the last dimension must be a multiple "
      f"of {width}"
    )
  parts = outputs.astype(jnp.float32).reshape(*outputs.shape[:-1], -1, width)
  return Mixture(
    log_weights=jax.nn.log_softmax(parts[..., 0], -1),
    means=parts[..., 1 : 1 + D],
    log_scales=jnp.maximum(parts[..., 1 + D : 1 + 2 * D], min_log_scale),
    coefficients=jnp.tanh(parts[..., 1 + 2 * D :]),
  )


def log_likelihoods(outputs, values, *, min_log_scale=MIN_LOG_SCALE):
  """log P(v_d | v_e, e < d) of each channel, in nats, float32 [..., D]; their sum is that of the pixel.

  outputs: see above; values: int [..., D] from 0 to 255. Exact at all scales, where the published code goes over to the
  density at the middle of a place once the difference above is below 1e-5. Raises ValueError for shapes that do not
  fit.
  """
  m = mixture(outputs, values.shape[-1], min_log_scale=min_log_scale)
  x = _place(values)[..., None, :]
  # Components share the whole pixel: what the channels before say of k is in the sum up to d.
  terms = _log_bins(values[..., None, :], _conditional_means(m, x), m.log_scales)
  joint = jax.nn.logsumexp(m.log_weights[..., None] + jnp.cumsum(terms, -1), -2)
  return jnp.diff(joint, axis=-1, prepend=0)


def conditional(outputs, values, channel: int, *, min_log_scale=MIN_LOG_SCALE):
  """log P(v | values of the channels before) of all 256 values of one channel, float32 [..., 256].

  values: int [..., D], of which those before `channel` count.
  """
  m = mixture(outputs, values.shape[-1], min_log_scale=min_log_scale)
  x = _place(values)[..., None, :]
  means = _conditional_means(m, x)
  before = _log_bins(values[..., None, :channel], means[..., :channel], m.log_scales[..., :channel]).sum(-1)
  log_weights = jax.nn.log_softmax(m.log_weights + before, -1)
  every = jnp.arange(VALUES).reshape(*(1,) * (values.ndim - 1), 1, VALUES)
  terms = _log_bins(every, means[..., channel, None], m.log_scales[..., channel, None])
  return jax.nn.logsumexp(log_weights[..., None] + terms, -2)


def sample(outputs, channels: int, rng, *, temperature=1.0, min_log_scale=MIN_LOG_SCALE):
  """Draws a pixel: int32 [..., D]. At temperature 1 with exactly the probabilities of `log_likelihoods`.

  temperature t >= 0, may be traced: components are drawn with probabilities proportional to w^(1/t), and scales are
  multiplied by t; at 0 it is the mean of the most likely component. Each channel is rounded before the next one's mean
  is made of it, as in the likelihood; the published code takes the unrounded one.
  """
  m = mixture(outputs, channels, min_log_scale=min_log_scale)
  component_rng, noise_rng = jax.random.split(rng)
  gumbel = jax.random.gumbel(component_rng, m.log_weights.shape)
  # log w / t + gumbel has its maximum where log w + t gumbel has it.
  k = jnp.argmax(m.log_weights + temperature * gumbel, -1)[..., None, None]
  means, log_scales, coefficients = (jnp.take_along_axis(part, k, -2)[..., 0, :] for part in m[1:])
  noise = jax.random.logistic(noise_rng, means.shape)
  values, places = [], []
  for d in range(channels):
    x = means[..., d] + temperature * jnp.exp(log_scales[..., d]) * noise[..., d]
    x += sum(coefficients[..., _index(d, e)] * places[e] for e in range(d))
    values.append(jnp.round(jnp.clip((x + 1) * 127.5, 0, VALUES - 1)).astype(jnp.int32))
    places.append(_place(values[-1]))
  return jnp.stack(values, -1)


def _place(values):
  return values.astype(jnp.float32) / 127.5 - 1


def _index(d, e):
  """Where c_de stands, e < d."""
  return d * (d - 1) // 2 + e


def _conditional_means(m, x):
  """[..., components, D], of places x [..., 1, D]."""
  columns = []
  for d in range(m.means.shape[-1]):
    mean = m.means[..., d]
    columns.append(mean + sum(m.coefficients[..., _index(d, e)] * x[..., e] for e in range(d)))
  return jnp.stack(columns, -1)


def _log_bins(values, means, log_scales):
  """log P(v | k) of each channel by itself; all broadcast.

  With u and l the upper and the lower edge: sigma(u) - sigma(l) = sigma(u) sigma(-l) (1 - exp(l - u)), whose three
  logarithms lose no digits, however small the difference is.
  """
  centre = _place(values) - means
  inverse = jnp.exp(-log_scales)
  upper, lower = inverse * (centre + 1 / 255), inverse * (centre - 1 / 255)
  log_width = math.log(2 / 255) - log_scales  # of u - l
  wide = log_width > -4
  log_gap = jnp.where(
    wide,
    jnp.log(-jnp.expm1(-jnp.exp(jnp.where(wide, log_width, 0)))),
    log_width - jnp.exp(jnp.minimum(log_width, -4)) / 2,  # log((1 - exp(-w)) / w) = -w / 2 + w^2 / 24 ...
  )
  log_below, log_above = jax.nn.log_sigmoid(upper), jax.nn.log_sigmoid(-lower)
  inside = log_below + log_above + log_gap
  return jnp.where(values <= 0, log_below, jnp.where(values >= VALUES - 1, log_above, inside))
