"""How many steps one after the other until the last position has seen the first."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from attention_zoo.ops import convolution, local, recurrent
from attention_zoo.ops.dot_product import dot_product_attention
from attention_zoo.plots.theme import LIGHT, SERIES

TITLE = "Longest path between two positions"
SOURCE = (
  "Vaswani et al. 2017, table 1, and CS224n 2019, lecture 14: O(1) for attention, O(n / r) within a window of r, "
  "O(log_k n) for dilated and O(n / k) for plain convolutions of width k, O(n) for recurrence. Measured: the layers "
  "(of the RNN: the steps) until every input has a Jacobian that is not zero at the last output, from the pattern of "
  "zeros in the Jacobian of each."
)
KERNEL, WINDOW = 3, 8
WIDTH = 4


def measure(quick):
  lengths = [3, 9, 27] if quick else [3, 9, 27, 81, 243]
  keys = jax.random.split(jax.random.key(0), 4)
  kernel = jax.random.normal(keys[0], (KERNEL, WIDTH, WIDTH))
  recurrent_FA = jax.random.normal(keys[1], (WIDTH, WIDTH))

  def attention(x, dilation):
    q = x[:, :, None]
    return dot_product_attention(q, q, q)[:, :, 0]

  def window(x, dilation):
    q = x[:, :, None]
    return local.sliding_window_attention(q, q, q, left=WINDOW)[:, :, 0]

  def convolve(x, dilation):
    return convolution.conv1d(x, kernel, dilation=dilation, padding="causal")

  def rnn(h, dilation):
    """One step of every position at a time: from the state of its left neighbour to its own."""
    before = jnp.pad(h, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    return recurrent.rnn_cell(jnp.zeros(h.shape[1:]), (before[0],), recurrent_FA)[0][None]

  # Name: the layer, by what the dilation grows from layer to layer, the claim, and the number of layers in full.
  cases = {
    "attention": (attention, 1, "O(1)", lambda n: 1),
    f"attention, window {WINDOW}": (window, 1, "O(n / r)", lambda n: math.ceil((n - 1) / WINDOW)),
    f"dilated convolution, k = {KERNEL}": (
      convolve,
      KERNEL,
      "O(log_k n)",
      lambda n: round(math.log(n, KERNEL)),
    ),
    f"convolution, k = {KERNEL}": (convolve, 1, "O(n / k)", lambda n: math.ceil((n - 1) / (KERNEL - 1))),
    "RNN": (rnn, 1, "O(n)", lambda n: n - 1),
  }
  measured = {
    name: [_layers_until_all_is_seen(layer, growth, n, keys[2]) for n in lengths]
    for name, (layer, growth, _, _) in cases.items()
  }
  rows = [
    [f"{name}, n = {n}", claimed, formula(n), measured[name][lengths.index(n)]]
    for name, (_, _, claimed, formula) in cases.items()
    for n in lengths[-2:]
  ]
  return {"rows": rows, "lengths": lengths, "measured": measured}


def draw(results):
  figure = Figure(figsize=(7, 4.4), layout="constrained")
  axes = figure.subplots()
  lengths = results["lengths"]
  for (name, layers), marker, colour in zip(results["measured"].items(), "osDv^", SERIES, strict=False):
    axes.loglog(lengths, layers, marker=marker, lw=1.5, ms=5, color=LIGHT[colour])
    axes.text(lengths[-1] * 1.12, layers[-1], name, color=LIGHT[colour], va="center")
  axes.set_xticks(lengths, map(str, lengths))
  axes.minorticks_off()
  axes.set_yticks([1, 10, 100], ["1", "10", "100"])
  axes.set(xlabel="length n", ylabel="layers or steps until the last sees the first")
  return figure


def _layers_until_all_is_seen(layer, growth, n, key):
  """Follows what the last position depends on back through as many layers as it takes."""
  x = jax.random.normal(key, (1, n, WIDTH))

  @functools.cache
  def depends(dilation):
    jacobian = jax.jacobian(lambda x: layer(x, dilation).sum(-1)[0])(x)
    return np.asarray(jnp.abs(jacobian).sum((1, 3)) > 0)

  seen, count = np.eye(n, dtype=bool)[-1:], 0
  while not seen.all():
    # What a position saw before stays in sight where the layer, as the RNN's step, hands on new things alone.
    seen = seen | seen @ depends(growth**count)
    count += 1
  return count
