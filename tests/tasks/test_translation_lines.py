"""Translations as lines."""

import json

import pytest

import attention_zoo as zoo
from attention_zoo.tasks import translation_lines

SENTENCES = ["seven", "", "one hundred and twelve"]


@pytest.fixture(scope="module")
def run(tiny_run):
  return zoo.load(tiny_run)


def test_lines_of_text(run):
  found = run.hypotheses(SENTENCES, n_best=2)
  assert translation_lines.best(found) == run.translate(SENTENCES)
  lines = translation_lines.n_best(found)
  assert len(lines) == 5 and lines[2] == "1 |||  ||| 0.0000"
  assert lines[0] == f"0 ||| {found[0][0].text} ||| {found[0][0].score:.4f}"


def test_json_lines_keep_what_came_in(run):
  records = [{"en": sentence, "id": i} for i, sentence in enumerate(SENTENCES)]
  found = run.hypotheses(SENTENCES, n_best=2)
  out = [json.loads(line) for line in translation_lines.json_lines(run, records, "en", found)]
  assert [(line["en"], line["id"]) for line in out] == [(record["en"], record["id"]) for record in records]
  assert [len(line["translations"]) for line in out] == [2, 1, 2]
  assert out[1]["translations"] == [{"text": "", "score": 0.0, "logprob": 0.0, "tokens": [], "alignment": []}]
  for line, hypotheses in zip(out, found, strict=True):
    for translation, hypothesis in zip(line["translations"], hypotheses, strict=True):
      assert (translation["text"], translation["score"]) == (hypothesis.text, hypothesis.score)
      assert len(translation["alignment"]) == len(translation["tokens"]) == len(hypothesis.ids)
      assert all(0 <= position < len(line["source_tokens"]) for position in translation["alignment"])
