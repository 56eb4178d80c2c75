"""One page about one run: BLEU, learning curves, sample translations, attention, settings."""

import difflib
import itertools

from attention_zoo.plots import attention, curves, theme


def run_report(
  title, config_rows, metrics, bleu_rows=(), samples=(), attentions=(), versions=None, command=""
):
  """A self-contained HTML document for screens light or dark, a phone, or paper; all it shows is escaped.

  title: str. config_rows: (name, value) pairs; dotted names are grouped by what stands before the dot.
  metrics: rows as `curves.curves_figure` takes them. bleu_rows: (name, score, signature).
  samples: (source, hypothesis, reference) texts, the reference may be "". attentions: (title, weights_LNTS,
  query tokens, key tokens), as `attention.attention_viewer`. versions: dict of package -> version. command:
  what made the run. Parts that are empty are left out. Raises ValueError for attention weights that are none.
  """
  sections = [
    ("bleu", "BLEU", _bleu(bleu_rows)),
    ("learning", "Learning curves", _curves(metrics)),
    ("samples", "Sample translations", _samples(samples)),
    ("attention", "Cross-attention", _attentions(attentions)),
    ("settings", "Settings", _settings(config_rows, versions or {}, command)),
  ]
  sections = [section for section in sections if section[2]]
  links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in sections)
  body = f"<h1>{theme.escape(title)}</h1><nav>{links}</nav>{_tiles(metrics, bleu_rows)}" + "".join(
    f'<section id="{name}"><h2>{heading}</h2>{text}</section>' for name, heading, text in sections
  )
  return theme.page(title, body, attention.CSS, attention.SCRIPT)


def _tiles(metrics, bleu_rows):
  """The figures that a reader looks for first."""
  tiles = [(f"{score:.1f}", name) for name, score, _ in itertools.islice(bleu_rows, 2)]
  if not isinstance(metrics, dict):
    for metric, form in (("perplexity", "{:.3g}"), ("tokens_per_second", "{:,.0f}")):
      for split, (_, values) in curves.series(metrics, metric).items():
        if metric == "tokens_per_second":
          tiles.append((form.format(sorted(values)[len(values) // 2]), "tokens per second (median)"))
        else:
          tiles.append((form.format(values[-1]), f"{split} {metric}, last"))
    if metrics:
      tiles.append((f"{max(row['step'] for row in metrics):,}", "steps"))
  if not tiles:
    return ""
  return (
    '<div class="tiles">'
    + "".join(f"<div><b>{theme.escape(v)}</b><span>{theme.escape(k)}</span></div>" for v, k in tiles)
    + "</div>"
  )


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


def _curves(metrics):
  found = [m for m in curves.METRICS if curves.has_metric(metrics, m)]
  # One drawing a metric, so that a phone stacks them instead of shrinking their text.
  plots = [
    theme.inline_svg(curves.curves_figure(metrics, [m]), f"{m.replace('_', ' ')} over steps") for m in found
  ]
  return '<div class="plots">' + "".join(f"<div>{plot}</div>" for plot in plots) + "</div>" if plots else ""


def _bleu(bleu_rows):
  rows = [(name, f"{score:.2f}", signature) for name, score, signature in bleu_rows]
  return theme.table(("Dialect", "BLEU", "Signature"), rows, "stack bleu") if rows else ""


def marked(hypothesis, reference):
  """The hypothesis as HTML, with the words marked that the reference does not have in their place."""
  if not reference:
    return theme.escape(hypothesis)
  words = hypothesis.split()
  parts = []
  matcher = difflib.SequenceMatcher(None, words, reference.split(), autojunk=False)
  for kind, start, end, *_ in matcher.get_opcodes():
    text = theme.escape(" ".join(words[start:end]))
    if text:
      parts.append(text if kind == "equal" else f"<mark>{text}</mark>")
  return " ".join(parts)


def _samples(samples):
  rows = "".join(
    f'<tr><td data-head="Source" dir=auto>{theme.escape(source)}</td>'
    f'<td data-head="Translation" dir=auto>{marked(hypothesis, reference)}</td>'
    f'<td data-head="Reference" dir=auto>{theme.escape(reference)}</td></tr>'
    for source, hypothesis, reference in samples
  )
  if not rows:
    return ""
  return (
    '<p class="note">Words that the reference does not have in their place are <mark>underlined</mark>.</p>'
    '<table class="stack even"><thead><tr><th>Source</th><th>Translation</th><th>Reference</th></tr></thead>'
    f"<tbody>{rows}</tbody></table>"
  )


def _attentions(attentions):
  viewers = "".join(
    attention.attention_viewer(weights, queries, keys, title) for title, weights, queries, keys in attentions
  )
  if not viewers:
    return ""
  return (
    '<p class="note">Rows are the tokens produced, columns the source tokens they look at; '
    "a middle dot starts a word. Each row sums to 1. "
    '<span class="screen">Point at a cell to read its weight.</span></p>'
    f'<div class="viewers">{viewers}</div>'
  )
