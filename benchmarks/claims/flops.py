"""Attention is cheap in operations while the sequence is shorter than the layer is wide."""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from attention_zoo.ops import convolution, recurrent
from attention_zoo.ops.dot_product import dot_product_attention
from attention_zoo.plots.theme import LIGHT

TITLE = "Operations of a layer: attention, LSTM and convolution"
SOURCE = (
  'CS224n 2019, lecture 14, "Attention is cheap": length^2 dim = 4e9, length dim^2 = 16e9 (LSTM) and length dim^2 '
  "kernel = 6e9 (convolution) at length = dim = 1000, kernel 3; cheap no longer at length 3072, a 32 x 32 x 3 image. "
  "Measured: XLA's own count of the compiled layer. It counts the body of a loop once, so that the LSTM's step is "
  "compiled alone too, and counted for each further position."
)
KERNEL = 3


def measure(quick):
  d = 100 if quick else 1000
  analytic = {
    "attention": lambda n: 4 * n**2 * d,
    "LSTM": lambda n: 16 * n * d**2,
    "convolution": lambda n: 2 * KERNEL * n * d**2,
  }
  lengths = [int(d * factor) for factor in (0.05, 0.1, 0.2, 0.5, 1, 1.4, 1.6, 2, 3.072, 3.8, 4.2, 6, 10)]
  step = _count(recurrent.lstm_cell, (1, 4 * d), ((1, d), (1, d)), (d, 4 * d))
  measured = {
    "attention": [_count(dot_product_attention, *[(1, n, 1, d)] * 3) for n in lengths],
    "LSTM": [_count(_lstm, (1, n, d), (d, 4 * d), (d, 4 * d), (4 * d,)) + (n - 1) * step for n in lengths],
    "convolution": [_count(convolution.conv1d, (1, n, d), (KERNEL, d, d)) for n in lengths],
  }
  claimed = {(1000, "attention"): 4e9, (1000, "LSTM"): 16e9, (1000, "convolution"): 6e9}
  rows = [
    [f"{layer}, n = {n}, d = {d}", claimed.get((n, layer)), formula(n), measured[layer][lengths.index(n)]]
    for n in (d, int(3.072 * d))
    for layer, formula in analytic.items()
  ]
  for layer, factor in (("LSTM", 4), ("convolution", KERNEL / 2)):
    crossing = _crossing(lengths, measured["attention"], measured[layer])
    rows.append(
      [f"attention costs as much as {layer} at n =", "near d" if d == 1000 else None, factor * d, crossing]
    )
  return {"rows": rows, "d": d, "lengths": lengths, "measured": measured}


def draw(results):
  d, lengths, measured = results["d"], np.array(results["lengths"]), results["measured"]
  figure = Figure(figsize=(7, 4.4), layout="constrained")
  axes = figure.subplots()
  formulas = {"attention": 4 * lengths**2 * d, "LSTM": 16 * lengths * d**2, "convolution": 6 * lengths * d**2}
  labels = {"attention": "attention, 4 n² d", "LSTM": "LSTM, 16 n d²", "convolution": "convolution, 6 n d²"}
  for (layer, flops), color in zip(
    formulas.items(), (LIGHT["orange"], LIGHT["blue"], LIGHT["green"]), strict=True
  ):
    axes.loglog(lengths, flops, color=color, lw=1.5, label=labels[layer])
    axes.loglog(lengths, measured[layer], "o", color=color, ms=5)
  for n, name in ((1.5 * d, "1.5 d"), (4 * d, "4 d")):
    axes.axvline(n, color=LIGHT["rule"], lw=1, zorder=0)
    axes.text(n * 1.04, axes.get_ylim()[0] * 1.3, name, color=LIGHT["muted"])
  axes.set(xlabel=f"length n  (d = {d})", ylabel="floating-point operations")
  axes.legend(title="lines: formula; dots: XLA's count")
  return figure


def _lstm(*arguments):
  return recurrent.lstm(*arguments)[0]


def _count(function, *shapes):
  shapes = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
    shapes,
    is_leaf=lambda leaf: isinstance(leaf, tuple) and all(isinstance(size, int) for size in leaf),
  )
  return jax.jit(function).lower(*shapes).compile().cost_analysis()["flops"]


def _crossing(lengths, one, other):
  """Where two power laws through neighbouring points meet."""
  lead = np.log(np.array(one)) - np.log(np.array(other))
  i = int(np.flatnonzero(lead > 0)[0])
  share = -lead[i - 1] / (lead[i] - lead[i - 1])
  return float(np.exp(np.log(lengths[i - 1]) + share * np.log(lengths[i] / lengths[i - 1])))
