"""All heads of attention small, and one of them, or the mean of a layer's, large beside them: a matplotlib figure."""

import numpy as np
from matplotlib import figure

from attention_zoo.plots import theme
from attention_zoo.plots.attention import HEAT, readable
from attention_zoo.plots.attention_summary import summarize

_MOST_LABELS = 60


@theme.styled
def attention_overview(weights_LNTS, queries, keys, *, layer=-1, head=None, title="", lag=None):
  """The figure. layer, head: of the large map, counted from 0, negative ones from the end; head None: the mean.

  The small maps stand a layer a row. lag: as in `attention_summary.summarize`. Raises IndexError for a layer or head
  that there is not.
  """
  weights = np.asarray(weights_LNTS, np.float32)
  L, N, T, S = weights.shape
  layer, head = range(L)[layer], None if head is None else range(N)[head]
  words = summarize(weights, keys, lag=lag).words
  small = max(min(0.95, 7 / L, 6.5 / N), 0.3)
  labels = max(T, S) <= _MOST_LABELS
  cell = 0.25 if max(T, S) <= 30 else 0.16 if labels else 5.5 / max(T, S)
  margin = 0.3 + 0.075 * min(max(len(readable(t)) for t in (*queries, *keys)), 20) if labels else 0.4
  large = max(S * cell, 1.5) + margin + 0.9, max(T * cell, 1.5) + margin + 0.5
  left = N * (small + 0.08) + 0.5 if L * N > 1 else 0
  fig = figure.Figure(
    figsize=(left + large[0], max(large[1], L * (small + 0.08) + 0.7 if left else 0) + 0.35 * bool(title)),
    layout="constrained",
  )
  if left:
    many, one = fig.subfigures(1, 2, width_ratios=(left, large[0]))
    grid = many.subplots(L, N, squeeze=False)
    for (l, n), axes in np.ndenumerate(grid):
      _map(axes, weights[l, n])
      if l == 0:
        axes.set_title(f"{n + 1}", fontsize=8, loc="center", fontweight="normal", color=theme.LIGHT["muted"])
      if n == 0:
        axes.set_ylabel(f"{l + 1}", fontsize=8, rotation=0, ha="right", va="center", color=theme.LIGHT["muted"])
      if l == layer and head in (None, n):
        for spine in axes.spines.values():
          spine.set(color=theme.LIGHT["orange"], linewidth=1.6)
    many.supxlabel("columns: heads, rows: layers", fontsize=8, color=theme.LIGHT["muted"])
  else:
    one = fig
  axes = one.subplots()
  image = _map(axes, weights[layer].mean(0) if head is None else weights[layer, head])
  mostly = words[layer][head or 0] if head is not None or N == 1 else ""
  name = f"layer {layer + 1}, " + (
    f"mean of {N} heads" if head is None and N > 1 else f"head {(head or 0) + 1}"
  ) + f": mostly {mostly}" * bool(mostly)  # fmt: skip
  axes.set_title(theme.drawable(name), fontsize=9, fontweight="normal")
  if labels:
    text = {"fontsize": 9 if cell > 0.2 else 7, "color": theme.LIGHT["ink"]}
    axes.set_xticks(range(S), [theme.drawable(readable(t)) for t in keys], rotation=90, **text)
    axes.set_yticks(range(T), [theme.drawable(readable(t)) for t in queries], **text)
  axes.set(xlabel="looked at", ylabel="looks")
  bar = one.colorbar(image, ax=axes, fraction=0.05, shrink=0.7, aspect=20, ticks=[0, 0.5, 1])
  bar.set_label("attention weight")
  bar.outline.set_visible(False)
  if title:
    fig.suptitle(theme.drawable(title), x=0.01, ha="left", fontsize=11, fontweight="bold")
  return fig


def _map(axes, weights_TS):
  axes.grid(False)
  axes.tick_params(length=0)
  axes.set(xticks=[], yticks=[])
  for spine in axes.spines.values():
    spine.set_visible(True)
  return axes.imshow(weights_TS, cmap=HEAT, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
