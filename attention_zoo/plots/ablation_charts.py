"""Charts of an ablation grid: one change at a time, the paper's curve beside ours, and the order of the rows.

Scales differ (a small model on a small corpus against the paper's), so values are drawn against each grid's
own base. All functions take the rows that `ablation.compare` returns.
"""

import math
from typing import NamedTuple

from matplotlib import figure, lines, ticker

from attention_zoo.plots import theme


class Metric(NamedTuple):
  """A figure by which the rows are compared.

  key: its name in the rows. name: as it stands in a sentence. digits: behind the point. lower: whether lower is better.
  per_cent: whether a change is shown as a part of base's value, as suits a perplexity (a change in per cent is a
  difference in nats, whatever its level), and not in its own points.
  """

  key: str
  name: str
  digits: int
  lower: bool = False
  per_cent: bool = False

  @property
  def title(self) -> str:
    return self.name[:1].upper() + self.name[1:]


# Prefix of the row's name, title of the chart, the paper's base value.
FACTORS = (
  ("a_heads", "A · heads h", 8),
  ("b_dk", "B · key size d_k", 64),
  ("c_layers", "C · layers N", 6),
  ("c_dmodel", "C · width d_model", 512),
  ("c_dff", "C · inner width d_ff", 2048),
  ("d_dropout", "D · dropout", 0.1),
  ("d_smoothing", "D · label smoothing", 0.1),
  ("e_", "E · positions", "sinusoidal"),
)
# Name, prefix of the keys, style.
SIDES = (
  (
    "paper",
    "paper_",
    {"color": theme.LIGHT["muted"], "linestyle": "--", "markerfacecolor": theme.LIGHT["paper"]},
  ),
  ("ours", "", {"color": theme.LIGHT["blue"], "linestyle": "-"}),
)
LINE = {"linewidth": 1.6, "marker": "o", "markersize": 4.5}
GROUP_COLOURS = dict(zip("ABCDE", theme.SERIES, strict=False))


def factor_points(rows, prefix, base_value):
  """[(label, row)] of one factor with base among them, in the order of the paper's values."""
  base = next((row for row in rows if row["row"] == "base"), None)
  own = [row for row in rows if row["row"].startswith(prefix)]
  if not own or base is None:
    return []
  points = [(base_value, base.get("values", {}).get(prefix, base_value), base)]
  points += [(row.get("paper_value", row.get("value")), row.get("value"), row) for row in own]
  numeric = all(isinstance(paper, (int, float)) for paper, _, _ in points)
  points.sort(key=lambda point: point[0] if numeric else 0)
  return [(str(ours) if ours == paper else f"{ours}\n{paper}", row) for paper, ours, row in points]


def _relative(metric, value, base):
  if value is None or base is None:
    return math.nan
  return 100 * (value / base - 1) if metric.per_cent else value - base


def _panel(axes, points, metric, base):
  for _, prefix, style in SIDES:
    key = prefix + metric.key
    values = [_relative(metric, row[key], base[key]) for _, row in points]
    there = [(x, y) for x, y in enumerate(values) if not math.isnan(y)]
    if there:
      axes.plot(*zip(*there, strict=True), **LINE, **style)
    for x, (_, row) in enumerate(points):
      if not prefix and row[f"{metric.key}_spread"] is not None:
        ends = [_relative(metric, value, base[key]) for value in row[f"{metric.key}_range"]]
        axes.plot([x, x], ends, color=style["color"], linewidth=5, alpha=0.35)
      if not prefix and math.isnan(values[x]):
        # On the axis itself, where no point of the paper's can be.
        place = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "center"}
        axes.text(x, 0, "×", color=theme.LIGHT["orange"], fontsize=12, **place)
  axes.axhline(0, color=theme.LIGHT["muted"], linewidth=0.8, zorder=1)
  axes.set_xlim(-0.4, len(points) - 0.6)
  axes.set_xticks(range(len(points)), [label for label, _ in points])
  axes.grid(False, axis="x")
  axes.margins(y=0.12)
  low, high = axes.get_ylim()
  if high - low < 0.02:  # no difference at all, but for rounding
    axes.set_ylim(-0.1, 0.1)
  axes.yaxis.set_major_locator(ticker.MaxNLocator(4, min_n_ticks=3, steps=[1, 2, 5, 10]))
  axes.yaxis.set_major_formatter(
    ticker.FuncFormatter(lambda v, _: f"{v:+.3g}".replace("-", "−") if v else "0")
  )
  axes.set_ylabel(f"{metric.name}, {'%' if metric.per_cent else 'points'}", fontsize=8)


def _factor(fig, title, points, metrics):
  """The metrics below each other for one factor, into a figure or a part of one."""
  base = next(row for _, row in points if row["row"] == "base")
  for axes, metric in zip(fig.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0], metrics, strict=True):
    _panel(axes, points, metric, base)
  fig.suptitle(title, x=0.02, ha="left", fontsize=10, fontweight="bold")
  fig.align_ylabels()


def _found(rows):
  factors = ((title, factor_points(rows, prefix, base_value)) for prefix, title, base_value in FACTORS)
  return [(title, points) for title, points in factors if points]


@theme.styled
def factor_figures(rows, metrics):
  """[(label, figure)]: one small figure a factor."""
  figures = []
  for title, points in _found(rows):
    fig = figure.Figure(figsize=(2.8, 1.65 * len(metrics)), layout="constrained")
    _factor(fig, title, points, metrics)
    names = " and ".join(m.name for m in metrics)
    figures.append((f"{title}: {names} against base, ours and the paper's", fig))
  return figures


def _ranks(axes, rows, metric):
  """The paper's order on the left, ours on the right, best on top, a line for each row."""
  key, sign = metric.key, 1 if metric.lower else -1
  places = []
  for side, other in ((f"paper_{key}", key), (key, f"paper_{key}")):
    # Rows that tie on one side keep the other side's order, so that no line crosses without cause.
    order = sorted(rows, key=lambda row: (sign * row[side], sign * row[other]))
    places.append({row["row"]: place for place, row in enumerate(order)})
  for row in rows:
    colour = theme.LIGHT[GROUP_COLOURS.get(str(row.get("group")), "ink")]
    left, right = (side[row["row"]] for side in places)
    axes.plot([0, 1], [left, right], color=colour, linewidth=1.7, marker="o", markersize=4, alpha=0.9)
    name = theme.drawable(row["row"])
    axes.text(
      -0.05,
      left,
      f"{name}  {row[f'paper_{key}']:.{metric.digits}f}",
      ha="right",
      va="center",
      color=colour,
      fontsize=8,
    )
    axes.text(
      1.05, right, f"{row[key]:.{metric.digits}f}  {name}", ha="left", va="center", color=colour, fontsize=8
    )
  axes.set_axis_off()
  axes.set_xlim(-1.05, 2.05)
  axes.set_ylim(len(rows) - 0.4, -1.6)
  for x, side in ((0, "paper"), (1, "ours")):
    axes.text(x, -1, side, ha="center", va="center", color=theme.LIGHT["muted"], fontsize=9)
  axes.set_title(f"{metric.title}, {'lowest' if metric.lower else 'highest'} on top", loc="center")


def _both(rows, metric):
  return [row for row in rows if row[metric.key] is not None and row[f"paper_{metric.key}"] is not None]


@theme.styled
def rank_figures(rows, metrics):
  """[(label, figure)] for each metric: the order of the rows that ran beside the paper's; two at least."""
  figures = []
  for metric in metrics:
    ran = _both(rows, metric)
    if len(ran) > 1:
      fig = figure.Figure(figsize=(4.6, 0.21 * len(ran) + 0.8), layout="constrained")
      _ranks(fig.subplots(), ran, metric)
      figures.append((f"order of the rows by {metric.name}, the paper's beside ours", fig))
  return figures


@theme.styled
def grid_figure(rows, metrics, title=""):
  """Everything in one figure, for the PNG: the factors, four a row, and below them the orders."""
  factors, ranked = _found(rows), [m for m in metrics if len(_both(rows, m)) > 1]
  height = (
    math.ceil(len(factors) / 4) * 1.75 * len(metrics),
    (0.21 * max(len(_both(rows, m)) for m in ranked) + 0.8) if ranked else 0,
  )
  fig = figure.Figure(figsize=(12.6, max(sum(height), 1)), layout="constrained")
  if not factors and not ranked:
    fig.text(0.5, 0.5, "No row ran.", ha="center", va="center")
    return fig
  parts = iter(
    fig.subfigures(sum(h > 0 for h in height), 1, squeeze=False, height_ratios=[h for h in height if h])[:, 0]
  )
  if factors:
    handles = [lines.Line2D([], [], label=name, **LINE, **style) for name, _, style in SIDES]
    fig.legend(handles=handles, loc="outside upper right", ncols=2)
    fig.suptitle(theme.drawable(title), x=0.01, ha="left", fontsize=9, color=theme.LIGHT["muted"])
    grid = next(parts).subfigures(math.ceil(len(factors) / 4), 4, squeeze=False)
    for part, (title, points) in zip(grid.flat, factors, strict=False):
      _factor(part, title, points, metrics)
  if ranked:
    grid = next(parts).subplots(1, len(ranked), squeeze=False)
    for axes, metric in zip(grid.flat, ranked, strict=True):
      _ranks(axes, _both(rows, metric), metric)
  return fig
