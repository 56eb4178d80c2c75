"""One page about one run: scores, learning curves, samples, attention, settings."""

import difflib

from attention_zoo.plots import attention, curves, theme


def run_report(
  title,
  config_rows,
  metrics,
  *,
  scores=(),
  samples=(),
  compare=None,
  attentions=(),
  attention_note="",
  curve_names=curves.METRICS,
  headline=(),
  versions=None,
  command="",
  more=(),
):
  """A self-contained HTML document for screens light or dark, a phone, or paper; all it shows is escaped.

  title: str. config_rows: (name, value) pairs; dotted names are grouped by what stands before the dot.
  metrics: rows as `curves.curves_figure` takes them; curve_names: which are drawn. scores, samples: as
  `protocols.Evaluation` has them; columns of samples stand in the order of the first one. compare: (column, other
  column) of samples; words of the one that the other does not have in their place are underlined. attentions: (title,
  weights_LNTS, query tokens, key tokens), as `attention.attention_viewer`; attention_note: what rows and columns are.
  headline: names of what stands on top in large figures: scores, and metrics with their last value (of a rate,
  NAME_per_second, the median).
  versions: dict of package -> version. command: what made the run. more: further sections, (name, heading, HTML).
  Parts that are empty are left out.
  Raises ValueError for attention weights that are none.
  """
  sections = [
    ("scores", "Scores", _scores(scores)),
    ("learning", "Learning curves", _curves(metrics, curve_names)),
    ("samples", "Samples", _samples(samples, compare)),
    *more,
    ("attention", "Attention", _attentions(attentions, attention_note)),
    ("settings", "Settings", _settings(config_rows, versions or {}, command)),
  ]
  sections = [section for section in sections if section[2]]
  links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in sections)
  body = f"<h1>{theme.escape(title)}</h1><nav>{links}</nav>{_tiles(metrics, scores, headline)}" + "".join(
    f'<section id="{name}"><h2>{heading}</h2>{text}</section>' for name, heading, text in sections
  )
  return theme.page(title, body, attention.CSS, attention.SCRIPT)


def _tiles(metrics, scores, headline):
  """The figures that a reader looks for first. Of several runs laid over each other there are none but the scores."""
  rows = [] if isinstance(metrics, dict) else metrics
  tiles = []
  for name in headline:
    tiles += [(score.shown, name) for score in scores if score.name == name]
    for split, (_, values) in curves.series(rows, name).items():
      if name.endswith("_per_second"):
        tiles.append((f"{sorted(values)[len(values) // 2]:,.0f}", f"{name.replace('_', ' ')} (median)"))
      else:
        tiles.append((_large(values[-1]), f"{split} {name}, last"))
  if rows:
    tiles.append((f"{max(row['step'] for row in rows):,}", "steps"))
  if not tiles:
    return ""
  return (
    '<div class="tiles">'
    + "".join(f"<div><b>{theme.escape(v)}</b><span>{theme.escape(k)}</span></div>" for v, k in tiles)
    + "</div>"
  )


def _large(value):
  """Three digits, or all that stand before the point."""
  return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def _settings(config_rows, versions, command):
  groups = {}
  for name, value in config_rows:
    group, _, field = str(name).rpartition(".")
    groups.setdefault(group or "run", []).append((field, value))
  if versions:
    groups["versions"] = list(versions.items())
  text = "".join(f"<div>{''.join(column)}</div>" for column in _columns(groups) if column)
  return (f"<pre>{theme.escape(command)}</pre>" if command else "") + (
    f'<div class="groups">{text}</div>' if text else ""
  )


def _columns(groups, count=3):
  """The groups as HTML in columns of about one height: the longest first, each where there is most room."""
  columns, heights = [[] for _ in range(count)], [0] * count
  for group, pairs in sorted(groups.items(), key=lambda item: -len(item[1])):
    shortest = heights.index(min(heights))
    heights[shortest] += len(pairs) + 2  # its heading
    columns[shortest].append(f"<div><h3>{theme.escape(group)}</h3>{theme.definitions(pairs)}</div>")
  return columns


def _curves(metrics, names):
  found = [m for m in names if curves.has_metric(metrics, m)]
  # One drawing a metric, so that a phone stacks them instead of shrinking their text.
  plots = [
    theme.inline_svg(curves.curves_figure(metrics, [m]), f"{m.replace('_', ' ')} over steps") for m in found
  ]
  return '<div class="plots">' + "".join(f"<div>{plot}</div>" for plot in plots) + "</div>" if plots else ""


def _scores(scores):
  if not scores:
    return ""
  head, rows = ["Score", "Value", "Signature"], [[s.name, s.shown, s.signature] for s in scores]
  if not any(s.signature for s in scores):
    head, rows = head[:2], [row[:2] for row in rows]
  return theme.table(head, rows, "stack scores")


def marked(text, reference):
  """The text as HTML, with the words underlined that the reference does not have in their place."""
  if not reference:
    return theme.escape(text)
  words = text.split()
  parts = []
  matcher = difflib.SequenceMatcher(None, words, reference.split(), autojunk=False)
  for kind, start, end, *_ in matcher.get_opcodes():
    part = theme.escape(" ".join(words[start:end]))
    if part:
      parts.append(part if kind == "equal" else f"<mark>{part}</mark>")
  return " ".join(parts)


def _samples(samples, compare):
  if not samples:
    return ""
  names = list(samples[0])
  column, other = compare or (None, None)

  def cell(sample, name):
    text = marked(sample[name], sample[other]) if name == column else theme.escape(sample[name])
    return f'<td data-head="{theme.escape(name.capitalize())}" dir=auto>{text}</td>'

  head = "".join(f"<th>{theme.escape(name.capitalize())}</th>" for name in names)
  rows = "".join(f"<tr>{''.join(cell(sample, name) for name in names)}</tr>" for sample in samples)
  note = (
    f"Words that the {theme.escape(other)} does not have in their place are <mark>underlined</mark>." if compare else ""
  )
  return (
    (f'<p class="note">{note}</p>' if note else "")
    + f'<table class="stack even"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
  )


def _attentions(attentions, note):
  viewers = "".join(
    attention.attention_viewer(weights, queries, keys, title) for title, weights, queries, keys in attentions
  )
  if not viewers:
    return ""
  return (
    f'<p class="note">{theme.escape(note)} A middle dot starts a word. Each row sums to 1. '
    '<span class="screen">Point at a cell to read its weight.</span></p>'
    f'<div class="viewers">{viewers}</div>'
  )
