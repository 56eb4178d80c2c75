"""A trained run in use: translating, scoring, attention, loading."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import attention_zoo as zoo
from attention_zoo import tasks
from attention_zoo.errors import UserError
from attention_zoo.tasks import translation_scores

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
    ((_, source, target),) = run._rows.batches(run.encode(["forty-nine"]), [hypothesis.ids])
    scored = run._forced(run.params, *source, *target, run.config.decode.alpha)
    np.testing.assert_allclose([scored[0][0], scored[1][0]], [hypothesis.score, hypothesis.logprob], rtol=1e-4)


def test_bleu_is_that_of_the_target_language():
  chinese = ["我们今天去学校。", "他喜欢喝茶，也喜欢看书。"]
  config = ConfigDict({"data": {"languages": ("en", "zh"), "tokenized": False}})
  rows = translation_scores.scores(config, chinese, chinese)["bleu"]
  assert all("|tok:zh" in row["signature"] and round(row["score"], 6) == 100 for row in rows)


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
  ("options", "message"),
  [
    ({"n_best": 9}, "n_best must be a whole number from 1 to 3, not 9"),
    ({"n_best": 0}, "n_best must be"),
    ({"n_best": True}, "n_best must be"),
    ({"beam_size": 0}, "beam_size must be a whole number from 1 to 1000, not 0"),
    ({"beam_size": 100_000}, "beam_size must be"),
    ({"beam_size": 2.0}, "beam_size must be"),
    ({"beam_size": "2"}, "beam_size must be"),
    ({"alpha": "0.6"}, "alpha must be a number from -10 to 10, not str .'0.6'."),
    ({"alpha": float("nan")}, "alpha must be"),
    ({"alpha": -100}, "alpha must be"),
    ({"alpha": True}, "alpha must be"),
  ],
)
def test_wrong_options_are_named(run, options, message):
  with pytest.raises(UserError, match=message):
    run.hypotheses(["seven"], **options)


def test_wrong_options_of_every_verb_cost_nothing(run, monkeypatch):
  monkeypatch.setattr(run.task, "eval_batches", None)
  for call in (
    lambda: run.translate(["seven"], beam_size=0),
    lambda: run.score(["seven"], ["sieben"], alpha="0.6"),
    lambda: run.evaluate("test", alpha=float("inf")),
    lambda: run.evaluate("test", beam_size=100_000),
    lambda: run.evaluate(7),
    lambda: run.perplexity(None),
    lambda: run.attention(["seven"]),
    lambda: run.attention("seven", 7),
    lambda: run.align(["seven"], []),
  ):
    with pytest.raises(UserError):
      call()


def test_numbers_of_numpy_are_numbers(run):
  assert run.translate(["seven"], beam_size=np.int64(2), alpha=np.float32(0.5)) == run.translate(
    ["seven"], beam_size=2, alpha=0.5
  )


def test_any_iterable_of_strings_is_read_once(run, tmp_path):
  words = ["seven", "", "forty-nine"]
  expected = run.translate(words)
  assert all(expected[i] for i in (0, 2))
  (tmp_path / "in").write_bytes("\ufeffseven\r\n\nforty-nine".encode())
  with open(tmp_path / "in", encoding="utf-8") as file:
    assert run.translate(file) == expected
  for given in ((word for word in words), map(str, words), tuple(words), np.array(words), dict.fromkeys(words)):
    assert run.translate(given) == expected
  scores = run.score(iter(words), iter(expected))
  assert scores == run.score(words, expected) and len(scores) == 3
  assert run.too_long(iter(words)) == [] and len(run.encode(iter(words))) == 3


def test_a_sentence_is_no_list_of_sentences(run):
  """Its letters would be translated, or scored."""
  for call in (lambda: run.translate("seven"), lambda: run.hypotheses(b"seven"), lambda: run.score("ab", "cd")):
    with pytest.raises(UserError, match="must be a list of sentences, not a single string"):
      call()
  with pytest.raises(UserError, match="sources must be a list of sentences, not int .7."):
    run.score(7, ["a"])


@pytest.mark.parametrize("cell", [None, float("nan"), 7, b"seven", ["seven"], "\ud800"])
def test_a_cell_that_is_no_text_is_named(run, cell):
  with pytest.raises(UserError, match=r"sentences\[1\] (must be a string, not|holds half a surrogate)"):
    run.translate(["seven", cell])
  with pytest.raises(UserError, match=r"targets\[0\]"):
    run.score(["seven"], [cell])


def test_what_score_cuts_is_said_or_refused(run, monkeypatch, caplog):
  limit = run.config.data.max_length
  long = "sieben " * 60
  (found,) = run.score(["seven"], [long])
  assert f"1 of 1 targets are longer than config.data.max_length = {limit} pieces" in caplog.text
  assert len(found.ids) == limit and found.text == run.task.tokenizer.decode([found.ids[:-1]])[0] != long
  caplog.clear()
  run.score(["seven"], ["sieben"])
  assert not caplog.text
  run.translate(["seven", long])
  assert "1 of 2 sentences are longer" in caplog.text and "number 2 (" in caplog.text
  config = run.config.copy_and_resolve_references()
  config.data.too_long = "skip"
  monkeypatch.setattr(run, "config", config)
  with pytest.raises(UserError, match="1 of 2 targets are longer .*number 2"):
    run.score(["seven"] * 2, ["sieben", long])


def test_a_failed_model_has_no_scores(run, monkeypatch):
  monkeypatch.setattr(run, "params", jax.tree.map(lambda leaf: leaf * np.nan, run.params))
  for call in (
    lambda: run.translate(["seven"]),
    lambda: run.score(["seven"], ["sieben"]),
    lambda: run.attention("seven", "sieben"),
  ):
    with pytest.raises(UserError, match="not finite"):
      call()


def test_too_little_memory_is_one_sentence(run, monkeypatch):
  def search(*args, **options):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

  monkeypatch.setattr(run, "_search", search)
  with pytest.raises(UserError, match="not enough memory to decode: .*batch_tokens = 256"):
    run.translate(["seven"])


def test_a_wider_beam_gets_fewer_rows(run):
  rows = lambda beam_size: [source[0].shape[0] for _, source in run._rows.batches([[5] * 16] * 16, beam_size=beam_size)]
  assert rows(1) == rows(3) == [16] and rows(6) == [8, 8]


def test_alignment_is_the_largest_weight_of_the_pass(run):
  """One decoder layer: the mean of its heads, whatever shares the batch."""
  sentences = ["forty-nine", "", "one hundred and twelve"]
  found = [hypotheses[0] for hypotheses in run.hypotheses(sentences)]
  aligned = run.align(sentences, found)
  assert aligned[1] == []
  for i in (0, 2):
    seen = run.attention(sentences[i])
    assert aligned[i] == seen.cross[-1].mean(0).argmax(-1).tolist()
    assert len(aligned[i]) == len(found[i].ids)


def test_soft_alignment_is_the_weights_of_the_pass(run):
  """Of given targets, whatever shares the batch, without padding."""
  sources, targets = ["forty-nine", "one hundred and twelve"], ["neunundvierzig", "hundert"]
  found = run.soft_align(sources, targets)
  for source, target, (ours, theirs, weights_TS) in zip(sources, targets, found, strict=True):
    seen = run.attention(source, target)
    assert (ours, theirs) == (seen.source, seen.target)
    np.testing.assert_allclose(weights_TS, seen.cross[-1].mean(0), rtol=1e-5, atol=1e-6)
  with pytest.raises(UserError, match="as many targets as sources, got 1 and 2"):
    run.soft_align(sources, targets[:1])


@pytest.fixture
def stochastic(run):
  """Sets options of the stochastic beam search, and puts back what was there."""
  kept = run.config.decode.to_dict()

  def use(temperature=1.0, seed=0):
    with run.config.unlocked():
      sizes = "samples=3, segment_length=2"
      run.config.decode.search = f"stochastic_beam({sizes}, temperature={temperature}, seed={seed})"

  yield use
  with run.config.unlocked():
    run.config.decode.update(kept)


def test_stochastic_search_is_a_function_of_the_seed_and_the_sentence(run, stochastic):
  stochastic(temperature=2.0)
  together = run.hypotheses(SENTENCES, n_best=2)
  assert [h[0].text for h in together] == run.translate(SENTENCES[::-1])[::-1]
  assert run.hypotheses(SENTENCES[1:2], n_best=2)[0] == together[1]
  scored = run.score([SENTENCES[1]], [together[1][0].text])[0]
  if scored.ids == together[1][0].ids:  # the pieces that were drawn may not be those that the text is cut into
    assert scored.logprob == pytest.approx(together[1][0].logprob, rel=1e-4)
  stochastic(temperature=2.0, seed=1)
  assert run.hypotheses(SENTENCES, n_best=2) != together


def test_stochastic_search_takes_no_constraints(run, stochastic):
  stochastic()
  for options in ({"prefixes": ["a"]}, {"force_words": [["a"]]}):
    with pytest.raises(UserError, match='"stochastic_beam" takes no prefixes and no force_words: set it to "beam"'):
      run.translate(["seven"], **options)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("bream", "there is no search 'bream' \\(did you mean 'beam'\\?\\)"),
    ("beam(seed=1)", "beam has no option 'seed'"),
    ("stochastic_beam(samples=0)", "samples from 1 to 128"),
    ("stochastic_beam(temperature=-1.0)", "temperature from 0"),
  ],
)
def test_a_search_that_there_is_not(run, tiny_run, text, message):
  config = run.config.copy_and_resolve_references()
  config.decode.search = text
  with pytest.raises(UserError, match=f"config.decode.search: .*{message}"):
    tasks.make(config, tiny_run)


def test_progress_adds_up_to_all_sentences(run):
  calls = []
  run.translate(SENTENCES, report=lambda done, total: calls.append((done, total)))
  assert sum(done for done, _ in calls) == len(SENTENCES) and {total for _, total in calls} == {len(SENTENCES)}


def test_a_run_says_what_it_is(run, tiny_run):
  text = repr(run)
  assert "en -> de" in text and "average" in text and str(tiny_run) in text and "\n" not in text
  assert f"{sum(leaf.size for leaf in jax.tree.leaves(run.params)):,} parameters" in text


def test_checkpoints_by_name_and_step(tiny_run, tmp_path):
  average, latest, step = (zoo.load(tiny_run, name) for name in ("average", "latest", 20))
  leaves = [np.asarray(jax.tree.leaves(run.params)[0]) for run in (average, latest, step)]
  assert not np.array_equal(leaves[0], leaves[1]) and not np.array_equal(leaves[1], leaves[2])
  assert zoo.load(tiny_run).checkpoint == "average"
  with pytest.raises(UserError, match="not the work directory"):
    zoo.load(tmp_path)
  with pytest.raises(UserError, match="7"):
    zoo.load(tiny_run, 7)
  for checkpoint in ("²", "newest", 1.5):
    with pytest.raises(UserError, match="checkpoint must be"):
      zoo.load(tiny_run, checkpoint)


@pytest.mark.slow
def test_a_run_opens_elsewhere_on_one_device_without_configs(tiny_run, run, tmp_path):
  """Saved on 8 devices; opened by a process with 1, in another directory, from the installed package alone."""
  code = "import sys, attention_zoo as zoo; print(zoo.load(sys.argv[1]).translate(['forty-nine'])[0])"
  root = os.path.dirname(os.path.dirname(zoo.__file__))
  environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": root}
  out = subprocess.run(
    [sys.executable, "-c", code, str(tiny_run)],
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
    check=True,
  )
  assert out.stdout.strip() == run.translate(["forty-nine"])[0]


def test_evaluate_gives_all_figures(run):
  result = run.evaluate("test", beam_size=1).record
  assert len(result["bleu"]) == 3 and all(row["signature"] for row in (*result["bleu"], result["chrf"]))
  assert result["chrf"]["name"] == "chrF2" and 0 < result["chrf"]["score"] < 100
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


def test_words_that_cannot_be_counted_have_no_perplexity(run, monkeypatch):
  config = run.config.copy_and_resolve_references()
  config.data.languages = ("en", "zh")
  monkeypatch.setattr(run.task, "config", config)
  assert set(run.perplexity("test")) == {"per_subword", "per_subword_smoothed"}


def test_an_empty_split_is_named(run, monkeypatch):
  monkeypatch.setattr(run.task.source, "pairs", lambda split: iter(()))
  for verb in (run.evaluate, run.perplexity):
    with pytest.raises(UserError, match="split 'test' is empty"):
      verb("test")
