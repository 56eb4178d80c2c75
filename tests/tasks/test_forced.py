"""Translations with a given beginning and given words, through a trained run."""

import json

import numpy as np
import pytest

import attention_zoo as zoo
from attention_zoo.decoding.constraints import UNCONSTRAINED
from attention_zoo.errors import UserError
from attention_zoo.tasks import translation_lines
from attention_zoo.tasks.forced import Forced
from tests.compilations import compilations

SENTENCES = ["seven", "", "one hundred and twelve", "forty-nine"]


@pytest.fixture(scope="module")
def run(tiny_run):
  return zoo.load(tiny_run)


def ids_of(run, text):
  return run.task.tokenizer.encode([text])[0]


def holds(ids, phrase):
  return any(ids[i : i + len(phrase)] == phrase for i in range(len(ids)))


def test_every_hypothesis_begins_with_its_prefix(run):
  prefixes = ["zwei", "", "", "hundert ein"]
  found = run.hypotheses(SENTENCES, prefixes=iter(prefixes), n_best=3)
  for hypotheses, prefix in zip(found, prefixes, strict=True):
    ids = ids_of(run, prefix)
    assert hypotheses and all(h.ids[: len(ids)] == ids and h.text.startswith(prefix) for h in hypotheses)
  assert found[1][0].text == ""
  plain = run.hypotheses(SENTENCES, n_best=3)
  assert found[2] == plain[2] and found[0] != plain[0]  # beside companions with a prefix, one without is as ever
  assert run.hypotheses(SENTENCES, prefixes=[""] * 4, force_words=[[]] * 4, n_best=3) == plain


def test_scores_count_the_prefix(run):
  (found,) = run.hypotheses(["forty-nine"], prefixes=["zwei"])[0]
  ((_, source, target),) = run._rows.batches(run.encode(["forty-nine"]), [found.ids])
  scored = run._forced(run.params, *source, *target, run.config.decode.alpha)
  np.testing.assert_allclose([scored[0][0], scored[1][0]], [found.score, found.logprob], rtol=1e-4)


def test_the_beginning_of_a_translation_gives_the_translation(run):
  (best,) = run.hypotheses(["one hundred and twelve"])[0]
  for length in range(1, len(best.ids)):
    prefix = run.task.tokenizer.decode([best.ids[:length]])[0]
    if ids_of(run, prefix) == best.ids[:length]:
      (again,) = run.hypotheses(["one hundred and twelve"], prefixes=[prefix])[0]
      assert again.ids == best.ids
      np.testing.assert_allclose(again.score, best.score, rtol=1e-4)
  assert length > 1


def test_every_hypothesis_holds_its_words(run, caplog):
  words = [["acht"], [], [], ["hundert", "zwei", "zwei"]]
  found = run.hypotheses(SENTENCES, force_words=iter(words), n_best=3)
  for hypotheses, some in zip(found, words, strict=True):
    assert hypotheses
    for hypothesis in hypotheses:
      assert all(holds(hypothesis.ids, ids_of(run, word)) and word in hypothesis.text for word in some)
      assert not hypothesis.missing and (not some or run.task.tokenizer.pieces(hypothesis.ids[-1:]) == ["</s>"])
  plain = run.hypotheses(SENTENCES, n_best=3)
  assert found[2] == plain[2] and found[0] != plain[0]
  assert not caplog.text


def test_a_greedy_search_takes_prefix_and_words_together(run):
  options = {"beam_size": 1, "prefixes": ["zwei", "", "", ""], "force_words": [["acht"], [], [], ["ein", "acht"]]}
  first, _, third, last = run.translate(SENTENCES, **options)
  assert first.startswith("zwei") and "acht" in first and "acht" in last and "ein" in last
  assert third == run.translate(SENTENCES, beam_size=1)[2]


def test_words_without_room_are_told(run, caplog):
  word = "zwei" * 20
  found = run.hypotheses(["seven", "forty-nine"], force_words=[[word], ["acht"]])
  assert word in found[0][0].missing and found[1][0].missing == ()
  assert "1 of 2 translations have no room for their force_words: number 1 (zweizwei" in caplog.text
  lines = translation_lines.json_lines(run, [{"source": "seven"}, {"source": "forty-nine"}], "source", found)
  first, second = (json.loads(line)["translations"][0] for line in lines)
  assert first["missing"] == list(found[0][0].missing) and "missing" not in second


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"prefixes": ["a"]}, "as many prefixes as sentences, got 1 and 2"),
    ({"prefixes": "ab"}, "prefixes must be a list of sentences, not a single string"),
    ({"prefixes": ["", None]}, r"prefixes\[1\] must be a string"),
    ({"prefixes": ["", "zwei"]}, r"sentences\[1\] is empty, and so is its translation: prefixes\[1\] must be, too"),
    ({"prefixes": ["zwei ☃", ""]}, r"prefixes\[0\] = 'zwei ☃' holds characters that the vocabulary does not have: '☃'"),
    (
      {"prefixes": ["zwei" * 40, ""]},
      r"prefixes\[0\] has \d+ pieces, and the translation of sentences\[0\] at most \d+",
    ),
    ({"force_words": [["a"]]}, "as many force_words as sentences, got 1 and 2"),
    ({"force_words": "ab"}, "force_words must be a list of lists of words, not a single string"),
    ({"force_words": 7}, "force_words must be a list of lists of words, not int"),
    ({"force_words": ["zwei", []]}, r"force_words\[0\] must be a list of sentences, not a single string"),
    ({"force_words": [["zwei", 7], []]}, r"force_words\[0\]\[1\] must be a string"),
    ({"force_words": [["zwei", " "], []]}, r"force_words\[0\]\[1\] is empty: leave it out"),
    ({"force_words": [["zwei", "☃"], []]}, r"force_words\[0\]\[1\] = '☃' holds characters"),
    (
      {"force_words": [[], ["zwei"]]},
      r"sentences\[1\] is empty, and so is its translation: force_words\[1\] must be, too",
    ),
  ],
)
def test_what_cannot_be_forced_is_named(run, options, message):
  with pytest.raises(UserError, match=message):
    run.translate(["seven", ""], **options)


def test_the_longest_prefix_leaves_room_for_the_end(run):
  limit = len(run.encode(["seven"])[0]) + run.config.decode.extra_length
  word = next(w for w in ("zwei ", "ein ", "acht ") if len(ids_of(run, w * 2)) == 2 * len(ids_of(run, w)))
  text = word * ((limit - 1) // len(ids_of(run, word)))
  (found,) = run.hypotheses(["seven"], prefixes=[text])[0]
  assert found.text.startswith(text.strip()) and len(found.ids) <= limit
  with pytest.raises(UserError, match=f"at most {limit} with </s>"):
    run.translate(["seven"], prefixes=[text + word])


def test_without_constraints_the_search_is_compiled_without_them(run):
  forced = Forced(run.task, run.encode(["seven"]), [""], [[]])
  assert forced.constraints([0], rows=1) == UNCONSTRAINED
  other = zoo.load(run.task.workdir)
  with compilations() as names:
    other.translate(["seven"])
    other.translate(["seven"], prefixes=[""], force_words=[[]])
    assert names.count("search") == 1
    other.translate(["seven"], prefixes=["zwei"])
    other.translate(["seven"], prefixes=["hundert"])
    assert names.count("search") == 2
