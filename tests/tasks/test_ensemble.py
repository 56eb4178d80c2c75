"""Ensembles of trained runs."""

import json

import jax
import numpy as np
import pytest

import attention_zoo as zoo
from attention_zoo import cli
from attention_zoo.errors import UserError
from attention_zoo.tasks import translation_lines
from attention_zoo.tasks.teacher_forcing import teacher_forcing

SENTENCES = ["seven", "", "one hundred and twelve", "forty-nine"]


@pytest.fixture(scope="module")
def runs(tiny_run):
  """Of one training, ten steps and all: two models that differ as much as tests need."""
  return zoo.load(tiny_run, 20), zoo.load(tiny_run, "latest")


@pytest.fixture(scope="module")
def both(runs):
  return zoo.ensemble(runs)


def test_one_run_twice_is_that_run(runs):
  found = zoo.ensemble([runs[0], runs[0]]).hypotheses(SENTENCES, n_best=2)
  for mine, others in zip(found, runs[0].hypotheses(SENTENCES, n_best=2), strict=True):
    assert [h.ids for h in mine] == [h.ids for h in others]
    np.testing.assert_allclose([h.score for h in mine], [h.score for h in others], rtol=1e-4)


def test_scores_are_of_the_mean_distribution(runs, both):
  found = both.hypotheses(SENTENCES, n_best=3)
  assert found == both.hypotheses(SENTENCES[::-1], n_best=3)[::-1]
  pairs = [(i, h) for i, hypotheses in enumerate(found) for h in hypotheses if h.ids]
  sources = both.encode([SENTENCES[i] for i, _ in pairs])
  logits = [jax.jit(run.task.logits) for run in runs]
  for indices, source, target in both._rows.batches(sources, [h.ids for _, h in pairs]):
    batch = teacher_forcing(*source, *target)
    each = [jax.nn.softmax(np.asarray(of(run.params, batch), np.float64)) for of, run in zip(logits, runs, strict=True)]
    assert abs(each[0] - each[1]).max() > 0.01
    for b, i in enumerate(indices):
      ids = pairs[i][1].ids
      logprob = np.log(np.mean(each, axis=0)[b, np.arange(len(ids)), ids]).sum()
      np.testing.assert_allclose(pairs[i][1].logprob, logprob, rtol=1e-4)
  scored = both.score([SENTENCES[i] for i, _ in pairs], [h.text for _, h in pairs])
  same = [(h, s) for (_, h), s in zip(pairs, scored, strict=True) if h.ids == s.ids]
  assert same
  np.testing.assert_allclose([h.score for h, _ in same], [s.score for _, s in same], rtol=1e-4)


def test_it_takes_a_greedy_search_prefixes_and_words(both):
  (text,) = both.translate(["seven"], beam_size=1, prefixes=["zwei"], force_words=[["acht"]])
  assert text.startswith("zwei") and "acht" in text


def test_it_is_evaluated(runs, both):
  """One run twice has that run's figures; two have less than the mean of their losses (Jensen)."""
  losses = [run.dev_loss() for run in runs]
  twice = zoo.ensemble([runs[0], runs[0]])
  expected = runs[0].perplexity("test")
  np.testing.assert_allclose([*twice.perplexity("test").values()], [*expected.values()], rtol=1e-4)
  nll = lambda run: np.log(run.perplexity("test")["per_subword"])
  assert nll(both) < np.mean([nll(run) for run in runs])
  assert np.isfinite(both.dev_loss()) and losses[0] != losses[1]
  assert len(both.evaluate("test", beam_size=1).record["hypotheses"]) == 20


def test_json_lines_and_what_an_ensemble_has_not(both):
  found = both.hypotheses(["seven"])
  (line,) = translation_lines.json_lines(both, [{"source": "seven"}], "source", found)
  (translation,) = json.loads(line)["translations"]
  assert len(translation["alignment"]) == len(found[0][0].ids)
  assert "Ensemble of 2: <Translator" in repr(both) and both.checkpoint == "20, latest"
  for call in (lambda: both.attention("seven"), lambda: both.page(None)):
    with pytest.raises(UserError, match="an ensemble has no"):
      call()


def test_what_does_not_go_together_is_named(runs, monkeypatch, tiny_run):
  for given, message in (
    ([], "at least one run"),
    (7, "runs must be a list of runs, not int"),
    ([runs[0], "runs/b"], r"runs\[1\] must be a translation run as zoo.load returns it, not a str"),
  ):
    with pytest.raises(UserError, match=message):
      zoo.ensemble(given)
  other = zoo.load(tiny_run)
  monkeypatch.setattr(other.task.tokenizer, "fingerprint", "another")
  with pytest.raises(UserError, match="have different vocabularies"):
    zoo.ensemble([runs[0], other])
  turned = zoo.load(tiny_run)
  turned.config.data.languages = ("de", "en")
  with pytest.raises(UserError, match="translates de -> en, and .* en -> de"):
    zoo.ensemble([runs[0], turned])


def test_the_shortest_limits_are_everybodys(runs, tiny_run):
  short = zoo.load(tiny_run)
  short.config.data.max_length = 9
  found = zoo.ensemble([runs[0], short])
  assert len(found.encode(["seven " * 60])[0]) == 9 and runs[0].config.data.max_length == 32


def test_a_list_of_folders(tmp_path):
  (tmp_path / "a,b").mkdir()
  assert cli.paths("a,b") == ["a", "b"] and cli.paths("a") == ["a"]
  assert cli.paths(f"{tmp_path}/a,b") == [f"{tmp_path}/a,b"]
