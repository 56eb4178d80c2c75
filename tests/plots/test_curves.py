"""Learning curves: the right values of the right split, whatever a log may hold."""

import math

import pytest

from attention_zoo.plots import curves

ROWS = [
  {"step": 10, "loss": 3.0, "perplexity": 500.0, "learning_rate": 1e-4, "tokens_per_second": 100_000.0},
  {"step": 20, "loss": 2.0, "perplexity": 7.4, "learning_rate": 2e-4, "tokens_per_second": 110_000.0},
  {"step": 20, "dev_loss": 2.5, "dev_perplexity": 12.2},
  {"step": 30, "loss": float("nan"), "note": "skipped", "ok": None},
]


def test_series_by_split():
  assert curves.series(ROWS, "loss") == {"train": ((10, 20), (3.0, 2.0)), "dev": ((20,), (2.5,))}
  assert curves.series([{"step": 1, "test/loss": 1}], "loss") == {"test": ((1,), (1.0,))}
  assert curves.series(ROWS, "note") == {} and curves.series(ROWS, "ok") == {}


def test_a_step_logged_twice_counts_as_last_logged():
  rows = [
    {"step": 10, "loss": 3.0},
    {"step": 20, "loss": 9.0},
    {"step": 20, "loss": 2.0},
    {"step": 15, "loss": 2.5},
  ]
  assert curves.series(rows, "loss")["train"] == ((10, 15, 20), (3.0, 2.5, 2.0))


def test_thin_takes_means():
  assert curves.thin([1, 2, 3, 4, 5], [1, 3, 5, 7, 9], points=3) == ([1.5, 3.5, 5], [2, 6, 9])
  assert curves.thin([1, 2], [5, 6]) == ([1, 2], [5, 6])


def panels(fig):
  return {axes.get_title(loc="left"): axes for axes in fig.axes if axes.get_visible()}


def test_figure_of_one_run(tmp_path):
  fig = curves.curves_figure(ROWS, title="Größe")
  fig.savefig(tmp_path / "one.png")
  axes = panels(fig)
  assert list(axes) == ["loss", "perplexity", "learning rate", "tokens per second"]
  assert all(a.get_xlabel() == "step" for a in axes.values())
  train, dev = axes["loss"].lines
  assert list(train.get_xdata()) == [10, 20] and list(train.get_ydata()) == [3.0, 2.0]
  assert list(dev.get_ydata()) == [2.5] and dev.get_marker() == "o"
  assert [t.get_text().strip() for t in axes["loss"].get_legend().get_texts()] == ["train", "dev"]
  assert axes["loss"].get_yscale() == "linear" and axes["perplexity"].get_yscale() == "log"
  assert axes["learning rate"].get_ylabel() == "×10⁻³"
  assert axes["tokens per second"].yaxis.get_major_formatter()(100_000, 0) == "100k"


def test_figure_of_several_runs(tmp_path):
  fig = curves.curves_figure({"base": ROWS, "_pre $-LN <b>": ROWS[:3]}, ["loss", "nothing"])
  fig.savefig(tmp_path / "several.png")
  (axes,) = panels(fig).values()
  labels = [t.get_text().strip() for t in axes.get_legend().get_texts()]
  assert labels == ["base · train", "base · dev", "_pre $-LN <b> · train", "_pre $-LN <b> · dev"]
  assert axes.lines[0].get_color() == axes.lines[1].get_color() != axes.lines[2].get_color()


def test_long_runs_stay_small():
  rows = [{"step": i, "loss": math.sin(i)} for i in range(10_000)]
  (line,) = panels(curves.curves_figure(rows))["loss"].lines
  assert len(line.get_xdata()) == curves.MAX_POINTS


@pytest.mark.parametrize("rows", [[], [{"step": 1}], [{"step": 1, "loss": math.inf}]])
def test_nothing_to_draw(rows):
  with pytest.raises(ValueError, match="No metrics to draw"):
    curves.curves_figure(rows)
