"""The claims run, in their smallest sizes, and say what is true; and their parts are what they are called."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import matplotlib
import pytest

from attention_zoo import models
from attention_zoo.plots.theme import STYLE
from benchmarks.claims import bottleneck, flops, one_head, path_length, relative_memory, report, saturation, scaling

SMALL = {
  "flops": flops,
  "relative_memory": relative_memory,
  "path_length": path_length,
  "one_head": one_head,
  "saturation": saturation,
}


@pytest.fixture(scope="module")
def results():
  return {name: claim.measure(quick=True) for name, claim in SMALL.items()}


def rows_of(results, *parts):
  return [row for row in results["rows"] if all(part in row[0] for part in parts)]


def test_flops_agree_with_the_formula(results):
  assert len(rows_of(results["flops"])) == 8
  for what, _, analytic, measured in results["flops"]["rows"]:
    assert measured == pytest.approx(analytic, rel=0.05), what


def test_skewing_saves_the_width_of_a_head(results):
  gathered, table, _, *_ = results["relative_memory"]["rows"]
  assert gathered[2] == "8.389 MB" and table[2] == "0.066 MB"
  assert table[3] == table[2]
  memory = results["relative_memory"]
  assert memory["gather"][-1] > 8 * memory["skew"][-1]


def test_path_lengths_are_the_formulas(results):
  for what, _, analytic, measured in results["path_length"]["rows"]:
    assert measured == analytic, what


def test_one_head_does_not_do():
  left = {
    row[0].split(":")[0]: row[3] for row in one_head.measure(quick=False)["rows"] if "variance" in row[0]
  }
  assert left["1 head"] == pytest.approx(2 / 3, abs=0.03)
  assert left["2 heads"] == pytest.approx(1 / 3, abs=0.03)
  assert left["3 heads"] < 0.01 and left["convolution, width 3"] < 0.01


def test_the_scale_keeps_entropy_and_gradient(results):
  scaled, plain = (results["saturation"]["curves"][name][-1] for name in ("scaled", "not scaled"))
  assert plain["deviation"] == pytest.approx(8, rel=0.05)
  assert scaled["entropy"] > 3 * plain["entropy"]


def test_the_two_sides_of_the_bottleneck_differ_in_the_model_alone():
  for kind in bottleneck.KINDS:
    one, other = (bottleneck.config_of(kind, model, bottleneck.FULL).to_dict() for model in bottleneck.MODELS.values())
    fields = one.pop("model"), other.pop("model")
    assert one == other and repr(kind) in one["data"]["source"]
    assert fields[0]["d_hidden"] == fields[1]["d_hidden"] and fields[0]["d_model"] == fields[1]["d_model"]
    sizes = [
      (module := models.find(f.pop("name"))).parameter_count(module.Config(vocab_size=57, **f)) for f in fields
    ]
    # Without attention it has no fewer.
    assert 1 <= sizes[0] / sizes[1] < 1.15


def test_the_bottleneck_is_measured_by_length(monkeypatch):
  monkeypatch.setattr(bottleneck, "KINDS", ("copy",))
  found = bottleneck.measure(quick=True)
  for name, run in found["runs"]["copy"].items():
    assert run["edges"] == [(1, 2), (3, 4)] and sum(run["count"]) == 40 and min(run["count"]) > 0
    assert run["parameters"] == run["closed_form"], name
    assert all(0 <= share <= 1 for share in (*run["words"], *run["sentences"]))
  told = {row[0] for row in found["rows"]}
  assert told >= {"copy, with attention, 1 to 2 words", "copy, without attention, 3 to 4 words"}
  with matplotlib.rc_context(STYLE):
    assert bottleneck.draw(found | {"runs": {"copy": found["runs"]["copy"], "reverse": found["runs"]["copy"]}}).axes


def test_words_in_their_places_are_counted():
  assert bottleneck._in_place("a b c", "a c c") == 2
  assert bottleneck._in_place("a b", "a b c") == 2 and bottleneck._in_place("", "a") == 0


@pytest.mark.parametrize("variant", scaling.VARIANTS, ids=lambda variant: variant.name)
def test_every_variant_to_be_timed_has_a_sequence_as_its_result(variant):
  function, shapes = variant.make(1024)
  out = jax.eval_shape(function, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
  assert out.size == 1024 * scaling.WIDTH


def test_scaling_fits_exponents_and_stops_in_time():
  variants = [
    variant for variant in scaling.VARIANTS if variant.name in ("separable convolution", "Shaw, gathered")
  ]
  measured = scaling.measure(quick=True, variants=variants)
  gathered, separable = (measured["curves"][variant.name] for variant in variants)
  assert [point["n"] for point in separable] == [1024, 2048, 4096]
  assert separable[0]["seconds"] > 0
  # The gathered rows take 4 n^2 width bytes: too much to be run from the start.
  assert [point["seconds"] for point in gathered] == [None] * 3
  assert gathered[-1]["bytes"] > 4 * 4096**2 * scaling.WIDTH
  assert measured["rows"][0][3] == "–, 2.00"
  assert measured["rows"][1][3].endswith(", 1.00")
  with matplotlib.rc_context(STYLE):
    assert scaling.draw(measured).axes


def test_figures_are_drawn(results):
  with matplotlib.rc_context(STYLE):
    for name, claim in SMALL.items():
      assert claim.draw(results[name]).axes, name


def test_numbers_as_texts():
  assert [report.text(value) for value in (None, "x", 0, 0.25, 4000, 6e9, 9.9996e9, 1e-5)] == [
    "–", "x", "0", "0.25", "4000", "6.000e9", "1.000e10", "1.000e-5",
  ]  # fmt: skip
  assert report.log_slope([1, 10, 100], [3, 300, 30000]) == pytest.approx(2)


def test_the_command_writes_table_and_plot(tmp_path):
  command = [sys.executable, "-m", "benchmarks.claims", "saturation", "--quick", "--out", str(tmp_path)]
  run = subprocess.run(command, capture_output=True, text=True, timeout=300)
  assert run.returncode == 0, run.stderr
  assert "measured" in run.stdout
  written = json.loads((tmp_path / "saturation.json").read_text())
  assert written["run"]["command"].endswith("--quick")
  table = (tmp_path / "RESULTS.md").read_text()
  assert "| entropy, d_k = 64, scaled |" in table and "![saturation](saturation.png)" in table
  assert (tmp_path / "saturation.png").read_bytes().startswith(b"\x89PNG")
  assert not list(tmp_path.glob("*.tmp"))


def test_an_unknown_claim_is_refused():
  run = subprocess.run(
    [sys.executable, "-m", "benchmarks.claims", "flop"], capture_output=True, text=True, timeout=300
  )
  assert run.returncode == 2
  assert "invalid choice: 'flop'" in run.stderr
