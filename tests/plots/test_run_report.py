"""The page about a run: all that was given is in it, and nothing of it can act."""

import re

import numpy as np
import pytest

from attention_zoo.plots import report
from attention_zoo.protocols import Score

EVIL = "<script>alert('x')</script>"
WEIGHTS = np.full((1, 2, 2, 2), 0.5)
METRICS = [
  {"step": 100, "loss": 2.0, "perplexity": 7.39, "tokens_per_second": 1234.0},
  {"step": 100, "dev_loss": 2.1, "dev_perplexity": 8.17},
]


def full(**change):
  arguments = {
    "title": "Quickstart & " + EVIL,
    "config_rows": [
      ("task", "translation"),
      ("model.d_model", 128),
      ("data.languages", ("en", "de")),
      ("data.dir", EVIL),
    ],
    "metrics": METRICS,
    "scores": [
      Score("perplexity", 8.17),
      Score("sacreBLEU", 93.214, "nrefs:1|tok:13a"),
      Score("tokenised", 94.0, EVIL),
    ],
    "samples": [
      {"source": s, "translation": t, "reference": r}
      for s, t, r in (("Good day.", "Guten Tag!", "Guten Tag."), (EVIL, EVIL, ""), ("Zurich", "Zürich", "Zürich"))
    ],
    "compare": ("translation", "reference"),
    "attention_note": "Rows are " + EVIL,
    "headline": ["sacreBLEU", "perplexity", "tokens_per_second"],
    "attentions": [(EVIL, WEIGHTS, [EVIL, "</s>"], ["▁Zürich", "</s>"])],
    "versions": {"jax": "0.10.2"},
    "command": "python -m attention_zoo.train --config=" + EVIL,
  }
  return report.run_report(**arguments | change)


def test_everything_is_there():
  text = full()
  for part in (
    "93.21",
    "94.00",
    "8.1700",
    "<b>93.21</b><span>sacreBLEU</span>",
    "<b>1,234</b><span>tokens per second (median)</span>",
    "Guten <mark>Tag!</mark>",
    "Words that the reference does not have",
    "nrefs:1|tok:13a",
    "<dd>128</dd>",
    "<dd>en, de</dd>",
    "<dd>0.10.2</dd>",
    "Zürich",
  ):
    assert part in text, part
  sections = re.findall(r'<section id="(\w+)">', text)
  assert sections == re.findall(r'<a href="#(\w+)"', text)
  assert sections == ["scores", "learning", "samples", "attention", "settings"]  # what it is read for comes first
  assert len(re.findall('<svg class="plot"', text)) == 3  # loss, perplexity, tokens per second
  assert "<b>8.17</b><span>dev perplexity, last</span>" in text


def test_settings_stand_in_even_columns():
  sizes = {"model": 18, "data": 17, "optimizer": 6, "train": 9, "decode": 4, "run": 1, "mesh": 2}
  columns = report._columns({name: [(f"f{i}", i) for i in range(size)] for name, size in sizes.items()})
  heights = [sum(text.count("<dt>") for text in column) for column in columns]
  assert sum(heights) == sum(sizes.values()) and max(heights) - min(heights) <= 4
  assert re.search(r"\.zoo table\.even td {[^}]*overflow-wrap: anywhere", full()) and 'class="stack even"' in full()


def test_nothing_given_can_act():
  text = full()
  assert "<script>alert" not in text and "'x')</script>" not in text
  assert text.count("&lt;script&gt;alert(") >= 8
  assert not re.search(r'(?:src|href)="(?!#)', text)
  assert "http://" not in text.replace("http://www.w3.org/", "")


def test_differences_from_the_reference_are_marked():
  assert report.marked("Guten Tag!", "Guten Tag.") == "Guten <mark>Tag!</mark>"
  assert report.marked("a <b> c", "a c") == "a <mark>&lt;b&gt;</mark> c"
  assert report.marked("a b", "") == "a b"


def test_empty_parts_are_left_out():
  text = report.run_report("t", [("a", 1)], [])
  assert re.findall(r'<section id="(\w+)">', text) == ["settings"]
  assert "<figure" not in text


def test_several_runs_are_laid_over_each_other():
  text = full(metrics={"one": METRICS, "two": METRICS})
  assert "one · train" in text and "two · dev" in text


def test_weights_are_checked():
  with pytest.raises(ValueError, match="sums to 0.8"):
    full(attentions=[("t", WEIGHTS * 0.8, ["a", "b"], ["a", "b"])])


def test_a_task_of_which_the_page_knows_nothing():
  """Other scores without signatures, other columns, other curves."""
  rows = [{"step": step, "dev/fid": 9.0 - step, "pixels_per_second": 5.0} for step in (1, 2)]
  text = report.run_report(
    "t", [], rows, scores=[Score("FID", 7.0)], samples=[{"prompt": "a  b\nc", "caption": EVIL}],
    curve_names=["fid", "pixels_per_second", "loss"], headline=["FID", "fid", "pixels_per_second"],
  )  # fmt: skip
  assert (
    "Signature" not in text
    and "7.0000" in text
    and "<th>Prompt</th><th>Caption</th>" in text
    and "a  b\nc</td>" in text
  )
  assert text.count('<svg class="plot"') == 2 and "fid over steps" in text and "<mark>" not in text
  for tile in ("<b>7.0000</b><span>FID", "<b>7</b><span>dev fid, last", "<b>5</b><span>pixels per second (median)"):
    assert tile in text, tile
