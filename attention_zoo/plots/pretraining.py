"""What each position of a pretrained model sees, drawn: after figure 3 of Devlin et al. 2018."""

import io
from typing import NamedTuple

import matplotlib
from matplotlib import figure, patches

from attention_zoo.plots import theme

POSITIONS = 4
_HEIGHT = 1.4  # between two rows


class Model(NamedTuple):
  """sees: "all", "left" or "both ways" (two stacks that meet at the end). note: a line below."""

  name: str
  layers: int
  sees: str
  note: str


def edges(sees: str) -> list[tuple[int, int]]:
  """(from, to): which position of a layer looks at which of the one below, of one stack."""
  seen = {"all": lambda i, j: True, "left": lambda i, j: i <= j}[sees]
  return [(i, j) for j in range(POSITIONS) for i in range(POSITIONS) if seen(i, j)]


@theme.styled
def comparison_figure(models):
  """A matplotlib figure with a panel for each model. Two layers are drawn, whatever their number."""
  fig = figure.Figure(figsize=(4.2 * len(models), 4.4), layout="constrained")
  for number, (axes, model) in enumerate(zip(fig.subplots(1, len(models)), models, strict=True)):
    colour = theme.LIGHT[theme.SERIES[number % len(theme.SERIES)]]
    _row(axes, 0, "E", theme.LIGHT["panel"])
    if model.sees == "both ways":
      for shift, step in ((-0.22, 1), (0.22, -1)):
        for row in (1, 2):
          for i in range(POSITIONS):
            _arrow(axes, (i if row == 1 else i + shift, row - 1), (i + shift, row))
            if 0 <= i + step < POSITIONS:
              _arrow(axes, (i + shift, row), (i + step + shift, row), side=True)
          _row(axes, row, "", colour, shift, 0.17)
      for i in range(POSITIONS):
        for shift in (-0.22, 0.22):
          _arrow(axes, (i + shift, 2), (i, 3))
    else:
      for row in (1, 2):
        for i, j in edges(model.sees):
          _arrow(axes, (i, row - 1), (j, row))
        _row(axes, row, "", colour)
      for i in range(POSITIONS):
        _arrow(axes, (i, 2), (i, 3))
    _row(axes, 3, "T", theme.LIGHT["panel"])
    axes.set_title(f"{model.name}: {model.layers} layers", fontsize=11)
    axes.text((POSITIONS - 1) / 2, -0.85, model.note, ha="center", va="top", fontsize=8)
    axes.set_xlim(-0.6, POSITIONS - 0.4), axes.set_ylim(-1.4, 3 * _HEIGHT + 0.6), axes.axis("off")
  return fig


def _row(axes, row, letter, colour, shift=0.0, size=0.26):
  for i in range(POSITIONS):
    centre = (i + shift, row * _HEIGHT)
    axes.add_patch(patches.Circle(centre, size, facecolor=colour, edgecolor=theme.LIGHT["rule"], zorder=2))
    if letter:
      axes.text(*centre, f"{letter}{i + 1}", ha="center", va="center", fontsize=8, zorder=3)


def _arrow(axes, start, end, side=False):
  (x, y), (u, v) = start, end
  gap = 0.18 if side else 0.3
  at, to = ((x + (gap if u > x else -gap), y * _HEIGHT), (u - (gap if u > x else -gap), v * _HEIGHT)) if side else (
    (x, y * _HEIGHT + gap), (u, v * _HEIGHT - gap)
  )  # fmt: skip
  style = dict(arrowstyle="-|>", color=theme.LIGHT["muted"], lw=0.7, shrinkA=0, shrinkB=0)
  axes.annotate("", to, at, arrowprops=style, zorder=1)


def svg(fig) -> str:
  """The figure as a file."""
  content = io.StringIO()
  with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "attention_zoo"}):
    fig.savefig(content, format="svg", metadata={"Date": None})
  return content.getvalue()
