"""What pages promise: nothing from outside runs or is fetched, and text is readable in light and dark."""

import re
from html.parser import HTMLParser

import pytest
from matplotlib import figure

from attention_zoo.plots import theme


def luminance(colour):
  channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
  linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
  dark, light = sorted((luminance(a), luminance(b)))
  return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("column", [1, 2], ids=["light", "dark"])
def test_text_colours_are_readable(column):
  colours = {row[0]: row[column] for row in theme.COLOURS}
  for name in ("ink", "muted", *theme.SERIES):
    assert contrast(colours[name], colours["paper"]) >= 4.5, name


class Elements(HTMLParser):
  """Tags with their attributes, and whether every element that opens also closes."""

  VOID = {"meta", "input", "br", "img", "link"}

  def __init__(self, text):
    super().__init__()
    self.found, self.open = [], []
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    self.found.append((tag, dict(attributes)))
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.found.append((tag, dict(attributes)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_page_is_closed_and_fetches_nothing():
  text = theme.page("<T>", theme.table(["a", "b"], [["<b>", 1.5]]), script="const a = 1;")
  elements = Elements(text)
  assert elements.open == []
  assert not [a for _, a in elements.found if "src" in a or "href" in a]
  assert "<title>&lt;T&gt;</title>" in text and "&lt;b&gt;</td>" in text
  policy = next(a["content"] for tag, a in elements.found if tag == "meta" and "http-equiv" in a)
  assert "default-src 'none'" in policy and re.search(r"script-src 'sha256-[\w+/]{43}='", policy)
  assert "script-src 'none'" in theme.page("t", "")


def test_number_columns_stand_right():
  text = theme.table(["name", "BLEU"], [["a", "−1.5"], ["b2", None]])
  assert '<td class=n data-head="BLEU">−1.5</td>' in text and '<td data-head="name">b2</td>' in text


@theme.styled
def draw(title):
  fig = figure.Figure(layout="constrained")
  axes = fig.subplots()
  axes.plot([0, 1], [0, 1], color=theme.LIGHT["blue"])
  axes.set_title(theme.drawable(title))
  return fig


def test_inline_svg_takes_the_colours_of_the_page():
  svg = theme.inline_svg(draw("Größe <script> $x$ #1f66ad"), 'a "label"')
  assert Elements(svg).open == []
  assert "stroke: var(--blue)" in svg and "var(--ink)" in svg and "Größe &lt;script&gt; $x$ #1f66ad" in svg
  assert 'aria-label="a &quot;label&quot;"' in svg
  assert "metadata" not in svg and "<style" not in svg and 'id="figure' not in svg
  assert svg == theme.inline_svg(draw("Größe <script> $x$ #1f66ad"), 'a "label"')


def test_every_reference_in_an_svg_has_its_target():
  svg = theme.inline_svg(draw("x"), "x")
  targets = set(re.findall(r'id="([^"]+)"', svg))
  assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= targets


def test_drawable_replaces_what_the_font_lacks():
  assert theme.drawable("Zürich, ▁Straße") == "Zürich, ▁Straße"
  assert theme.drawable("日\n\t\x00") == "□↵ □"


@pytest.mark.parametrize("host", ["data-jp-theme-light=false", "theme=dark", "data-vscode-theme-kind=vscode-dark"])
def test_a_notebook_s_own_theme_wins_over_the_system_s(host):
  """JupyterLab, Colab, VS Code: the rule for the host stands behind that for the system, and is more specific."""
  text = theme.fragment("<p>x</p>")
  dark = f"--paper: {next(row[2] for row in theme.COLOURS if row[0] == 'paper')};"
  system = text.index("prefers-color-scheme: dark")
  rule = re.search(rf"@media screen {{ :is\([^)]*\[{host}\][^)]*\) .zoo {{ {re.escape(dark)}", text)
  assert rule and rule.start() > system
  light = host.replace("false", "true").replace("dark", "light")
  assert re.search(rf"\n:is\([^)]*\[{light}\][^)]*\) .zoo {{ --paper: {theme.LIGHT['paper']};", text)
  name = host.partition("=")[0]
  assert re.search(rf"\n:is\([^)]*\[{name}\][^)]*\) .zoo {{ background: none; }}", text)
