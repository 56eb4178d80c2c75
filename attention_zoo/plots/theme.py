"""What figures and pages share: colours for paper and dark screens, escaping, inline SVG, the page itself.

Figures are made without pyplot: nothing to close, no global state. They are drawn in the light colours, and
`inline_svg` swaps each colour for the CSS variable of its name: one drawing suits paper and dark screens.
"""

import base64
import functools
import hashlib
import html
import io
import re

import matplotlib
from matplotlib import font_manager, ft2font

# Name, on white, on black. Text and series colours have a contrast of at least 4.5 with `paper` in both.
COLOURS = (
  ("paper", "#ffffff", "#15181c"),
  ("panel", "#f3f5f8", "#1f242a"),
  ("rule", "#d6dbe1", "#39414a"),
  ("muted", "#5c6670", "#9ca7b3"),
  ("ink", "#1b2026", "#e7eaee"),
  ("blue", "#1f66ad", "#6fb3f7"),
  ("orange", "#bd4b0b", "#f59a62"),
  ("green", "#267346", "#67c690"),
  ("violet", "#7448ad", "#b99bee"),
  ("rose", "#b32e5a", "#f2849f"),
  ("gold", "#856200", "#d8b24c"),
)
LIGHT = {name: light for name, light, _ in COLOURS}
SERIES = ("blue", "orange", "green", "violet", "rose", "gold")

STYLE = {
  "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same figure on every machine
  "font.size": 9,
  "text.parse_math": False,  # a token or a run name may hold dollar signs
  "text.color": LIGHT["ink"],
  "axes.labelcolor": LIGHT["muted"],
  "axes.titlecolor": LIGHT["ink"],
  "axes.titlesize": 10,
  "axes.titleweight": "bold",
  "axes.titlelocation": "left",
  "axes.edgecolor": LIGHT["rule"],
  "axes.facecolor": LIGHT["paper"],
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "axes.axisbelow": True,
  "grid.color": LIGHT["rule"],
  "grid.linewidth": 0.6,
  "xtick.color": LIGHT["rule"],
  "ytick.color": LIGHT["rule"],
  "xtick.labelcolor": LIGHT["muted"],
  "ytick.labelcolor": LIGHT["muted"],
  "lines.solid_capstyle": "round",
  "legend.frameon": False,
  "legend.fontsize": 8.5,
  "figure.facecolor": LIGHT["paper"],
  "figure.dpi": 150,
}


def styled(function):
  """Runs `function` under the house's matplotlib style."""

  @functools.wraps(function)
  def wrapper(*args, **kwargs):
    with matplotlib.rc_context(STYLE):
      return function(*args, **kwargs)

  return wrapper


@functools.cache
def _font():
  return ft2font.FT2Font(font_manager.findfont("DejaVu Sans"))


def drawable(text):
  """`text` with a box for each character that the figures' font lacks, of which matplotlib would warn."""
  text = re.sub(r"\s", lambda m: "↵" if m[0] in "\r\n" else " ", str(text))
  return "".join(c if c.isprintable() and _font().get_char_index(ord(c)) else "□" for c in text)


def escape(value):
  return html.escape(str(value), quote=True)


def inline_svg(figure, label):
  """The figure as an <svg> element for a page made by `page`: text stays text, colours follow the page's."""
  buffer = io.StringIO()
  with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "attention_zoo"}):
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
  svg = buffer.getvalue()
  svg = re.sub(
    r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.S
  )
  # Groups are named figure_1, axes_1 in every drawing; ids that are referred to are hashes and stay.
  svg = re.sub(r'<g id="[a-zA-Z]+[._0-9]*">', "<g>", svg)
  names = {light: name for name, light, _ in COLOURS}
  svg = re.sub(r"(?<=: )#[0-9a-f]{6}", lambda m: f"var(--{names[m[0]]})" if m[0] in names else m[0], svg)
  return svg.replace("<svg", f'<svg class="plot" role="img" aria-label="{escape(label)}"', 1)


def table(head, rows, classes=""):
  """An HTML table; every cell is escaped. Columns whose cells are all numbers or empty are set right."""
  rows = [[("" if cell is None else str(cell)) for cell in row] for row in rows]
  number = re.compile(r"[-+−–]?[\d., ]*(e[-+]?\d+)?%?")
  right = [all(number.fullmatch(row[i]) for row in rows) for i in range(len(head))]

  def line(tag, row):
    kinds = (" class=n" if is_number else "" for is_number in right)
    cells = zip(kinds, head, row, strict=True)
    return (
      "<tr>"
      + "".join(f'<{tag}{k} data-head="{escape(h)}">{escape(c)}</{tag}>' for k, h, c in cells)
      + "</tr>"
    )

  return (
    f'<div class="scroll"><table class="{classes}"><thead>{line("th", head)}</thead>'
    f"<tbody>{''.join(line('td', row) for row in rows)}</tbody></table></div>"
  )


def definitions(pairs):
  """Name and value pairs as a compact list."""
  rows = []
  for name, value in pairs:
    text = ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    rows.append(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>")
  return f'<dl class="pairs">{"".join(rows)}</dl>'


def _variables(column):
  return " ".join(f"--{row[0]}: {row[column]};" for row in COLOURS)


# How JupyterLab, Colab and VS Code mark the page that shows a notebook, whatever the reader's system prefers.
_HOSTS = {
  "light": "[data-jp-theme-light=true], [theme=light], [data-vscode-theme-kind=vscode-light]",
  "dark": "[data-jp-theme-light=false], [theme=dark], [data-vscode-theme-kind=vscode-dark]",
}

CSS = (
  f"""
.zoo {{ {_variables(1)} color-scheme: light dark; }}
@media screen and (prefers-color-scheme: dark) {{ .zoo {{ {_variables(2)} }} }}
:is({_HOSTS["light"]}) .zoo {{ {_variables(1)} color-scheme: light; }}
@media screen {{ :is({_HOSTS["dark"]}) .zoo {{ {_variables(2)} color-scheme: dark; }} }}
"""
  + """
body.zoo { margin: 0; }
.zoo { background: var(--paper); color: var(--ink);
    font: 16px/1.5 system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
:is([data-jp-theme-light], [theme], [data-vscode-theme-kind]) .zoo { background: none; }
.zoo * { box-sizing: border-box; }
.zoo main { max-width: 1120px; margin: 0 auto; padding: 32px clamp(14px, 4vw, 40px) 64px; }
.zoo h1 { font-size: clamp(1.5rem, 4.5vw, 2.1rem); line-height: 1.2; margin: 0 0 4px;
    overflow-wrap: anywhere; }
.zoo h2 { font-size: 1.25rem; margin: 44px 0 10px; padding-top: 14px; border-top: 1px solid var(--rule); }
.zoo h3 { font-size: .95rem; margin: 0 0 4px; }
.zoo p { margin: 6px 0; max-width: 75ch; }
.zoo .note { color: var(--muted); font-size: .875rem; }
.zoo a { color: var(--blue); }
.zoo nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 10px 0 0; font-size: .9rem; }
.zoo code, .zoo pre, .zoo .mono {
    font-family: ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: .84rem; }
.zoo pre { background: var(--panel); padding: 10px 12px; border-radius: 6px; white-space: pre-wrap;
    overflow-wrap: anywhere; margin: 8px 0; }
.zoo .tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(132px, 1fr)); gap: 10px;
    margin: 20px 0 6px; }
.zoo .tiles div { background: var(--panel); border-radius: 8px; padding: 10px 14px; }
.zoo .tiles b { display: block; font-size: 1.45rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.zoo .tiles span { color: var(--muted); font-size: .8rem; overflow-wrap: anywhere; }
.zoo .plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr));
    gap: 22px 26px; margin: 12px 0; }
.zoo svg.plot { width: 100%; height: auto; display: block; }
.zoo svg.plot * { stroke-linejoin: round; }
.zoo svg.plot text { font-family: system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif !important; }
.zoo .scroll { overflow-x: auto; }
.zoo table { border-collapse: collapse; font-size: .9rem; margin: 10px 0; }
.zoo th, .zoo td { text-align: left; vertical-align: top; padding: 6px 16px 6px 0;
    border-bottom: 1px solid var(--rule); }
.zoo th { font-size: .8rem; font-weight: 600; color: var(--muted); vertical-align: bottom; }
.zoo table.scores td:nth-child(3) { overflow-wrap: anywhere;
    font-family: ui-monospace, Menlo, "DejaVu Sans Mono", monospace; font-size: .8em; }
.zoo .n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.zoo mark { background: none; color: inherit; text-decoration: underline 2px var(--orange);
    text-underline-offset: 3px; }
.zoo table.even { table-layout: fixed; width: 100%; }
.zoo table.even td { overflow-wrap: anywhere; white-space: pre-wrap; }
.zoo .groups { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 250px), 1fr)); gap: 0 34px;
    margin: 14px 0; }
.zoo .groups > div > div { break-inside: avoid; padding-bottom: 14px; }
.zoo dl.pairs { margin: 0; font-size: .85rem; }
.zoo dl.pairs div { display: flex; gap: 12px; justify-content: space-between;
    border-bottom: 1px solid var(--rule); padding: 2px 0; break-inside: avoid; }
.zoo dt { color: var(--muted); }
.zoo dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
.zoo summary { cursor: pointer; font-weight: 600; margin-top: 14px; }
@media (max-width: 600px) {
  .zoo table.stack thead { display: none; }
  .zoo table.stack, .zoo table.stack tbody, .zoo table.stack tr, .zoo table.stack td { display: block; }
  .zoo table.stack tr { padding: 8px 0; border-bottom: 1px solid var(--rule); }
  .zoo table.stack td { border: 0; padding: 2px 0; text-align: left; overflow-wrap: anywhere; }
  .zoo table.stack td.n { white-space: normal; }
  .zoo table.stack td::before { content: attr(data-head); display: block; font-size: .72rem;
    color: var(--muted); }
}
@media print {
  .zoo { font-size: 10pt; }
  .zoo * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .zoo main { padding: 0; max-width: none; }
  .zoo nav, .zoo .screen { display: none; }
  .zoo .scroll { overflow: visible; }
  .zoo tr, .zoo svg, .zoo figure, .zoo pre { break-inside: avoid; }
  .zoo h2, .zoo h3, .zoo .note { break-after: avoid; }
  .zoo .note { break-inside: avoid; }
  .zoo h2 { margin-top: 22px; }
  .zoo table.scores { break-inside: avoid; }
  @page { margin: 15mm; }
}
"""
)


def fragment(body, css="", script=""):
  """A piece of a page, as a notebook shows it: brings its own style, leaves the rest of the page alone."""
  script = f"<script>{script}</script>" if script else ""
  return f'<div class="zoo"><style>{CSS}{css}</style>{body}{script}</div>'


def page(title, body, css="", script=""):
  """A whole document: no network, and only the one script given here may run (content security policy)."""
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  policy = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; base-uri 'none'; "
    + "form-action 'none'; script-src "
    + (f"'sha256-{digest}'" if script else "'none'")
  )
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    f"<title>{escape(title)}</title><style>{CSS}{css}</style></head>\n"
    f'<body class="zoo"><main>{body}</main>{f"<script>{script}</script>" if script else ""}</body></html>\n'
  )
