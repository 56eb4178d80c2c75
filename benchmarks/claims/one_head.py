"""Who did what to whom: one head averages, three heads or a convolution tell the words apart."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from attention_zoo.ops.convolution import conv1d
from attention_zoo.ops.dot_product import attend
from attention_zoo.plots.theme import LIGHT

TITLE = "Who did what to whom: heads against convolution"
SOURCE = (
  "CS224n 2019, lecture 14: a convolution applies another linear map at every relative position, a head of attention "
  "only one, to an average; parallel heads do what the convolution does. Task: sentences of random words; every "
  "position is to name the word before it (who), its own (did what) and the one behind it (to whom). Analytic: the "
  "three maps wanted are orthogonal and of one size, so that h heads, h maps, leave 1 - h / 3 of the variance."
)
WORDS, LENGTH, BATCH = 10, 12, 128


def measure(quick):
  steps = 30 if quick else 600
  models = {f"{heads} head{'s' * (heads > 1)}": _attention(heads) for heads in (1, 2, 3)}
  models["convolution, width 3"] = _convolution()
  claimed = {"1 head": "fails", "3 heads": "solves it", "convolution, width 3": "solves it"}
  rows, curves, maps = [], {}, {}
  for name, (init, apply) in models.items():
    params, curve, accuracy = _train(init, apply, steps)
    left = max(0.0, 1 - int(name[0]) / 3) if "head" in name else 0.0
    rows.append([f"{name}: variance left", claimed.get(name), left, float(np.mean(curve[-10:]))])
    rows.append(
      [f"{name}: who, did what, to whom right", None, None, ", ".join(f"{share:.0%}" for share in accuracy)]
    )
    curves[name] = [float(error) for error in curve]
    if "head" in name:
      maps[name] = jax.nn.softmax(params["where"], axis=-1).tolist()
  return {"rows": rows, "curves": curves, "maps": maps}


def draw(results):
  figure = Figure(figsize=(10, 4), layout="constrained")
  (left, right) = figure.subplots(1, 2, width_ratios=(3, 2))
  for (name, curve), color in zip(
    results["curves"].items(), (LIGHT["orange"], LIGHT["gold"], LIGHT["blue"], LIGHT["green"]), strict=True
  ):
    left.plot(curve, lw=1.4, color=color, label=name)
  for share in (1 / 3, 2 / 3):
    left.axhline(share, color=LIGHT["rule"], lw=1, zorder=0)
  left.set(xlabel="training step", ylabel="variance left", ylim=(0, 1.2))
  left.legend()
  heads = np.concatenate([np.array(weights) for weights in results["maps"].values()])
  names = [f"{name}, #{i + 1}" for name, weights in results["maps"].items() for i in range(len(weights))]
  picture = right.imshow(heads, cmap="Blues", vmin=0, vmax=1, aspect="auto")
  right.set_yticks(range(len(names)), names)
  right.set_xticks(range(5), ["-2", "who\n-1", "did what\n0", "to whom\n+1", "+2"])
  right.set_title("where the heads look", fontsize="medium")
  right.tick_params(length=0)
  right.grid(False)
  figure.colorbar(picture, ax=right, label="weight")
  return figure


def _attention(heads):
  """Heads that choose by relative position, with a value and an output map each: the slide's attention layer."""
  offsets = np.arange(LENGTH)[None] - np.arange(LENGTH)[:, None]
  near = np.abs(offsets) <= 2

  def init(key):
    keys = jax.random.split(key, 3)
    return {
      "where": jax.random.normal(keys[0], (heads, 5)),
      "value": jax.random.normal(keys[1], (heads, WORDS, WORDS)) / WORDS**0.5,
      "output": jax.random.normal(keys[2], (heads, WORDS, 3 * WORDS)) / WORDS**0.5,
    }

  def apply(params, x):
    logits = params["where"][:, np.clip(offsets + 2, 0, 4)][None]
    heads_out = attend(
      logits, jnp.einsum("BSD,NDH->BSNH", x, params["value"]), mask=jnp.asarray(near)[None, None]
    )
    return jnp.einsum("BTNH,NHF->BTF", heads_out, params["output"])

  return init, apply


def _convolution():
  def init(key):
    return {"kernel": jax.random.normal(key, (3, WORDS, 3 * WORDS)) / (3 * WORDS) ** 0.5}

  return init, lambda params, x: conv1d(x, params["kernel"])


def _train(init, apply, steps):
  """Least squares with Adam. Returns the parameters, the variance left at each step, and the accuracy by role."""
  optimizer = optax.adam(optax.cosine_decay_schedule(0.05, steps))

  def batch(key):
    words = jax.random.randint(key, (BATCH, LENGTH), 0, WORDS)
    x = jax.nn.one_hot(words, WORDS) - 1 / WORDS
    return words, x, jnp.concatenate([x[:, :-2], x[:, 1:-1], x[:, 2:]], axis=-1)

  def variance_left(params, key):
    words, x, target = batch(key)
    guess = apply(params, x)[:, 1:-1]
    accuracy = (guess.reshape(*guess.shape[:2], 3, WORDS).argmax(-1) == _roles(words)).mean((0, 1))
    return jnp.sum((guess - target) ** 2) / jnp.sum(target**2), accuracy

  @jax.jit
  def train(params):
    def step(state, key):
      params, moments = state
      (left, _), gradients = jax.value_and_grad(variance_left, has_aux=True)(params, key)
      updates, moments = optimizer.update(gradients, moments)
      return (optax.apply_updates(params, updates), moments), left

    (params, _), curve = jax.lax.scan(
      step, (params, optimizer.init(params)), jax.random.split(jax.random.key(1), steps)
    )
    return params, curve, variance_left(params, jax.random.key(2))[1]

  return train(init(jax.random.key(0)))


def _roles(words):
  return jnp.stack([words[:, :-2], words[:, 1:-1], words[:, 2:]], axis=-1)
