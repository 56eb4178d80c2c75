"""A trained run in use: translating, scoring, attention, loading."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import attention_zoo as zoo
from attention_zoo.errors import UserError

SENTENCES = ["seven", "one hundred and twelve", "", "forty-nine", "   ", "two hundred and ninety-four", "twenty-one"]


@pytest.fixture(scope="module")
def run(tiny_run):
  return zoo.load(tiny_run)


def test_every_line_gives_a_line_and_an_empty_one_stays_empty(run):
  out = run.translate(SENTENCES)
  assert len(out) == len(SENTENCES)
  assert out[2] == out[4] == ""
  assert all(out[i] for i in (0, 1, 3, 5, 6))
  assert run.translate([]) == []


def test_a_translation_does_not_depend_on_its_companions(run):
  together = run.translate(SENTENCES)
  assert run.translate(SENTENCES[::-1]) == together[::-1]
  assert [run.translate([sentence])[0] for sentence in SENTENCES[:2]] == together[:2]


def test_n_best_is_sorted_distinct_and_its_first_is_the_translation(run):
  found = run.hypotheses(SENTENCES[:2], n_best=3)
  for hypotheses, best in zip(found, run.translate(SENTENCES[:2]), strict=True):
    scores = [h.score for h in hypotheses]
    assert scores == sorted(scores, reverse=True)
    assert len({tuple(h.ids) for h in hypotheses}) == len(hypotheses) == 3
    assert hypotheses[0].text == best


def test_forced_decoding_gives_the_score_of_the_search(run):
  for hypothesis in run.hypotheses(["forty-nine"], n_best=3)[0]:
    scored = run._forced(
      run.params,
      *run._rows(run.encode(["forty-nine"]), 16, 8),
      *run._rows([hypothesis.ids], 32, 8),
      run.config.decode.alpha,
    )
    np.testing.assert_allclose([scored[0][0], scored[1][0]], [hypothesis.score, hypothesis.logprob], rtol=1e-4)


def test_score_prefers_the_translation_to_another(run):
  best = run.translate(["forty-nine"])[0]
  right, wrong = run.score(["forty-nine"] * 2, [best, best[::-1]])
  assert right.logprob > wrong.logprob
  assert run.score([], []) == []
  with pytest.raises(ValueError, match="as many targets"):
    run.score(["a"], [])


def test_attention_is_that_of_the_scored_pass(run):
  seen = run.attention("forty-nine")
  best = run.hypotheses(["forty-nine"])[0][0]
  N, layers = run.config.model.num_heads, run.config.model.num_decoder_layers
  assert seen.target == run.task.tokenizer.pieces(best.ids)
  assert seen.cross.shape == (layers, N, len(seen.target), len(seen.source))
  assert seen.encoder.shape == (layers, N, len(seen.source), len(seen.source))
  for weights in (seen.cross, seen.encoder, seen.decoder):
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
  assert np.triu(seen.decoder, 1).max() == 0
  np.testing.assert_allclose(seen.logprob, best.logprob, rtol=1e-4)
  assert run.attention("seven", "sieben").target[-1] == "</s>"


def test_long_input_is_named_and_cut(run):
  long = "seven " * 60
  assert run.too_long(["seven", long]) == [1]
  assert len(run.encode([long])[0]) == run.config.data.max_length
  assert len(run.translate([long])) == 1


@pytest.mark.parametrize(
  ("options", "message"), [({"n_best": 9}, "n_best must lie"), ({"n_best": 0}, "n_best must lie")]
)
def test_wrong_options_are_named(run, options, message):
  with pytest.raises(ValueError, match=message):
    run.translate(["seven"], **options)


def test_a_string_is_no_list_of_sentences(run):
  with pytest.raises(TypeError, match="list of sentences"):
    run.translate("seven")


def test_checkpoints_by_name_and_step(tiny_run, tmp_path):
  average, latest, step = (zoo.load(tiny_run, name) for name in ("average", "latest", 20))
  leaves = [np.asarray(jax.tree.leaves(run.params)[0]) for run in (average, latest, step)]
  assert not np.array_equal(leaves[0], leaves[1]) and not np.array_equal(leaves[1], leaves[2])
  assert zoo.load(tiny_run).checkpoint == "average"
  with pytest.raises(UserError, match="not the work directory"):
    zoo.load(tmp_path)
  with pytest.raises(UserError, match="7"):
    zoo.load(tiny_run, 7)


@pytest.mark.slow
def test_a_run_opens_elsewhere_on_one_device_without_configs(tiny_run, run, tmp_path):
  """Saved on 8 devices; opened by a process with 1, in another directory, from the installed package alone."""
  code = "import sys, attention_zoo as zoo; print(zoo.load(sys.argv[1]).translate(['forty-nine'])[0])"
  root = os.path.dirname(os.path.dirname(zoo.__file__))
  environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": root}
  out = subprocess.run(
    [sys.executable, "-c", code, str(tiny_run)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
  )
  assert out.stdout.strip() == run.translate(["forty-nine"])[0]


def test_evaluate_gives_all_figures(run):
  result = run.evaluate("test", beam_size=1)
  assert len(result["bleu"]) == 3 and all(row["signature"] for row in result["bleu"])
  perplexity = result["perplexity"]
  assert 1 < perplexity["per_subword"] < perplexity["per_subword_smoothed"]
  assert perplexity["per_subword"] < perplexity["per_word"]
  assert len(result["hypotheses"]) == len(result["references"]) == 20


def test_words_that_were_cut_off_have_no_perplexity(run, monkeypatch):
  """Their probability is not in the sum."""
  whole = run.perplexity("test")
  corpus = run.task.corpus("test")
  monkeypatch.setattr(run.task, "corpus", lambda split: dataclasses.replace(corpus, too_long=1))
  assert run.perplexity("test") == {name: whole[name] for name in ("per_subword", "per_subword_smoothed")}
