"""Why the dot product is divided by sqrt(d_k): without it the softmax saturates and its gradient dies."""

import functools
import math

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from attention_zoo.ops.dot_product import dot, masked_softmax, scaled_dot
from attention_zoo.plots.theme import LIGHT

TITLE = "Saturation of the softmax without 1 / sqrt(d_k)"
SOURCE = (
  "Vaswani et al. 2017, section 3.2.1, and EECS498, lecture 13: dot products grow as sqrt(d_k) (a vector of entries a "
  "has length a sqrt(D)), so that the softmax saturates and its gradient vanishes. Queries and keys are standard "
  "normal, 64 keys. Analytic: the standard deviation sqrt(d_k) of the logits; with the scale an entropy of about "
  "ln 64 - 1/2 at any d_k, without it 0 in the limit. Gradient: the length of J g, J the Jacobian of the softmax and "
  "g a random direction of length 1."
)
KEYS, QUERIES = 64, 128


def measure(quick):
  depths = [4, 64] if quick else [1, 4, 16, 64, 256, 1024, 4096]
  curves = {name: [_statistics(similarity, d) for d in depths] for name, similarity in
            (("scaled", scaled_dot), ("not scaled", dot))}  # fmt: skip
  vector = float(jnp.linalg.norm(jnp.full(512, 3.0)))
  rows = [["length of 512 entries of 3", "a sqrt(D)", 3 * math.sqrt(512), vector]]
  for d in (4, 64) if quick else (64, 512, 4096):
    plain, scaled = (_statistics(similarity, d) for similarity in (dot, scaled_dot))
    rows += [
      [f"standard deviation of q k, d_k = {d}", "sqrt(d_k)", math.sqrt(d), plain["deviation"]],
      [f"entropy, d_k = {d}, scaled", None, math.log(KEYS) - 0.5, scaled["entropy"]],
      [f"entropy, d_k = {d}, not scaled", "saturates", "0 in the limit", plain["entropy"]],
      [
        f"gradient without the scale / with it, d_k = {d}",
        "vanishes",
        None,
        plain["gradient"] / scaled["gradient"],
      ],
    ]
  return {"rows": rows, "depths": depths, "curves": curves}


def draw(results):
  figure = Figure(figsize=(10, 3.8), layout="constrained")
  axes = figure.subplots(1, 2)
  for axis, quantity, label in zip(
    axes, ("entropy", "gradient"), ("entropy of the weights (nats)", "length of the gradient through the softmax"),
    strict=True,
  ):  # fmt: skip
    for (name, points), color in zip(
      results["curves"].items(), (LIGHT["blue"], LIGHT["orange"]), strict=True
    ):
      axis.semilogx(
        results["depths"], [point[quantity] for point in points], "o-", base=4, color=color, label=name
      )
    axis.set(xlabel="d_k", ylabel=label, ylim=(0, None))
    axis.set_xticks(results["depths"], map(str, results["depths"]))
    axis.minorticks_off()
  axes[0].axhline(math.log(KEYS) - 0.5, color=LIGHT["muted"], ls="--", lw=1, zorder=0)
  axes[0].text(
    results["depths"][-1],
    math.log(KEYS) - 0.5,
    f"ln {KEYS} - 1/2",
    color=LIGHT["muted"],
    ha="right",
    va="top",
  )
  axes[1].legend()
  return figure


@functools.lru_cache
def _statistics(similarity, d):
  keys = jax.random.split(jax.random.key(d), 3)
  q_BTNK = jax.random.normal(keys[0], (1, QUERIES, 1, d))
  k_BSNK = jax.random.normal(keys[1], (1, KEYS * QUERIES, 1, d)).reshape(QUERIES, KEYS, 1, d)
  logits = similarity(q_BTNK.swapaxes(0, 1), k_BSNK)
  direction = jax.random.normal(keys[2], logits.shape)
  direction /= jnp.linalg.norm(direction, axis=-1, keepdims=True)
  weights, through = jax.jvp(masked_softmax, (logits,), (direction,))
  return {
    "deviation": float(logits.std()),
    "entropy": float(jax.scipy.special.entr(weights).sum(-1).mean()),
    "gradient": float(jnp.linalg.norm(through, axis=-1).mean()),
  }
