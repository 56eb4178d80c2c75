"""Music Transformer's skewing in four steps, drawn (Huang et al. 2018, figure 1).

Q E^T has a column for each distance; the attention needs one for each key. Pad a column on the left, read the numbers
row by row as an array with one row more, leave out the first row: row t has moved L - 1 - t places to the left.
"""

import numpy as np
from matplotlib import figure, patches

from attention_zoo.plots import theme


def steps(L: int):
  """[(title, names of rows, names of columns, cells)]: a cell is (query, distance), or None for padding."""
  by_distance = [[(t, r - L + 1) for r in range(L)] for t in range(L)]
  padded = [[None, *row] for row in by_distance]
  flat = [cell for row in padded for cell in row]
  reshaped = [flat[i * L : (i + 1) * L] for i in range(L + 1)]
  queries = [f"q{t}" for t in range(L)]
  return [
    ("1. multiply: Q Eᵀ", queries, [str(r - L + 1) for r in range(L)], by_distance),
    ("2. pad a column on the left", queries, ["pad", *(str(r - L + 1) for r in range(L))], padded),
    ("3. reshape to L + 1 rows of L", [""] * (L + 1), [""] * L, reshaped),
    ("4. leave out the first row", queries, [f"k{s}" for s in range(L)], reshaped[1:]),
  ]


@theme.styled
def skewing_figure(L: int = 5):
  """A matplotlib figure. Each query has a colour, the darker the nearer the key; what is hatched is never looked at:
  in the first step distances to before the beginning, in the last one keys in the future."""
  fig = figure.Figure(figsize=(12, 3.4), layout="constrained")
  for axes, (title, rows, columns, cells) in zip(fig.subplots(1, 4), steps(L), strict=True):
    for i, row in enumerate(cells):
      for j, cell in enumerate(row):
        _draw_cell(axes, i, j, cell, L)
    axes.set_xlim(0, len(columns)), axes.set_ylim(len(rows), 0), axes.set_aspect("equal"), axes.grid(False)
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns), axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.set_title(title, fontsize=9)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
      spine.set_visible(False)
  return fig


def _draw_cell(axes, i, j, cell, L):
  if cell is None:
    axes.add_patch(patches.Rectangle((j, i), 1, 1, facecolor=theme.LIGHT["panel"], edgecolor=theme.LIGHT["rule"]))
    axes.text(j + 0.5, i + 0.5, "0", ha="center", va="center", color=theme.LIGHT["muted"], fontsize=8)
    return
  query, distance = cell
  colour = theme.LIGHT[theme.SERIES[query % len(theme.SERIES)]]
  is_used = query + distance >= 0
  alpha = 0.25 + 0.6 * (1 + distance / L) if is_used else 0.08
  axes.add_patch(patches.Rectangle((j, i), 1, 1, facecolor=colour, alpha=alpha, lw=0))
  hatch = None if is_used else "////"
  edge = theme.LIGHT["rule"]
  axes.add_patch(patches.Rectangle((j, i), 1, 1, fill=False, edgecolor=edge, hatch=hatch, lw=0.8))
  axes.text(j + 0.5, i + 0.5, f"{query},{distance}".replace("-", "−"), ha="center", va="center", fontsize=7)
