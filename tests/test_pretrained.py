"""The trained models that come with the package are small, whole, and as good as their cards say."""

import json
import os

import pytest
import sacrebleu

import attention_zoo as zoo
from attention_zoo import api
from attention_zoo.data.phrasebook import Phrasebook
from attention_zoo.errors import UserError

TRANSLATORS = [name for name in zoo.pretrained() if "-lm" not in name]


def test_names():
  assert "phrasebook-en-de" in zoo.pretrained()


@pytest.mark.parametrize("name", zoo.pretrained())
def test_each_is_under_two_megabytes_with_a_card(name):
  folder = api.PRETRAINED / name
  assert sum(os.path.getsize(path) for path in folder.iterdir()) < 2_000_000
  card = json.loads((folder / "card.json").read_text())
  assert card["data"] == {"source": "phrasebook", "embedded": True} and card["scores"]


@pytest.mark.parametrize("name", TRANSLATORS)
def test_it_translates_as_well_as_its_card_says(name):
  run = zoo.load(name)
  pairs = [pair for _, pair in zip(range(64), Phrasebook(run.config.data.languages).pairs("test"), strict=False)]
  sources, references = zip(*pairs, strict=True)
  score = sacrebleu.corpus_bleu(run.translate(sources, beam_size=1), [[*references]]).score
  said = json.loads((api.PRETRAINED / name / "card.json").read_text())["scores"][0]["bleu"][0]["score"]
  assert score > said - 3, score  # 64 of the card's sentences, greedily, with parameters in int8


def test_german():
  run = zoo.load("phrasebook-en-de")
  assert run.translate(["The concert takes place in Moscow in May 2033."]) == [
    "Das Konzert findet im Mai 2033 in Moskau statt."
  ]


def test_a_run_of_that_name_comes_first(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "phrasebook-en-de" / "eval").mkdir(parents=True)
  assert zoo.load("phrasebook-en-de").checkpoint == "exported"
  (tmp_path / "phrasebook-en-de" / "config.json").write_text("[")
  with pytest.raises(UserError, match="config.json"):
    zoo.load("phrasebook-en-de")


@pytest.mark.parametrize("name", [name for name in zoo.pretrained() if "-lm" in name])
def test_a_language_model_is_as_good_as_its_card_says(name):
  run = zoo.load(name)
  said = json.loads((api.PRETRAINED / name / "card.json").read_text())["scores"][0]["perplexity"]["nats_per_token"]
  assert run.perplexity("test")["nats_per_token"] == pytest.approx(said, rel=0.01)  # with parameters in int8
  assert len({sample.text for sample in run.sample("", num_samples=4, seed=1)}) == 4
  assert not (api.PRETRAINED / name / "data").exists()  # its tokens are kept elsewhere: a package may be read-only
