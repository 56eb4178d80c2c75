"""The report on the grid: figures that can be checked by hand, and rows that never ran."""

import functools

import numpy as np
import pytest
from scipy import stats

from attention_zoo.plots import ablation, ablation_charts
from launch.ablation_report import metrics

METRICS = metrics()
COLUMNS = [name for _, columns in ablation._head(METRICS) for name in columns]


def row(name, group, value, perplexity, bleu, paper_perplexity, paper_bleu, **more):
  ours = {"perplexity": perplexity, "bleu": bleu}
  paper = {"paper_perplexity": paper_perplexity, "paper_bleu": paper_bleu}
  return {"row": name, "group": group, "value": value, **ours, **paper, "status": "done", **more}


def rows():
  seeds = [{"seed": 0, "perplexity": 7.9, "bleu": 33.0}, {"seed": 1, "perplexity": 8.1, "bleu": 34.0}]
  return [
    row("base", "base", None, None, None, 4.92, 25.8, seeds=seeds, params_ours=1.5e6, params_paper=65e6),
    row("a_heads_1", "A", 1, 9.0, 31.0, 5.29, 24.9, seeds=[{"seed": 0, "perplexity": 9.0, "bleu": 31.0}]),
    row("a_heads_16", "A", 4, 8.2, 33.5, 4.91, 25.8, paper_value=16, steps_per_second=3.14159, flops=1.25e13),
    row(
      "c_layers_2",
      "C",
      2,
      7.0,
      35.0,
      6.11,
      23.7,
      seeds=[dict(s, perplexity=s["perplexity"] - 1) for s in seeds],
    ),
    row("d_dropout_0", "D", 0.0, 8.05, 33.0, 5.77, 24.6, seeds=seeds),
    row("e_learned_positions", "E", "learned", None, None, 4.92, 25.7, status="failed: log <b>|x"),
    row("big", "big", None, None, None, 4.33, 26.4, status="not run"),
  ]


HEADER = {
  "scale": "tiny",
  "data": "two <i>files</i>",
  "versions": {"jax": "0.10.2"},
  "command": "run --rows=a|b <x>",
}


@functools.cache
def report():
  return ablation.ablation_report({"header": HEADER, "rows": rows()}, METRICS)


def cells(markdown, name):
  line = next(line for line in markdown.splitlines() if line.startswith(f"| {name} |"))
  return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_comparison_by_hand():
  compared, summary = ablation.compare(rows(), METRICS)
  by_name = {r["row"]: r for r in compared}
  base, one, learned = by_name["base"], by_name["a_heads_1"], by_name["e_learned_positions"]
  assert base["perplexity"] == pytest.approx(8.0) and base["bleu"] == pytest.approx(33.5)
  assert base["perplexity_spread"] == pytest.approx(0.1) and base["perplexity_agrees"] is None
  assert one["perplexity_difference"] == pytest.approx(1.0) and one["bleu_difference"] == pytest.approx(-2.5)
  assert one["paper_perplexity_difference"] == pytest.approx(0.37)
  assert one["perplexity_agrees"] is True and one["perplexity_spread"] is None and not one["perplexity_noise"]
  # Better where the paper is worse: disagrees. No difference in the paper's BLEU: nothing to agree with.
  assert by_name["c_layers_2"]["perplexity_agrees"] is False
  assert by_name["a_heads_16"]["perplexity_agrees"] is False and by_name["a_heads_16"]["bleu_agrees"] is None
  # 8.05 against 8.0, with seeds 0.1 apart on either side, is no difference to speak of.
  assert by_name["d_dropout_0"]["perplexity_agrees"] is True and by_name["d_dropout_0"]["perplexity_noise"]
  assert learned["perplexity"] is None and learned["perplexity_difference"] is None
  assert (summary["ran"], summary["rows"]) == (5, 7)
  # Ours 8, 9, 8.2, 7, 8.05 ranks 2 5 4 1 3; the paper's 4.92, 5.29, 4.91, 6.11, 5.77 ranks 2 3 1 5 4.
  # 1 - 6 * (0 + 4 + 9 + 16 + 1) / (5 * 24) = -0.5
  assert summary["perplexity"]["rank_correlation"] == pytest.approx(-0.5)
  assert (summary["perplexity"]["agree"], summary["perplexity"]["compared"]) == (2, 4)


def test_rank_correlation_with_ties():
  ours, paper = [5.0, 3.0, 3.0, 1.0, 4.0], [25.8, 25.4, 25.4, 24.0, 25.4]
  np.testing.assert_array_equal(ablation.rank(ours), [5, 2.5, 2.5, 1, 4])
  assert ablation.spearman(ours, paper) == pytest.approx(stats.spearmanr(ours, paper).statistic)
  assert ablation.spearman([1, 2], [1, 2]) is None and ablation.spearman([1, 1, 1], [1, 2, 3]) is None


def test_markdown():
  text = report()[0]
  assert cells(text, "base")[2:6] == ["1.50", "65", "8.00 ± 0.10", "4.92"]
  one = cells(text, "a_heads_1")
  assert one[4:9] == ["9.00", "5.29", "+1.00", "+0.37", "yes"] and one[9:14] == [
    "31.0",
    "24.9",
    "−2.5",
    "−0.9",
    "yes",
  ]
  assert one[14] == "1"
  assert cells(text, "a_heads_16")[1] == "4 (16)" and cells(text, "a_heads_16")[-2:] == ["3.14", "1.2e13"]
  assert cells(text, "a_heads_16")[9:14] == ["33.5", "25.8", "0.0", "0.0", ""]
  assert cells(text, "d_dropout_0")[8] == "(yes)"
  assert cells(text, "big")[4:8] == ["*not run*", "4.33", "", "−0.59"]
  assert "5 of 7 rows ran." in text and "correlation with the paper is −0.50 over 5 rows" in text
  assert "Perplexity: 2 of 4 differences" in text and ablation.PARAMETERS_NOTE in text
  assert "base rows imply about 41k, big about 36k" in text and "    run --rows=a|b <x>" in text
  # A status may hold anything: it stays in its cell, and is no markup.
  assert len(cells(text, "e_learned_positions")) == len(COLUMNS)
  assert r"*failed: log &lt;b&gt;\|x*" in text and "two &lt;i&gt;files&lt;/i&gt;" in text


def test_seeds_that_did_not_finish_are_told_in_the_row():
  some = rows()
  some[1]["unfinished"] = ["seed 1 failed: boom <b>", "seed 2 not run"]
  text, html, _ = ablation.ablation_report({"header": HEADER, "rows": some}, METRICS)
  assert cells(text, "a_heads_1")[14] == "1 of 3; seed 1 failed: boom &lt;b&gt;; seed 2 not run"
  assert cells(text, "a_heads_1")[4] == "9.00"
  assert '<td class="first gone">1 of 3; seed 1 failed: boom &lt;b&gt;; seed 2 not run</td>' in html


def test_html():
  text = report()[1]
  for part in (
    "8.00 ± 0.10",
    "−0.50",
    "5 / 7",
    "not run",
    "failed: log &lt;b&gt;|x",
    "run --rows=a|b &lt;x&gt;",
  ):
    assert part in text, part
  assert "<b>|" not in text and "<i>" not in text and "two &lt;i&gt;files" in text
  assert ablation.PARAMETERS_NOTE in text
  # Charts for the four factors with rows, and the two orders.
  assert text.count('<svg class="plot"') == 6
  body = text[text.index("<tbody>") : text.index("</tbody>")]
  assert [part.count("<td") for part in body.split("</tr>")[:-1]] == [len(COLUMNS)] * 7


def test_figure(tmp_path):
  fig = report()[2]
  fig.savefig(tmp_path / "report.png")
  assert fig.get_suptitle().startswith("tiny scale, two <i>files</i>, 2 seeds; perplexity (lower is better)")
  labels = {axes.get_ylabel() for axes in fig.axes}
  assert {"perplexity, %", "BLEU, points"} <= labels
  assert [t.get_text() for t in fig.legends[0].get_texts()] == ["paper", "ours"]


def test_chart_values():
  compared, _ = ablation.compare(rows(), METRICS)
  points = ablation_charts.factor_points(compared, "a_heads", 8)
  assert [label for label, _ in points] == ["1", "8", "4\n16"]
  (_, fig) = ablation_charts.factor_figures(compared, METRICS)[0]
  paper, ours = fig.axes[0].lines[:2]
  np.testing.assert_allclose(paper.get_ydata(), [100 * (5.29 / 4.92 - 1), 0, 100 * (4.91 / 4.92 - 1)])
  np.testing.assert_allclose(ours.get_ydata(), [12.5, 0, 2.5])
  np.testing.assert_allclose(fig.axes[1].lines[0].get_ydata(), [-0.9, 0, 0], atol=1e-9)


def test_a_row_that_did_not_run_is_crossed():
  compared, _ = ablation.compare(rows(), METRICS)
  label, fig = ablation_charts.factor_figures(compared, METRICS)[-1]
  assert label.startswith("E") and [t.get_text() for t in fig.axes[0].texts] == ["×"]
  assert [t.get_text() for t in fig.axes[1].get_xticklabels()] == ["sinusoidal", "learned"]


@pytest.mark.parametrize("left", [0, 1, 2], ids=["no row", "base alone", "base and one"])
def test_a_grid_that_has_hardly_begun(left, tmp_path):
  markdown, html, fig = ablation.ablation_report({"header": HEADER, "rows": rows()[:left]}, METRICS)
  fig.savefig(tmp_path / "report.png")
  assert "too few rows for a rank correlation" in markdown and "<h1>" in html


def test_nothing_ran_and_no_header(tmp_path):
  unrun = [
    {k: v for k, v in r.items() if k in ("row", "group", "paper_perplexity")} | {"status": "not run"}
    for r in rows()
  ]
  markdown, html, fig = ablation.ablation_report({"rows": unrun}, METRICS)
  fig.savefig(tmp_path / "report.png")
  assert "0 of 7 rows ran." in markdown and html.count("not run</td>") == 7


def test_a_seed_without_figures_counts_for_nothing():
  one = rows()[:2]
  one[0]["seeds"].append({"seed": 2, "perplexity": float("nan"), "bleu": None})
  compared, _ = ablation.compare(one, METRICS)
  assert compared[0]["perplexity"] == pytest.approx(8.0)
  one[1].update(perplexity=float("inf"), seeds=[])
  assert cells(ablation.ablation_report({"rows": one}, METRICS)[0], "a_heads_1")[4] == "–"


def test_figures_of_a_row_that_failed_half_way_are_not_used():
  half = rows()
  half[1].update(status="failed: see log.txt", seeds=half[0]["seeds"])
  compared, summary = ablation.compare(half, METRICS)
  assert compared[1]["perplexity"] is None and compared[1]["perplexity_spread"] is None
  assert summary["ran"] == 4 and summary["bleu"]["rows"] == 4


def test_a_chart_without_a_difference_does_not_show_rounding():
  base, *others = rows()
  compared, _ = ablation.compare([base | {"seeds": base["seeds"][:1]}, *others], METRICS)
  figures = ablation_charts.factor_figures(compared, METRICS)
  (perplexity,) = [found.axes[0] for title, found in figures if title.startswith("E · positions: ")]
  assert np.ptp(perplexity.get_ylim()) > 0.1


def test_any_metrics_can_be_compared():
  """Three of them, of which these files know nothing: as many panels, columns, tiles and sentences."""
  some = [ablation_charts.Metric("fid", "FID", 1, lower=True), *METRICS]
  three = [row | {"fid": 10.0 + i, "paper_fid": 5.0 + i, "seeds": []} for i, row in enumerate(rows())]
  text, html, fig = ablation.ablation_report({"header": {"fid": "of 50,000"}, "rows": three}, some)
  assert (
    "FID: Spearman's rank correlation with the paper is 1.00 over 5 rows." in text and "- **FID:** of 50,000" in text
  )
  assert "FID Δ paper" in text and "FID in points (down is better)" in html and "perplexity in per cent" in html
  assert {"FID, points", "perplexity, %", "BLEU, points"} <= {axes.get_ylabel() for axes in fig.axes}
  assert "FID, lowest on top" in {axes.get_title() for axes in fig.axes}
