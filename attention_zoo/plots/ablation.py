"""The report on an ablation grid: what each change did to the metrics, here and in the paper.

The grid is Table 3 of "Attention Is All You Need" (Vaswani et al. 2017).
The results and the list of metrics decide all of it.
"""

import math
import re

import numpy as np

from attention_zoo.plots import ablation_charts, theme

PARAMETERS_NOTE = (
  "No single vocabulary reproduces the paper's printed column of parameters (base rows imply about 41k, big "
  "about 36k): with 37,000 entries every row is within 7 %, with 41,000 every base row is within 2 %."
)


def ablation_report(results, metrics):
  """The report as (markdown text, HTML document, matplotlib figure).

  metrics: an `ablation_charts.Metric` for each figure that is compared; m stands for its key.
  results: {"header": header, "rows": rows}. The header holds scale, data, hardware, versions (package:
  version), command, and what else should stand on top; the rows come in the table's order, each a dict of

    row              name, e.g. "a_heads_1"; "base" is what the others are compared with
    group            "base", "A" to "E", "big"
    value            what the row sets, number or label; paper_value where the paper's own number differs
    status           "done", or why there is nothing: "not run", "failed: see DIR/log.txt", ...
    m                ours, number or None; by default the mean over the seeds
    seeds            [{"seed": 0, m: ..}, ...], the finished ones
    unfinished       a line for each other seed: ["seed 1 failed: ...", ...]
    paper_m, params_ours, params_paper (both in parameters, not millions)
    steps_per_second, flops (of the whole training)

  of which all but `row` may be missing. The base row may hold `values`, {prefix: ours}, where its own are not
  the paper's; the prefixes are those of `ablation_charts.FACTORS`.
  """
  rows, summary = compare(results["rows"], metrics)
  header = results.get("header", {})
  figure = ablation_charts.grid_figure(rows, metrics, _title(header, rows, metrics))
  return markdown(header, rows, summary, metrics), document(header, rows, summary, metrics), figure


def _title(header, rows, metrics):
  """What a figure must say that stands alone."""
  scale = str(header.get("scale", "")).partition(":")[0]
  seeds = max((len(row["seeds"]) for row in rows), default=0)
  what = [scale and f"{scale} scale", header.get("data"), seeds and f"{seeds} seed{'s' if seeds > 1 else ''}"]
  how = " and ".join(f"{m.name} ({'lower' if m.lower else 'higher'} is better)" for m in metrics)
  return f"{', '.join(filter(None, what))}; {how} against base; upper tick ours, lower the paper's"


def rank(values):
  """Ranks from 1; equal values share the mean of theirs."""
  values = np.asarray(values, np.float64)
  return (values[:, None] > values).sum(1) + ((values[:, None] == values).sum(1) + 1) / 2


def spearman(ours, paper):
  """Spearman's rank correlation; None below three rows, or where one side is all the same."""
  if len(ours) < 3 or len(set(ours)) < 2 or len(set(paper)) < 2:
    return None
  return float(np.corrcoef(rank(ours), rank(paper))[0, 1])


def _finite(value):
  return float(value) if value is not None and math.isfinite(value) else None


def compare(rows, metrics):
  """Rows with what follows from them, and a summary.

  Each row gains, for the key m of each metric: m; m_range of its seeds, m_spread, half of that (None below two seeds);
  m_difference and paper_m_difference from base; m_agrees, whether these have one sign (None where one is
  missing or is printed as zero); m_noise, whether our difference is within the two rows' spreads. The summary
  holds, for each m: rank_correlation, its rows, agree and compared.
  """
  rows = [dict(row, status=row.get("status", "done"), seeds=row.get("seeds") or []) for row in rows]
  for row in rows:
    for m in (metric.key for metric in metrics):
      seeds = [v for v in (_finite(seed.get(m)) for seed in row["seeds"]) if v is not None]
      value = _finite(row.get(m))
      if value is None and seeds:
        value = sum(seeds) / len(seeds)
      row[m] = value if row["status"] == "done" else None
      ranged = len(seeds) > 1 and row["status"] == "done"
      row[f"{m}_range"] = (min(seeds), max(seeds)) if ranged else None
      row[f"{m}_spread"] = (max(seeds) - min(seeds)) / 2 if ranged else None
      row[f"paper_{m}"] = _finite(row.get(f"paper_{m}"))
  base = next((row for row in rows if row["row"] == "base"), {})
  summary: dict = {"ran": sum(row["status"] == "done" for row in rows), "rows": len(rows)}
  for m, digits in ((metric.key, metric.digits) for metric in metrics):
    for row in rows:
      ours, paper = (
        None if row[k] is None or base.get(k) is None else row[k] - base[k] for k in (m, f"paper_{m}")
      )
      row[f"{m}_difference"], row[f"paper_{m}_difference"] = ours, paper
      # Signs are those of the printed figures, so that the table agrees with itself.
      signs = [round(d or 0, digits) for d in (ours, paper)]
      row[f"{m}_agrees"] = None if 0 in signs else (signs[0] > 0) == (signs[1] > 0)
      spreads = [r.get(f"{m}_spread") for r in (row, base)]
      row[f"{m}_noise"] = (
        row is not base and ours is not None and None not in spreads and abs(ours) <= sum(spreads)
      )
    both = [row for row in rows if row[m] is not None and row[f"paper_{m}"] is not None]
    signs = [row[f"{m}_agrees"] for row in rows if row[f"{m}_agrees"] is not None]
    summary[m] = {
      "rank_correlation": spearman([row[m] for row in both], [row[f"paper_{m}"] for row in both]),
      "rows": len(both),
      "agree": sum(signs),
      "compared": len(signs),
    }
  return rows, summary


def _number(value, digits, sign=False):
  if value is None:
    return ""
  value = round(value, digits) or 0.0  # no minus zero
  return f"{value:{'+' if sign and value else ''}.{digits}f}".replace("-", "−")


def _cells(row, metrics):
  """The cells of a table row as text, in the order of `_head`."""
  value = row.get("value")
  paper_value = row.get("paper_value", value)
  cells = [
    row["row"],
    "" if value is None else str(value) + (f" ({paper_value})" if paper_value != value else ""),
  ]
  for key in ("params_ours", "params_paper"):
    value = row.get(key)
    cells.append("" if value is None else f"{value / 1e6:.{0 if key == 'params_paper' else 2}f}")
  for m, digits in ((metric.key, metric.digits) for metric in metrics):
    spread = f" ± {row[f'{m}_spread']:.{digits}f}" if row[f"{m}_spread"] is not None else ""
    cells.append((_number(row[m], digits) or "–") + spread if row["status"] == "done" else "")
    cells.append(_number(row[f"paper_{m}"], digits))
    own = row["row"] == "base"
    cells += [
      "" if own else _number(row[k], digits, True) for k in (f"{m}_difference", f"paper_{m}_difference")
    ]
    sign = {True: "yes", False: "no", None: ""}[row[f"{m}_agrees"]]
    cells.append(f"({sign})" if sign and row[f"{m}_noise"] else sign)
  count, unfinished = len(row["seeds"]), row.get("unfinished") or []
  cells.append(str(count or "") if row["status"] == "done" else "")
  if unfinished and cells[-1]:
    cells[-1] = "; ".join([f"{count} of {count + len(unfinished)}", *unfinished])
  cells.append("" if row.get("steps_per_second") is None else f"{row['steps_per_second']:.3g}")
  cells.append("" if row.get("flops") is None else f"{row['flops']:.1e}".replace("e+", "e"))
  return cells


def _head(metrics):
  """(group of columns, the names of its columns), from left to right."""
  compared = ("ours", "paper", "Δ ours", "Δ paper", "sign")
  return [
    ("", ("Row", "Sets (paper)")),
    ("Params, M", ("ours", "paper")),
    *((m.title, compared) for m in metrics),
    ("Training", ("seeds", "steps/s", "FLOPs")),
  ]


LEGEND = (
  "Δ is the difference from base; sign says whether ours has the paper's. A sign in brackets is one that our "
  "seeds cannot tell from chance: the difference is within the spread of the two rows. ± is half the "
  "distance between the best and the worst seed. An empty cell in the paper's parameters means as base."
)


def conclusions(summary, metrics):
  """The summary in sentences."""
  text = [f"{summary['ran']} of {summary['rows']} rows ran."]
  for m in metrics:
    part = summary[m.key]
    if part["rank_correlation"] is None:
      text.append(f"{m.title}: too few rows for a rank correlation with the paper.")
    else:
      rho = _number(part["rank_correlation"], 2)
      text.append(f"{m.title}: Spearman's rank correlation with the paper is {rho} over {part['rows']} rows.")
    if part["compared"]:
      text.append(f"{m.title}: {part['agree']} of {part['compared']} differences from base have the paper's sign.")
  return text


def _header_pairs(header, metrics):
  names = {m.key: m.title for m in metrics}
  for key, value in header.items():
    if key != "command":
      if isinstance(value, dict):
        value = ", ".join(f"{k} {v}" for k, v in value.items())
      yield names.get(key, key.capitalize()), value


def markdown(header, rows, summary, metrics):
  # Cells come from files and flags: keep them from ending the cell or becoming markup.
  def safe(text):
    return re.sub(r"([\\|`*\[\]])", r"\\\1", theme.escape(" ".join(str(text).split())))

  lines = ["# Ablation grid", ""] + [f"- **{safe(k)}:** {safe(v)}" for k, v in _header_pairs(header, metrics)]
  if header.get("command"):
    lines += ["", *("    " + line for line in str(header["command"]).splitlines())]
  lines += ["", *(f"- {sentence}" for sentence in conclusions(summary, metrics)), ""]
  names = [f"{group} {name}".strip() for group, columns in _head(metrics) for name in columns]
  lines += [
    "| " + " | ".join(names) + " |",
    "|" + "|".join([" --- "] * 2 + [" ---: "] * (len(names) - 2)) + "|",
  ]
  for row in rows:
    cells = [safe(cell) for cell in _cells(row, metrics)]
    if row["status"] != "done":
      cells[4] = f"*{safe(row['status'])}*"
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join([*lines, "", LEGEND, "", PARAMETERS_NOTE, ""])


CSS = """
.zoo main { max-width: 1240px; }
.zoo .head { max-width: 680px; }
.zoo table.grid { font-size: .8rem; min-width: 100%; }
.zoo table.grid th, .zoo table.grid td { padding: 4px 9px 4px 0; }
.zoo table.grid .first { padding-left: 12px; border-left: 1px solid var(--rule); }
.zoo table.grid thead tr:first-child th { border: 0; padding-bottom: 0; text-align: left; color: var(--ink); }
.zoo table.grid thead tr:first-child th.first { border-left: 1px solid var(--rule); }
.zoo table.grid tr.group td { border-top: 2px solid var(--rule); }
.zoo table.grid td.name { font-weight: 600; white-space: nowrap; position: sticky; left: 0;
    background: var(--paper); }
.zoo table.grid td:nth-child(2) { min-width: 11em; }
.zoo table.grid .paper { color: var(--muted); }
.zoo table.grid .no { color: var(--orange); font-weight: 600; }
.zoo table.grid .gone { color: var(--muted); font-style: italic; max-width: 11em; overflow-wrap: anywhere; }
.zoo .side { white-space: nowrap; margin-left: 10px; }
.zoo .side::before { content: ""; display: inline-block; width: 30px; margin-right: 6px; vertical-align: 4px;
    border-top: 2px dashed var(--muted); }
.zoo .side.ours::before { border-top: 2px solid var(--blue); }
.zoo .ranks { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr));
    gap: 24px 40px; }
.zoo .plots.small { grid-template-columns: repeat(auto-fit, minmax(min(100%, 235px), 1fr)); }
@media print {
  .zoo section.whole { break-before: page; }
  .zoo .plots.small svg { max-height: 66mm; }
  .zoo table.grid { font-size: 7pt; width: 100%; }
  .zoo table.grid th, .zoo table.grid td { padding: 2px 3px 2px 0; font-size: inherit; }
  .zoo .plots.small { grid-template-columns: repeat(4, 1fr); }
  .zoo .ranks { grid-template-columns: 1fr 1fr; }
  @page { size: A4 landscape; margin: 12mm; }
}
"""


def _table(rows, metrics):
  head = _head(metrics)
  top = "".join(
    f'<th colspan="{len(columns)}"{" class=first" if i else ""}>{theme.escape(group)}</th>'
    for i, (group, columns) in enumerate(head)
  )
  names = [name for _, columns in head for name in columns]
  starts = {sum(len(columns) for _, columns in head[:i]) for i in range(1, len(head))}

  def kind(i):
    kinds = {"first": i in starts, "paper": "paper" in names[i], "n": i > 1}
    return " ".join(kind for kind, true in kinds.items() if true)

  heads = "".join(f'<th class="{kind(i)}">{theme.escape(name)}</th>' for i, name in enumerate(names))
  body, group = [], None
  for row in rows:
    cells = _cells(row, metrics)
    row_class = ' class="group"' if row.get("group") != group else ""
    group = row.get("group")
    line = [f'<td class="name">{theme.escape(cells[0])}</td>']
    for i, cell in enumerate(cells[1:], 1):
      if i == 4 and row["status"] != "done":
        line.append(f'<td class="first gone">{theme.escape(row["status"])}</td>')
      elif ";" in cell and names[i] == "seeds":
        line.append(f'<td class="first gone">{theme.escape(cell)}</td>')
      else:
        line.append(f'<td class="{kind(i)}{" no" if cell == "no" else ""}">{theme.escape(cell)}</td>')
    body.append(f"<tr{row_class}>{''.join(line)}</tr>")
  return (
    f'<div class="scroll"><table class="grid"><thead><tr>{top}</tr><tr>{heads}</tr></thead>'
    f"<tbody>{''.join(body)}</tbody></table></div>"
  )


def document(header, rows, summary, metrics):
  tiles = [(f"{summary['ran']} / {summary['rows']}", "rows ran")]
  for m in metrics:
    rho, signs = summary[m.key]["rank_correlation"], summary[m.key]
    tiles.append((_number(rho, 2) or "–", f"{m.title}: rank correlation with the paper"))
    tiles.append((f"{signs['agree']} / {signs['compared']}", f"{m.title}: same sign of difference"))
  tiles = "".join(f"<div><b>{theme.escape(v)}</b><span>{theme.escape(k)}</span></div>" for v, k in tiles)
  command = f"<pre>{theme.escape(header['command'])}</pre>" if header.get("command") else ""
  charts = "".join(
    f"<div>{theme.inline_svg(fig, label)}</div>" for label, fig in ablation_charts.factor_figures(rows, metrics)
  )
  ranks = "".join(
    f"<div>{theme.inline_svg(fig, label)}</div>" for label, fig in ablation_charts.rank_figures(rows, metrics)
  )
  text = "".join(f"<p>{theme.escape(sentence)}</p>" for sentence in conclusions(summary, metrics))
  shown = ", ".join(
    f"{theme.escape(m.name)} in {'per cent' if m.per_cent else 'points'} ({'down' if m.lower else 'up'} is better)"
    for m in metrics
  )
  body = f"""<h1>Ablation grid</h1>
<p class="note">Rows A to E of Table 3, “Attention Is All You Need” (Vaswani et al. 2017): run here and as
printed.</p>
<div class="head">{theme.definitions(_header_pairs(header, metrics))}</div>{command}<div class="tiles">{tiles}</div>
<section><h2>Rows</h2>{_table(rows, metrics)}<p class="note">{LEGEND}</p>
<p class="note">{PARAMETERS_NOTE}</p></section>
<section class="whole"><h2>One change at a time</h2>
<p class="note">Against base, each grid by its own: {shown}.
Where two values stand below a point, the upper is ours and the lower the paper's.
Bars span the seeds; × is a row that did not run.
<span class="side ours">ours</span> <span class="side">paper</span></p>
<div class="plots small">{charts or "<p>No row with a chart.</p>"}</div></section>
<section class="whole"><h2>Order of the rows</h2>{text}<div class="ranks">{ranks}</div></section>"""
  return theme.page("Ablation grid", body, CSS)
