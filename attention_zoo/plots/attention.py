"""Heat maps of attention weights with their tokens: a matplotlib figure, and a viewer in plain HTML and SVG.

Weights are softmax outputs: entry [t, s] is how much query token t takes from key token s, and each row sums
to 1. Tokens are SentencePiece pieces; the mark of a word's start is shown as a middle dot.
"""

import io
import json
import math
import unicodedata

import numpy as np
from matplotlib import colors, figure

from attention_zoo.plots import theme

HEAT = colors.LinearSegmentedColormap.from_list(
  "heat", [theme.LIGHT["paper"], "#8ab6e0", theme.LIGHT["blue"], "#0b2f57"]
)


def check_weights(weights, queries, keys):
  """Weights [..., T, S] as float64, if they are what they claim to be.

  Raises ValueError where the shape does not fit the tokens, a weight is negative or not finite, or a row does
  not sum to 1 (to 0.01: weights may come in bfloat16).
  """
  weights = np.asarray(weights, np.float64)
  if not 2 <= weights.ndim <= 4 or weights.shape[-2:] != (len(queries), len(keys)) or not weights.size:
    raise ValueError(
      f"Attention weights of shape {weights.shape} do not fit {len(queries)} query, {len(keys)} key tokens."
    )
  sums = weights.sum(-1)
  wrong = ~(np.abs(sums - 1) <= 0.01) | ~(weights >= 0).all(-1)
  if wrong.any():
    where = tuple(map(int, np.argwhere(wrong)[0]))
    raise ValueError(
      f"Row {where} of the attention weights is no distribution: it sums to {sums[where]:.4g}, not to 1."
    )
  return weights


def readable(piece):
  return piece.replace("▁", "·")


@theme.styled
def attention_figure(weights, queries, keys, title=""):
  """Heat maps as a matplotlib figure: queries down, keys across, colour from 0 to 1 in every panel.

  weights: [T, S] one head, [heads, T, S] the heads of a layer, or [layers, heads, T, S] a grid, a layer a
  row. queries, keys: the tokens as strings. Raises ValueError as `check_weights` does.
  """
  weights = check_weights(weights, queries, keys)
  if weights.ndim == 4:
    rows, columns = weights.shape[:2]
    names = [f"layer {i + 1}, head {j + 1}" for i in range(rows) for j in range(columns)]
  else:
    panels = 1 if weights.ndim == 2 else weights.shape[0]
    columns = min(panels, 4)
    rows = math.ceil(panels / columns)
    names = [f"head {j + 1}" for j in range(panels)] if weights.ndim == 3 else [""]
  weights = weights.reshape(-1, *weights.shape[-2:])

  # One panel can afford large cells; a grid shrinks to fit 36 inches, and drops labels too small to read.
  cell = min(0.24 if len(names) == 1 else 0.13, 36 / (columns * len(keys)), 36 / (rows * len(queries)))
  width, height = max(len(keys) * cell, 1.1), max(len(queries) * cell, 1.1)
  longest = max((len(t) for t in (*queries, *keys)), default=0)
  margin = 0.5 + min(longest, 24) * 0.085
  fig = figure.Figure(
    figsize=(columns * (width + 0.2) + margin + 0.7, rows * (height + 0.3) + margin), layout="constrained"
  )
  grid = fig.subplots(rows, columns, squeeze=False)
  size = min(9, cell * 72 * 0.8)
  for index, axes in enumerate(grid.flat):
    axes.grid(False)
    if index >= len(names):
      axes.set_visible(False)
      continue
    image = axes.imshow(weights[index], cmap=HEAT, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_title(names[index], fontsize=8, fontweight="normal", color=theme.LIGHT["muted"])
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
      spine.set_visible(True)
    text = {"fontsize": size, "fontfamily": "DejaVu Sans Mono", "color": theme.LIGHT["ink"]}
    axes.tick_params(length=0)
    if index + columns >= len(names) and size >= 4:
      axes.set_xticks(range(len(keys)), [theme.drawable(readable(t)) for t in keys], rotation=90, **text)
    if index % columns == 0 and size >= 4:
      axes.set_yticks(range(len(queries)), [theme.drawable(readable(t)) for t in queries], **text)
  bar = fig.colorbar(
    image, ax=grid, fraction=0.05, shrink=0.8 if rows == 1 else 0.4, aspect=22, ticks=[0, 0.5, 1]
  )
  bar.set_label("attention weight")
  bar.outline.set_visible(False)
  if title:
    fig.suptitle(theme.drawable(title), x=0.01, ha="left", fontsize=11, fontweight="bold")
  return fig


@theme.styled
def attention_png(weights, queries, keys, title=""):
  """`attention_figure` as the content of a PNG file."""
  buffer = io.BytesIO()
  attention_figure(weights, queries, keys, title).savefig(buffer, format="png", dpi=100)
  return buffer.getvalue()


CSS = """
.zoo .viewers { display: flex; flex-wrap: wrap; gap: 0 56px; }
.zoo figure.attention { margin: 18px 0 30px; width: min-content; min-width: min(100%, 430px);
    max-width: 100%; }
.zoo .attention figcaption { font-weight: 600; margin-bottom: 6px; overflow-wrap: anywhere; }
.zoo .attention form { display: flex; flex-wrap: wrap; gap: 6px 22px; margin: 0 0 8px; }
.zoo .attention fieldset { border: 0; margin: 0; padding: 0; display: flex; flex-wrap: wrap;
    align-items: center; gap: 3px; min-width: 0; }
.zoo .attention legend { float: left; margin-right: 8px; font-size: .8rem; color: var(--muted); padding: 0; }
.zoo .attention label { cursor: pointer; }
.zoo .attention input { position: absolute; opacity: 0; }
.zoo .attention label span { display: block; min-width: 30px; padding: 2px 8px; text-align: center;
    border-radius: 6px;
  background: var(--panel); font-size: .85rem; font-variant-numeric: tabular-nums; }
.zoo .attention input:checked + span { background: var(--blue); color: var(--paper); }
.zoo .attention input:focus-visible + span { outline: 2px solid var(--orange); outline-offset: 1px; }
.zoo .attention svg { display: block; max-width: none; }
.zoo .attention svg text {
    font: 13px ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace;
    fill: var(--ink); }
.zoo .attention svg text.on { font-weight: 700; fill: var(--blue); }
.zoo .attention .dot { fill: var(--orange); font-weight: 700; }
.zoo .attention .ground { fill: var(--panel); }
.zoo .attention .cells { fill: var(--blue); }
.zoo .attention .cells rect:hover { stroke: var(--orange); stroke-width: 2; }
.zoo .attention .scale { display: inline-block; width: 110px; height: 10px; margin: 0 6px;
    vertical-align: -1px;
  background: linear-gradient(90deg, var(--panel), var(--blue)); }
.zoo .attention .read { font-size: .85rem; color: var(--muted); margin: 6px 0 0; min-height: 1.6em; }
.zoo .attention output { color: var(--ink); margin-left: 14px; }
@media print {
  .zoo .viewers { display: block; }
  .zoo .attention svg { max-width: 100%; height: auto; }
  .zoo .attention label:not(:has(:checked)) { display: none; }
}
"""

# Cells and tokens are in the page, in row order; the script sets opacities and the line below the map.
SCRIPT = """
for (const figure of document.querySelectorAll("figure.attention:not([data-live])")) {
  figure.dataset.live = "";
  const all = JSON.parse(figure.querySelector("script").textContent), form = figure.querySelector("form");
  const cells = [...figure.querySelectorAll(".cells rect")], output = figure.querySelector("output");
  const queries = [...figure.querySelectorAll(".queries text")];
  const keys = [...figure.querySelectorAll(".keys text")];
  const chosen = () => all[form.elements.layer.value][form.elements.head.value];
  let last = -1;
  const read = i => {
    for (const on of figure.querySelectorAll("text.on")) on.classList.remove("on");
    last = i;
    if (i < 0) return output.textContent = "";
    const query = queries[Math.floor(i / keys.length)], key = keys[i % keys.length];
    query.classList.add("on"); key.classList.add("on");
    const weight = (chosen()[i] / 1000).toFixed(3);
    output.textContent = `${query.dataset.token} → ${key.dataset.token}: ${weight}`;
  };
  form.addEventListener("change", () => {
    const weights = chosen();
    cells.forEach((cell, i) => cell.setAttribute("fill-opacity", weights[i] / 1000));
    read(last);
  });
  const point = event => read(cells.indexOf(event.target));
  const map = figure.querySelector(".cells");
  map.addEventListener("pointerover", point);
  map.addEventListener("pointerdown", point);
  map.addEventListener("pointerleave", event => { if (event.pointerType == "mouse") read(-1); });
}
"""


def _columns(text):
  """Width of a text in columns of a monospaced font."""
  return sum(
    0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
  )


def _token(piece, attributes):
  shown = readable(piece)
  short = shown if len(shown) <= 24 else shown[:23] + "…"
  body = theme.escape(short).replace("·", '<tspan class="dot">·</tspan>')
  return f'<text data-token="{theme.escape(shown)}" {attributes}>{body}</text>', _columns(short) * 7.9


def _svg(weights_TS, queries, keys, label):
  cell = 24 if max(len(queries), len(keys)) <= 40 else 16
  left = max(_token(t, "")[1] for t in queries) + 12
  middle = cell / 2 + 4.5
  # Keys stand at 60 degrees, each on its column: none may be cut off above or on the right.
  lengths = [_token(t, "")[1] for t in keys]
  top = max(lengths) * math.sin(math.radians(60)) + 16
  ends = [s * cell + middle + length * math.cos(math.radians(60)) + 6 for s, length in enumerate(lengths)]
  width, height = left + max(len(keys) * cell, *ends), top + len(queries) * cell + 2
  query_text = "".join(
    _token(t, f'x="{left - 8:.0f}" y="{top + i * cell + middle:.0f}" text-anchor="end"')[0]
    for i, t in enumerate(queries)
  )
  key_text = "".join(
    _token(t, f'transform="translate({left + i * cell + middle - 1:.0f} {top - 6:.0f}) rotate(-60)"')[0]
    for i, t in enumerate(keys)
  )
  size = f'width="{cell - 1}" height="{cell - 1}"'
  cells = "".join(
    f'<rect x="{left + s * cell:.0f}" y="{top + t * cell:.0f}" {size} fill-opacity="{w:.3g}"/>'
    for t, row in enumerate(weights_TS)
    for s, w in enumerate(row)
  )
  return (
    f'<svg role="img" aria-label="{theme.escape(label)}" width="{width:.0f}" height="{height:.0f}" '
    f'viewBox="0 0 {width:.0f} {height:.0f}">'
    f'<g class="keys">{key_text}</g><g class="queries">{query_text}</g>'
    f'<rect class="ground" x="{left:.0f}" y="{top:.0f}" '
    f'width="{len(keys) * cell - 1}" height="{len(queries) * cell - 1}"/>'
    f'<g class="cells">{cells}</g></svg>'
  )


def attention_viewer(weights_LNTS, queries, keys, title=""):
  """The viewer as a <figure>, for a page that brings CSS and SCRIPT: a chooser of layer and head, a heat map.

  weights_LNTS: [layers, heads, T, S]. It opens on the last layer, on the mean of its heads; that is what
  shows where there is no script. Raises ValueError as `check_weights` does.
  """
  weights = check_weights(weights_LNTS, queries, keys)
  if weights.ndim != 4:
    raise ValueError(
      f"The viewer needs weights of all layers and heads, [L, N, T, S], not of shape {weights.shape}."
    )
  layers, heads = weights.shape[:2]
  names = [str(i + 1) for i in range(heads)]
  if heads > 1:
    names = ["mean", *names]
    weights = np.concatenate([weights.mean(1, keepdims=True), weights], 1)
  data = np.rint(weights * 1000).astype(int).reshape(layers, len(names), -1).tolist()

  def radio(group, i, name, on):
    checked = " checked" if on else ""
    return f'<label><input type="radio" name="{group}" value="{i}"{checked}><span>{name}</span></label>'

  layer_radios = "".join(radio("layer", i, i + 1, i == layers - 1) for i in range(layers))
  head_radios = "".join(radio("head", i, name, i == 0) for i, name in enumerate(names))
  caption = f"<figcaption dir=auto>{theme.escape(title)}</figcaption>" if title else ""
  return (
    f'<figure class="attention">{caption}<form autocomplete="off">'
    f"<fieldset><legend>Layer</legend>{layer_radios}</fieldset>"
    f"<fieldset><legend>Head</legend>{head_radios}</fieldset></form>"
    f'<div class="scroll">{_svg(weights[-1, 0], queries, keys, title or "attention weights")}</div>'
    f'<p class="read">0<i class="scale"></i>1 <output></output></p>'
    f'<script type="application/json">{json.dumps(data, separators=(",", ":"))}</script></figure>'
  )


def attention_fragment(weights_LNTS, queries, keys, title=""):
  """The viewer for a notebook, by `IPython.display.HTML`. Arguments as `attention_viewer`."""
  return theme.fragment(attention_viewer(weights_LNTS, queries, keys, title), CSS, SCRIPT)


def attention_html(weights_LNTS, queries, keys, title="Attention"):
  """The viewer as a document of its own. Arguments as `attention_viewer`."""
  body = f"<h1>{theme.escape(title)}</h1>" + attention_viewer(weights_LNTS, queries, keys)
  return theme.page(title, body, CSS, SCRIPT)
