import hashlib
import re
import subprocess
import sys

import pytest

from attention_zoo.data import phrases
from attention_zoo.data.phrasebook import Phrasebook, generate
from attention_zoo.errors import UserError


@pytest.fixture(scope="module")
def german():
  return generate("en", "de")


def test_more_than_200_000_pairs_and_every_source_sentence_once(german):
  sources = [source for pairs in german.values() for source, _ in pairs]
  assert len(sources) >= 200_000
  assert len(set(sources)) == len(sources), "a sentence in two splits, or with two translations"
  assert 1000 <= len(german["dev"]) <= 2000 and 1000 <= len(german["test"]) <= 2000


def test_other_languages_have_as_many():
  """Spanish and French have the fewest frames in common."""
  splits = generate("es", "fr")
  sources = [source for pairs in splits.values() for source, _ in pairs]
  assert len(sources) == len(set(sources)) >= 200_000
  generate.cache_clear()


def test_no_sentence_has_two_translations_anywhere(monkeypatch):
  """The generator keeps the first translation of a sentence; the frames give it no second one to drop."""
  import random

  from attention_zoo.data import phrasebook

  for languages in [("en", "de"), ("de", "en"), ("en", "fr"), ("en", "es")]:
    seen, rng = {}, random.Random(1)
    monkeypatch.setattr(phrasebook, "_PAIRS_A_FRAME", 1000)
    for frame in phrases.FRAMES:
      if set(languages) <= set(frame):
        for source, target in phrasebook._instances(frame, languages, rng):
          assert seen.setdefault(source, target) == target, source


def test_the_sentences_are_of_the_right_size_and_shape(german):
  for source, target in german["dev"] + german["test"]:
    for text in (source, target):
      assert 4 <= len(text.split()) <= 16
      assert text == text.strip() and "  " not in text and not re.search(r"[{}\u00a0\u202f]", text)
      assert text[0].isupper() and text[-1] in ".?"


def test_the_data_are_the_same_in_every_process(german):
  """Under another hash seed too, by which sets and dicts of strings could be ordered."""
  code = (
    "from attention_zoo.data.phrasebook import Phrasebook as P; print(P(('en', 'de')).fingerprint('test'))"
  )
  other = subprocess.run(
    [sys.executable, "-c", code], env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
  )
  assert other.stdout.strip() == Phrasebook(("en", "de")).fingerprint("test")


def test_a_fingerprint_is_of_the_text_and_the_languages(german):
  source = Phrasebook(("en", "de"))
  expected = hashlib.sha256(repr((("en", "de"), german["dev"])).encode()).hexdigest()
  assert source.fingerprint("dev") == expected != source.fingerprint("test")


@pytest.mark.parametrize(
  "frame, expected",
  [
    ("we have moved {event}", "Wir haben die Besprechung vom 3. Mai 2021 auf den 1. Januar 2030 verlegt."),
    ("{event} ends on", "Die Besprechung endet am Montag, dem 3. Mai 2021."),
    ("{event} starts on", "Die Besprechung beginnt am 3. Mai 2021 um 14:05 Uhr."),
    ("delivered to", "Geliefert an Leo: 03.05.2021, 14:05 Uhr."),
    ("{name} moved to", "Leo ist vor 3 Monaten nach Wien gezogen."),
    ("{event} in {city} starts", "Die Besprechung in Wien beginnt in 3 Monaten."),
    ("for {name}", "Für Leo ist das der einundzwanzigste Versuch."),
    ("{goods} in {city} costs", "Die Lampe in Wien kostet 1.200 Schweizer Franken."),
    ("the exact value", "Der genaue Wert ist 1.234,5."),
    ("prices rose", "Die Preise stiegen im Mai 2021 um 2,5 %."),
    ("sales fell", "Der Umsatz sank im 2. Quartal 2021 um 2,5 %."),
    ("{augend} plus", "Einundzwanzig plus eins ergibt zweiundzwanzig."),
    ("the family", "Die Familie von Leo kam neunzehnhundertfünf nach Wien."),
    ("{name} speaks", "Leo spricht Griechisch und Dänisch."),
  ],
)
def test_german_sentences_are_right(frame, expected):
  assert _say(frame, "de") == expected


@pytest.mark.parametrize(
  "language, frame, expected",
  [
    ("en", "{event} ends on", "The meeting ends on Monday, May 3, 2021."),
    ("en", "{event} starts on", "The meeting starts on May 3, 2021 at 2:05 PM."),
    ("en", "the family", "The family of Leo came to Vienna in nineteen oh-five."),
    ("fr", "we have moved {event}", "Nous avons déplacé la réunion du 3 mai 2021 au 1er janvier 2030."),
    ("fr", "{goods} in {city} costs", "La lampe à Vienne coûte 1 200 francs suisses."),
    ("fr", "how do you say", "Comment dit-on « vingt et un » en grec ?"),
    (
      "es",
      "we have moved {event}",
      "Hemos trasladado la reunión del 3 de mayo de 2021 al 1 de enero de 2030.",
    ),
    ("es", "does {event}", "¿La reunión empieza a las 14:05 o a las 20:00?"),
  ],
)
def test_other_sentences_are_right(language, frame, expected):
  assert _say(frame, language) == expected


def _say(beginning: str, language: str) -> str:
  import datetime

  from attention_zoo.data import phrasebook

  first = dict(
    date=datetime.date(2021, 5, 3),
    time=datetime.time(14, 5),
    name="Leo",
    city="Europe/Vienna",
    relative=(3, "month"),
    ordinal=21,
    number=21,
    money=(1200, "CHF"),
    decimal=1234.5,
    percent=0.025,
    sum=(21, 1),
    year_words=1905,
    language="el",
    event=0,
    goods=0,
    part=0,
  )
  second = dict(date=datetime.date(2030, 1, 1), time=datetime.time(20, 0), language="da")
  (frame,) = (frame for frame in phrases.FRAMES if frame["en"].startswith(beginning))
  text, slots = phrasebook._compile(frame[language])
  values = [(second if digit else first)[phrasebook._KINDS[kind][0]] for kind, digit in slots]
  rendered = [phrasebook._render(kind, language, v) for (kind, _), v in zip(slots, values, strict=True)]
  return phrasebook._finish(text.format(*rendered), language)


def test_the_eightieth_is_spelt_right_in_french():
  from attention_zoo.data import phrasebook

  assert phrasebook._render("ordinal", "fr", 80) == "quatre-vingtième"


def test_the_frames_have_the_same_slots_in_every_language():
  from attention_zoo.data import phrasebook

  for frame in phrases.FRAMES:
    slots = {l: {(phrasebook._KINDS[k][0], d) for k, d in phrasebook._compile(frame[l])[1]} for l in frame}
    assert len(set(map(frozenset, slots.values()))) == 1, frame["en"]
  for table in (phrases.EVENTS, phrases.GOODS, phrases.PARTS):
    assert all(set(row) == set(phrases.LANGUAGES) for row in table)
  assert len(phrases.PART_ARTICLES["de"]) == len(phrases.PARTS)


def test_wrong_names_are_told():
  with pytest.raises(UserError, match='does not speak "xx".*en, de, fr, es'):
    Phrasebook(("en", "xx"))
  with pytest.raises(UserError, match='no split "newstest".*train, dev, test'):
    Phrasebook(("en", "de")).pairs("newstest")


def test_a_role_may_be_played_by_another_split(german):
  source = Phrasebook(("en", "de"), {"train": "dev", "dev": "dev", "test": ""})
  assert tuple(source.pairs("train")) == german["dev"]
  with pytest.raises(UserError, match="data.test_split"):
    source.pairs("test")


@pytest.mark.parametrize("languages", [("en", "de"), ("en", "fr"), ("en", "es")])
def test_values_are_found_where_they_stand(languages, monkeypatch):
  """The sentences with marks are those without; between the marks stands what was put into the slots."""
  import random

  from attention_zoo.data import phrasebook

  monkeypatch.setattr(phrasebook, "_PAIRS_A_FRAME", 50)
  for frame in phrases.FRAMES:
    if set(languages) <= set(frame):
      plain = list(phrasebook._instances(frame, languages, random.Random(1)))
      marked = list(phrasebook._instances(frame, languages, random.Random(1), marked=True))
      slots = [phrasebook._compile(frame[language])[1] for language in languages]
      for pair, other in zip(plain, marked, strict=True):
        for side, (text, both) in enumerate(zip(pair, other, strict=True)):
          unmarked, spans = phrasebook._unmark(both)
          assert unmarked == text and len(spans) == len(slots[side])
          assert all(text[start:end].strip() == text[start:end] != "" for start, end in spans)
          for (kind, _), (start, end) in zip(slots[side], spans, strict=True):
            if kind == "name":
              assert text[start:end] in phrases.NAMES


def test_pairs_come_with_the_values_that_both_hold(german):
  from attention_zoo.data.phrasebook import aligned

  found = list(aligned("en", "de", "test"))
  assert [pair[:2] for pair in found] == list(german["test"])
  for source, target, slots in found:
    assert slots, source
    for slot in slots:
      ours, theirs = source[slice(*slot.source)], target[slice(*slot.target)]
      if slot.kind in ("name", "year", "integer"):
        assert ours == theirs
      if slot.kind == "date":
        assert re.findall(r"\d{4}", ours) == re.findall(r"\d{4}", theirs) != []
