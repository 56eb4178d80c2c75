"""The report on an ablation grid: what each change did to perplexity and BLEU, here and in the paper.

The grid is Table 3 of "Attention Is All You Need" (Vaswani et al. 2017). The results alone decide all of it.
"""

import math
import re

import numpy as np

from attention_zoo.plots import ablation_charts, theme

METRICS = ("perplexity", "bleu")
DIGITS = {"perplexity": 2, "bleu": 1}
NAMES = {"perplexity": "Perplexity", "bleu": "BLEU"}
PARAMETERS_NOTE = (
  "No single vocabulary reproduces the paper's printed column of parameters (base rows imply about 41k, big "
  "about 36k): with 37,000 entries every row is within 7 %, with 41,000 every base row is within 2 %."
)


def ablation_report(results):
  """The report as (markdown text, HTML document, matplotlib figure).

  results: {"header": header, "rows": rows}. The header holds scale, data, hardware, versions (package:
  version), command, and what else should stand on top; the rows come in the table's order, each a dict of

    row              name, e.g. "a_heads_1"; "base" is what the others are compared with
    group            "base", "A" to "E", "big"
    value            what the row sets, number or label; paper_value where the paper's own number differs
    status           "done", or why there is nothing: "not run", "failed: see DIR/log.txt", ...
    perplexity, bleu ours, numbers or None; by default the means over the seeds
    seeds            [{"seed": 0, "perplexity": .., "bleu": ..}, ...], the finished ones
    unfinished       a line for each other seed: ["seed 1 failed: ...", ...]
    paper_perplexity, paper_bleu, params_ours, params_paper (both in parameters, not millions)
    steps_per_second, flops (of the whole training)

  of which all but `row` may be missing. The base row may hold `values`, {prefix: ours}, where its own are not
  the paper's; the prefixes are those of `ablation_charts.FACTORS`.
  """
  rows, summary = compare(results["rows"])
  header = results.get("header", {})
  figure = ablation_charts.grid_figure(rows, _title(header, rows))
  return markdown(header, rows, summary), document(header, rows, summary), figure


def _title(header, rows):
  """What a figure must say that stands alone."""
  scale = str(header.get("scale", "")).partition(":")[0]
  seeds = max((len(row["seeds"]) for row in rows), default=0)
  what = [scale and f"{scale} scale", header.get("data"), seeds and f"{seeds} seed{'s' if seeds > 1 else ''}"]
  how = "perplexity (lower is better) and BLEU (higher is better) against base; upper tick ours, lower the paper's"
  return f"{', '.join(filter(None, what))}; {how}"


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


def compare(rows):
  """Rows with what follows from them, and a summary.

  Each row gains, for both metrics m: m; m_range of its seeds, m_spread, half of that (None below two seeds);
  m_difference and paper_m_difference from base; m_agrees, whether these have one sign (None where one is
  missing or is printed as zero); m_noise, whether our difference is within the two rows' spreads. The summary
  holds, for both metrics: rank_correlation, its rows, agree and compared.
  """
  rows = [dict(row, status=row.get("status", "done"), seeds=row.get("seeds") or []) for row in rows]
  for row in rows:
    for m in METRICS:
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
  for m in METRICS:
    for row in rows:
      ours, paper = (
        None if row[k] is None or base.get(k) is None else row[k] - base[k] for k in (m, f"paper_{m}")
      )
      row[f"{m}_difference"], row[f"paper_{m}_difference"] = ours, paper
      # Signs are those of the printed figures, so that the table agrees with itself.
      signs = [round(d or 0, DIGITS[m]) for d in (ours, paper)]
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


def _cells(row):
  """The cells of a table row as text, in the order of HEAD."""
  value = row.get("value")
  paper_value = row.get("paper_value", value)
  cells = [
    row["row"],
    "" if value is None else str(value) + (f" ({paper_value})" if paper_value != value else ""),
  ]
  for key in ("params_ours", "params_paper"):
    value = row.get(key)
    cells.append("" if value is None else f"{value / 1e6:.{0 if key == 'params_paper' else 2}f}")
  for m in METRICS:
    spread = f" ± {row[f'{m}_spread']:.{DIGITS[m]}f}" if row[f"{m}_spread"] is not None else ""
    cells.append((_number(row[m], DIGITS[m]) or "–") + spread if row["status"] == "done" else "")
    cells.append(_number(row[f"paper_{m}"], DIGITS[m]))
    own = row["row"] == "base"
    cells += [
      "" if own else _number(row[k], DIGITS[m], True) for k in (f"{m}_difference", f"paper_{m}_difference")
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


GROUPS = (("", 2), ("Params, M", 2), ("Perplexity", 5), ("BLEU", 5), ("Training", 3))
HEAD = (
  ["Row", "Sets (paper)", "ours", "paper"]
  + ["ours", "paper", "Δ ours", "Δ paper", "sign"] * 2
  + ["seeds", "steps/s", "FLOPs"]
)
LEGEND = (
  "Δ is the difference from base; sign says whether ours has the paper's. A sign in brackets is one that our "
  "seeds cannot tell from chance: the difference is within the spread of the two rows. ± is half the "
  "distance between the best and the worst seed. An empty cell in the paper's parameters means as base."
)


def conclusions(summary):
  """The summary in sentences."""
  text = [f"{summary['ran']} of {summary['rows']} rows ran."]
  for m in METRICS:
    part = summary[m]
    if part["rank_correlation"] is None:
      text.append(f"{NAMES[m]}: too few rows for a rank correlation with the paper.")
    else:
      rho = _number(part["rank_correlation"], 2)
      text.append(
        f"{NAMES[m]}: Spearman's rank correlation with the paper is {rho} over {part['rows']} rows."
      )
    if part["compared"]:
      text.append(
        f"{NAMES[m]}: {part['agree']} of {part['compared']} differences from base have the paper's sign."
      )
  return text


def _header_pairs(header):
  for key, value in header.items():
    if key != "command":
      if isinstance(value, dict):
        value = ", ".join(f"{k} {v}" for k, v in value.items())
      yield "BLEU" if key == "bleu" else key.capitalize(), value


def markdown(header, rows, summary):
  # Cells come from files and flags: keep them from ending the cell or becoming markup.
  def safe(text):
    return re.sub(r"([\\|`*\[\]])", r"\\\1", theme.escape(" ".join(str(text).split())))

  lines = ["# Ablation grid", ""] + [f"- **{safe(k)}:** {safe(v)}" for k, v in _header_pairs(header)]
  if header.get("command"):
    lines += ["", *("    " + line for line in str(header["command"]).splitlines())]
  lines += ["", *(f"- {sentence}" for sentence in conclusions(summary)), ""]
  names = [
    f"{g} {h}".strip()
    for (g, n), start in zip(GROUPS, _starts(), strict=True)
    for h in HEAD[start : start + n]
  ]
  lines += [
    "| " + " | ".join(names) + " |",
    "|" + "|".join([" --- "] * 2 + [" ---: "] * (len(HEAD) - 2)) + "|",
  ]
  for row in rows:
    cells = [safe(cell) for cell in _cells(row)]
    if row["status"] != "done":
      cells[4] = f"*{safe(row['status'])}*"
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join([*lines, "", LEGEND, "", PARAMETERS_NOTE, ""])


def _starts():
  return [sum(n for _, n in GROUPS[:i]) for i in range(len(GROUPS))]


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


def _table(rows):
  starts = set(_starts()[1:])
  top = "".join(
    f'<th colspan="{n}"{" class=first" if i else ""}>{theme.escape(name)}</th>'
    for i, (name, n) in enumerate(GROUPS)
  )

  def kind(i):
    names = {"first": i in starts, "paper": "paper" in HEAD[i], "n": i > 1}
    return " ".join(name for name, true in names.items() if true)

  heads = "".join(f'<th class="{kind(i)}">{theme.escape(name)}</th>' for i, name in enumerate(HEAD))
  body, group = [], None
  for row in rows:
    cells = _cells(row)
    row_class = ' class="group"' if row.get("group") != group else ""
    group = row.get("group")
    line = [f'<td class="name">{theme.escape(cells[0])}</td>']
    for i, cell in enumerate(cells[1:], 1):
      if i == 4 and row["status"] != "done":
        line.append(f'<td class="first gone">{theme.escape(row["status"])}</td>')
      elif ";" in cell and HEAD[i] == "seeds":
        line.append(f'<td class="first gone">{theme.escape(cell)}</td>')
      else:
        line.append(f'<td class="{kind(i)}{" no" if cell == "no" else ""}">{theme.escape(cell)}</td>')
    body.append(f"<tr{row_class}>{''.join(line)}</tr>")
  return (
    f'<div class="scroll"><table class="grid"><thead><tr>{top}</tr><tr>{heads}</tr></thead>'
    f"<tbody>{''.join(body)}</tbody></table></div>"
  )


def document(header, rows, summary):
  tiles = [(f"{summary['ran']} / {summary['rows']}", "rows ran")]
  for m in METRICS:
    rho, signs = summary[m]["rank_correlation"], summary[m]
    tiles.append((_number(rho, 2) or "–", f"{NAMES[m]}: rank correlation with the paper"))
    tiles.append((f"{signs['agree']} / {signs['compared']}", f"{NAMES[m]}: same sign of difference"))
  tiles = "".join(f"<div><b>{theme.escape(v)}</b><span>{theme.escape(k)}</span></div>" for v, k in tiles)
  command = f"<pre>{theme.escape(header['command'])}</pre>" if header.get("command") else ""
  charts = "".join(
    f"<div>{theme.inline_svg(fig, label)}</div>" for label, fig in ablation_charts.factor_figures(rows)
  )
  ranks = "".join(
    f"<div>{theme.inline_svg(fig, label)}</div>" for label, fig in ablation_charts.rank_figures(rows)
  )
  text = "".join(f"<p>{theme.escape(sentence)}</p>" for sentence in conclusions(summary))
  body = f"""<h1>Ablation grid</h1>
<p class="note">Rows A to E of Table 3, “Attention Is All You Need” (Vaswani et al. 2017): run here and as
printed.</p>
<div class="head">{theme.definitions(_header_pairs(header))}</div>{command}<div class="tiles">{tiles}</div>
<section><h2>Rows</h2>{_table(rows)}<p class="note">{LEGEND}</p>
<p class="note">{PARAMETERS_NOTE}</p></section>
<section class="whole"><h2>One change at a time</h2>
<p class="note">Against base, each grid by its own: perplexity in per cent (down is better), BLEU in points
(up is better). Where two values stand below a point, the upper is ours and the lower the paper's. Bars span
the seeds; × is a row that did not run.
<span class="side ours">ours</span> <span class="side">paper</span></p>
<div class="plots small">{charts or "<p>No row with a chart.</p>"}</div></section>
<section class="whole"><h2>Order of the rows</h2>{text}<div class="ranks">{ranks}</div></section>"""
  return theme.page("Ablation grid", body, CSS)
