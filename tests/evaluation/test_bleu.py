"""The three dialects of BLEU on frozen sentences."""

import pytest
import sacrebleu

from attention_zoo.errors import UserError
from attention_zoo.evaluation.bleu import bleu_report, split_compounds

REFERENCES = [
  "Der Rich-Text-Editor speichert die E-Mail-Adresse, sobald man tippt.",
  "Am 3. Mai 2021 fuhren 1.250 Gäste mit dem ICE-Sprinter nach Köln.",
  "„Das ist kein Zufall“, sagte die Vize-Präsidentin am Abend.",
  "Die Nord-Süd-Strecke bleibt bis Montag gesperrt (siehe Aushang).",
  "Wer wagt, gewinnt!",
]
HYPOTHESES = [
  "Der Rich-Text-Editor speichert die E-Mail-Anschrift, sobald man tippt.",
  "Am 3. Mai 2021 reisten 1.250 Gäste mit dem ICE-Zug nach Köln.",
  "„Das ist kein Zufall“, sagte die vize-Präsidentin am Abend.",
  "Die Nord-Süd-Linie bleibt bis Montag gesperrt (siehe Plan).",
  "Wer wagt, der gewinnt!",
]
TOKENISED_REFERENCES = [
  "ein mann mit einem t-shirt und jeans sitzt auf einer bank .",
  "zwei kinder , die sich an den händen halten , laufen am strand .",
  "eine frau spielt z.b. auf einer e-gitarre .",
]
TOKENISED_HYPOTHESES = [
  "ein mann in einem t-shirt sitzt auf einer bank .",
  "zwei kinder , die sich an der hand halten , laufen an einem strand .",
  "eine frau spielt z.b. auf ihrer e-geige .",
]

VERSION = f"version:{sacrebleu.__version__}"


def as_dict(rows):
  return {score.name: (round(score.value, 4), score.signature) for score in rows}


# Scores as the sacrebleu command line and Moses' multi-bleu.perl (after the script's perl line) print them.
def test_raw_text_in_three_dialects():
  assert as_dict(bleu_report(HYPOTHESES, REFERENCES)) == {
    "sacreBLEU": (
      57.8276,
      f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{VERSION}|hyp:detokenised",
    ),
    "tokenised (13a)": (
      57.8276,
      f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:none|{VERSION}|hyp:detokenised",
    ),
    "tokenised (13a for Moses), compounds split": (
      69.0056,
      f"nrefs:1|case:mixed|eff:no|tok:13a+compounds|smooth:none|{VERSION}|hyp:detokenised",
    ),
  }


def test_tokens_in_three_dialects():
  assert as_dict(bleu_report(TOKENISED_HYPOTHESES, TOKENISED_REFERENCES, tokenized=True)) == {
    "sacreBLEU (of pre-tokenised text)": (
      53.0637,
      f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{VERSION}|hyp:tokens-as-is",
    ),
    "tokenised (as is)": (
      47.2303,
      f"nrefs:1|case:mixed|eff:no|tok:none|smooth:none|{VERSION}|hyp:tokens-as-is",
    ),
    "tokenised (as is), compounds split": (
      48.1732,
      f"nrefs:1|case:mixed|eff:no|tok:none+compounds|smooth:none|{VERSION}|hyp:tokens-as-is",
    ),
  }


def test_only_sacrebleu_smooths():
  # "Wer wagt, der gewinnt!" has no 4-gram of "Wer wagt, gewinnt!".
  assert [round(row.value, 4) for row in bleu_report(HYPOTHESES[-1:], REFERENCES[-1:])] == [37.9918, 0.0, 0.0]


def test_first_row_is_what_sacrebleu_itself_says():
  expected = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES])
  assert bleu_report(HYPOTHESES, REFERENCES)[0].value == expected.score


def test_perfect_and_empty_output():
  assert all(round(row.value, 6) == 100 for row in bleu_report(REFERENCES, REFERENCES))
  assert all(row.value == 0 for row in bleu_report([""] * 5, REFERENCES))


@pytest.mark.parametrize(
  "text, expected",
  [
    ("rich-text format", "rich ##AT##-##AT## text format"),
    ("a-b-c", "a ##AT##-##AT## b-c"),
    ("- x --y z-", "- x - ##AT##-##AT## y z-"),
    # Perl matches bytes, so a letter of two bytes serves two hyphens.
    ("é-à-ü-x", "é ##AT##-##AT## à ##AT##-##AT## ü ##AT##-##AT## x"),
  ],
)
def test_compounds_split_as_perl_does(text, expected):
  assert split_compounds(text) == expected


@pytest.mark.parametrize(
  "hypotheses, references, message",
  [(["a"], ["a", "b"], "1 hypotheses, 2 references"), ([], [], "no references")],
)
def test_bad_input(hypotheses, references, message):
  with pytest.raises(UserError, match=message):
    bleu_report(hypotheses, references)


CHINESE = ["我们今天去学校。", "他喜欢喝茶，也喜欢看书。"]


@pytest.mark.parametrize("language", ["zh", "zh-CN", "zho_Hans", "cmn"])
def test_chinese_is_counted_by_sacrebleus_tokenizer(language):
  rows = bleu_report(CHINESE, CHINESE, language=language)
  assert [round(row.value, 6) for row in rows] == [100] * 3
  assert all("|tok:zh" in row.signature for row in rows) and rows[1].name == "tokenised (zh)"
  hypotheses = ["我们今天去商店。", CHINESE[1]]
  expected = sacrebleu.corpus_bleu(hypotheses, [CHINESE], tokenize="zh").score
  assert bleu_report(hypotheses, CHINESE, language=language)[0].value == expected


def test_languages_without_a_tokenizer_are_counted_by_characters():
  thai = ["เขากินข้าวที่บ้าน", "ฉันรักคุณมาก"]
  rows = bleu_report(thai, thai, language="th")
  assert [round(row.value, 6) for row in rows] == [100] * 3 and all("|tok:char" in row.signature for row in rows)


def test_what_is_not_installed_is_said(monkeypatch, caplog):
  from sacrebleu.tokenizers import tokenizer_ja_mecab, tokenizer_ko_mecab

  monkeypatch.setattr(tokenizer_ja_mecab, "MeCab", None)
  monkeypatch.setattr(tokenizer_ko_mecab, "MeCab", None)
  for language, text in (("ja", ["私は学校に行きます。"]), ("ko", ["나는 오늘 학교에 갑니다."])):
    caplog.clear()
    rows = bleu_report(text, text, language=language)
    assert "|tok:char|" in rows[0].signature and round(rows[0].value, 6) == 100
    assert f"pip install 'sacrebleu[{language}]'" in caplog.text


def test_text_without_spaces_under_an_unknown_name_is_told(caplog):
  rows = bleu_report(CHINESE, CHINESE, language="target")
  assert "|tok:13a|" in rows[0].signature and "quote chrF" in caplog.text
  caplog.clear()
  bleu_report(REFERENCES, REFERENCES, language="target")
  assert not caplog.text


def test_pretokenised_chinese_is_scored_as_it_is():
  tokens = ["我们 今天 去 学校 。", "他 喜欢 喝茶 ， 也 喜欢 看书 。"]
  rows = bleu_report(tokens, tokens, language="zh", tokenized=True)
  assert [round(row.value, 6) for row in rows] == [100] * 3
  assert "|tok:zh|" in rows[0].signature and "|tok:none|" in rows[1].signature
