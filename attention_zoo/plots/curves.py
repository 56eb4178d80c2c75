"""Learning curves from rows of metrics: train and held-out, one run or several laid over each other."""

import math
import numbers
import re

from matplotlib import figure, ticker

from attention_zoo.plots import theme

METRICS = ("loss", "perplexity", "learning_rate", "tokens_per_second")
MAX_POINTS = 400


def series(rows, metric):
  """Split name -> (steps, values) of one metric, by step.

  rows: dicts with "step" and numbers, as metrics.jsonl holds them. The key `loss` is the training split, and
  `SPLIT_loss` or `SPLIT/loss` any other. A step that a resumed run logged twice counts once, as last logged;
  values that are no finite number are left out.
  """
  found = {}
  for row in rows:
    for key, value in row.items():
      match = re.fullmatch(rf"(?:(\w+)[_/])?{re.escape(metric)}", key)
      if match and isinstance(value, numbers.Real) and math.isfinite(value):
        found.setdefault(match[1] or "train", {})[row["step"]] = float(value)
  return {split: tuple(zip(*sorted(points.items()), strict=True)) for split, points in found.items()}


def thin(steps, values, points=MAX_POINTS):
  """At most about `points` of them: means over runs of neighbours, which also steadies a noisy curve."""
  size = math.ceil(len(steps) / points)

  def means(numbers):
    parts = (numbers[i : i + size] for i in range(0, len(numbers), size))
    return [sum(part) / len(part) for part in parts]

  return means(steps), means(values)


def _number_axis(axis, highest, name=""):
  """Ticks in one unit for the whole axis; a unit that a letter cannot say goes into the label."""
  unit, letter = next(((u, s) for u, s in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if highest >= 20 * u), (1, ""))
  if 0 < highest < 0.01:
    unit, name = 1e-3, "×10⁻³"
  axis.set_major_formatter(
    ticker.FuncFormatter(lambda value, _: f"{value / unit:,.10g}{letter if value else ''}")
  )
  axis.set_label_text(name)


def has_metric(runs, metric):
  return any(series(rows, metric) for rows in as_runs(runs).values())


def as_runs(runs):
  return runs if isinstance(runs, dict) else {"": runs}


@theme.styled
def curves_figure(runs, metrics=None, title=""):
  """One panel a metric, over steps.

  runs: rows of one run, or a dict of run name -> rows. metrics: names; by default METRICS, those the rows
  hold. One run: a colour for each split. Several: a colour for each run, training thin and held-out splits
  strong. Raises ValueError where there is nothing to draw.
  """
  runs = as_runs(runs)
  metrics = [m for m in metrics or METRICS if has_metric(runs, m)]
  if not metrics:
    raise ValueError("No metrics to draw: no row has a finite number under the names asked for.")
  columns = min(2, len(metrics))
  rows = math.ceil(len(metrics) / columns)
  fig = figure.Figure(figsize=(4.6 * columns, 2.9 * rows + (0.3 if title else 0)), layout="constrained")
  grid = fig.subplots(rows, columns, squeeze=False)
  for axes, metric in zip(grid.flat, metrics, strict=False):
    _panel(axes, runs, metric)
  for axes in grid.flat[len(metrics) :]:
    axes.set_visible(False)
  if title:
    fig.suptitle(theme.drawable(title), x=0.01, ha="left", fontsize=11, fontweight="bold")
  return fig


def _panel(axes, runs, metric):
  lowest, highest = math.inf, 0
  for i, (run, rows) in enumerate(runs.items()):
    for j, (split, (steps, values)) in enumerate(series(rows, metric).items()):
      lowest, highest = min(lowest, *values), max(highest, *values)
      steps, values = thin(steps, values)
      several = len(runs) > 1
      train = split == "train"
      axes.plot(
        steps,
        values,
        color=theme.LIGHT[theme.SERIES[(i if several else j) % len(theme.SERIES)]],
        linewidth=1.0 if train and several else 1.7,
        alpha=0.55 if train and several else 1,
        linestyle="-" if j < 2 else "--",
        marker="" if train and len(steps) > 1 else "o",
        markersize=3.2 if len(steps) < 40 else 0,
        label=" " + theme.drawable(f"{run} · {split}" if several else split),  # a leading "_" would hide it
      )
  axes.set_title(metric.replace("_", " "))
  if metric == "perplexity" and highest > 20 * lowest > 0:
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
  elif lowest >= 0 and (metric == "learning_rate" or metric.endswith("_per_second")):
    axes.set_ylim(bottom=0)
  _number_axis(axes.xaxis, max(row["step"] for rows in runs.values() for row in rows), "step")
  _number_axis(axes.yaxis, highest)
  axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
  axes.margins(x=0.02)
  handles, labels = axes.get_legend_handles_labels()
  if labels != [" train"]:  # where there is nothing else, nobody asks
    axes.legend(handles, labels, loc="best")
