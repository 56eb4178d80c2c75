"""Residual connections carry the positions to the upper layers: three small translation runs."""

import tempfile

import jax
import numpy as np
from matplotlib.figure import Figure

from attention_zoo.configs import quickstart
from attention_zoo.layers.transformer import Layer
from attention_zoo.plots.theme import LIGHT
from attention_zoo.tasks.translation import Translation
from attention_zoo.training import loop

TITLE = "Residual connections carry position"
SOURCE = (
  'CS224n 2019, lecture 14, "Importance of residuals": without residual connections the encoder-decoder attention '
  "loses its diagonal; timing signals added again at every layer bring some of it back (pictures, no numbers). Three "
  "runs that differ in nothing else, post-LN, 2 + 2 layers of width 128, on the embedded phrasebook. Measured on its "
  "dev set: the weight that the last layer's encoder-decoder attention puts within one token of the diagonal, and of "
  "that parallel to it, up to four tokens aside, which has most (without residuals the encoder may move what a token "
  "says to another place); what a linear probe tells of a token's position from the encoder's last layer (R^2, on "
  "other sentences); and perplexity. Without dropout, whose noise tells tokens apart in training alone. "
  "One seed."
)
RUNS = {
  "with residuals": {},
  "without": dict(residual="none"),
  "without, timing signals at every layer": dict(residual="none", position_mode="add_every_layer"),
}
LAYERS = 2
ASIDE = range(-4, 5)  # source tokens


def measure(quick):
  runs = {name: _run(quick, options) for name, options in RUNS.items()}
  rows = [
    [f"{name}: {what}", None, None, run[key]]
    for key, what in (
      ("diagonal", "weight within one token of the diagonal"),
      ("parallel", "of the best line parallel to it"),
      ("probe", "position told by a linear probe, R^2, encoder's last layer"),
      ("perplexity", "perplexity, dev"),
    )
    for name, run in runs.items()
  ]
  rows.append(
    ["uniform attention: weight within one token of the diagonal", None, None, runs["without"]["uniform"]]
  )
  for row in rows[:9]:
    row[1] = {"with residuals": "high", "without": "lost"}.get(row[0].split(":")[0], "partly restored")
  return {"rows": rows, "runs": runs}


def draw(results):
  figure = Figure(figsize=(12, 4.4), layout="constrained")
  *maps, probes = figure.subplots(1, 4)
  for axes, (name, run) in zip(maps, results["runs"].items(), strict=True):
    axes.imshow(run["map"], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(run["source"])), run["source"], rotation=90, fontsize=7)
    axes.set_yticks(range(len(run["target"])), run["target"], fontsize=7)
    axes.grid(False)
    axes.set_title(name.replace(", ", ",\n"), fontsize=9)
  for (name, run), colour in zip(results["runs"].items(), ("blue", "orange", "green"), strict=True):
    probes.plot(
      range(len(run["probes"])), run["probes"], "o-", color=LIGHT[colour], label=name.replace(", ", ",\n")
    )
  probes.set_title("position told by a linear probe", fontsize=9)
  probes.set(xlabel="encoder layer", ylabel="R²", ylim=(0, 1.03), xticks=range(len(run["probes"])))
  probes.legend()
  return figure


def _run(quick, options):
  """Trains one model and looks at it."""
  config = quickstart.get_config()
  config.model.update(num_encoder_layers=LAYERS, num_decoder_layers=LAYERS, dropout=0.0, **options)
  config.data.update(batch_tokens=2048)
  # The paper's schedule: the quickstart's own has decayed by half of these steps.
  config.optimizer.update(schedule="inverse_sqrt", d_model=config.model.d_model, learning_rate=2.0, warmup_steps=400)
  steps = 4 if quick else 1000
  config.train.update(steps=steps, eval_every=steps, checkpoint_every=steps, log_every=max(1, steps // 10))
  with tempfile.TemporaryDirectory() as workdir:
    task = Translation(config, workdir)
    params = loop.train(task, config, workdir, quiet=quick).params
    return _look(task, jax.device_get(params))


def _look(task, params):
  is_layer = lambda module, _: isinstance(module, Layer)

  @jax.jit
  def observe(params, batch):
    _, seen = task.model.apply(
      {"params": params}, batch, mutable=["intermediates"], capture_intermediates=is_layer, method="hidden"
    )
    encoder, decoder = seen["intermediates"]["encoder"], seen["intermediates"]["decoder"]
    weights = decoder[f"layer_{LAYERS - 1}"]["cross_attention"]["weights"][0].mean(1)
    layers = [encoder[f"layer_{i}"]["__call__"][0] for i in range(LAYERS)]
    embedded, _ = task.model.apply(
      {"params": params},
      batch["source"],
      batch["source_positions"],
      "source",
      batch["source"].shape[1],
      method="embed",
    )
    return weights, [embedded, *layers], task.loss(params, {}, {}, batch, None, None).sums

  lines, uniform, count, nll = np.zeros(len(ASIDE)), 0.0, 0, np.zeros(2)
  states, places, held, example = [], [], [], None
  for batch in task.eval_batches("dev"):
    weights, layers, sums = jax.device_get(observe(params, batch))
    nll += sums["nll"]
    real = batch["source_segments"] > 0
    states.append([layer[real] for layer in layers])
    places.append(batch["source_positions"][real])
    held.append(np.broadcast_to(np.arange(len(real))[:, None] % 2 == 1, real.shape)[real])
    for row in range(len(real)):
      for segment in range(1, batch["target_segments"][row].max(initial=0) + 1):
        t, s = batch["target_segments"][row] == segment, batch["source_segments"][row] == segment
        block = weights[row][np.ix_(t, s)]
        line = np.arange(t.sum())[:, None] * (s.sum() - 1) / max(1, t.sum() - 1)
        near = [np.abs(np.arange(s.sum())[None] - line - aside) <= 1 for aside in ASIDE]
        lines += [block[which].sum() for which in near]
        uniform, count = uniform + near[ASIDE.index(0)].mean(1).sum(), count + t.sum()
        if example is None and 8 <= s.sum() <= 14 and t.sum() <= 14:
          pieces = [task.tokenizer.pieces(batch[key][row][which].tolist())
                    for key, which in (("source", s), ("targets", t))]  # fmt: skip
          example = {"map": block.tolist(), "source": pieces[0], "target": pieces[1]}
  places, held = np.concatenate(places).astype(np.float64), np.concatenate(held)
  probes = [_probe([layers[i] for layers in states], places, held) for i in range(LAYERS + 1)]
  return {
    "diagonal": float(lines[ASIDE.index(0)] / count),
    "parallel": float(lines.max() / count),
    "aside": ASIDE[int(lines.argmax())],
    "uniform": float(uniform / count),
    "perplexity": float(np.exp(nll[0] / nll[1])),
    "probe": probes[-1],
    "probes": probes,
    **example,
  }


def _probe(states, places, held):
  """R^2 of a linear map to the position, fitted on the tokens not held out and tested on those."""
  states = np.pad(np.concatenate(states).astype(np.float64), ((0, 0), (0, 1)), constant_values=1)
  fit, wanted = states[~held], places[~held]
  weights = np.linalg.solve(fit.T @ fit + 1e-3 * len(fit) * np.eye(fit.shape[1]), fit.T @ wanted)
  return float(1 - np.mean((states[held] @ weights - places[held]) ** 2) / places[held].var())
