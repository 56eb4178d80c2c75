"""Sources of labelled and of tagged sentences: what each yields, and what is wrong with a file, in one line."""

import gzip
import json
import re

import pytest
from ml_collections import ConfigDict

from attention_zoo.data import labelled
from attention_zoo.data.documents import make_documents
from attention_zoo.data.labelled import Example, make_labelled
from attention_zoo.data.tagged import check_bio, make_tagged
from attention_zoo.errors import UserError


def source(spec, directory="", make=make_labelled):
  data = ConfigDict({"source": spec, "train_split": "train", "dev_split": "dev", "test_split": ""})
  return make(data, str(directory))


def plain(examples):
  return [(*example.texts, example.label) for example in examples]


def fails(message, make):
  with pytest.raises(UserError, match=message):
    list(make())


def test_tsv_with_a_header_and_pairs(tmp_path):
  (tmp_path / "train.tsv").write_text("id\tone\ttwo\tlabel\n1\ta b\tc\tyes\n\n2\td\te\tno\n")
  found = source("tsv(text='one', second='two')", tmp_path)
  assert plain(found.examples("train")) == [("a b", "c", "yes"), ("d", "e", "no")]
  assert len(found.fingerprint("train")) == 64
  assert found.fingerprint("train") != source("tsv(text='two')", tmp_path).fingerprint("train")


def test_the_label_first_and_then_the_words(tmp_path):
  (tmp_path / "dev.txt.gz").write_bytes(gzip.compress(b"1 a stirring , funny film\n0 tabs\tstay\n"))
  found = source("tsv(columns=('label', 'text'), separator=' ')", tmp_path)
  examples = list(found.examples("dev"))
  assert plain(examples) == [("a stirring , funny film", "1"), ("tabs\tstay", "0")]
  assert examples[1].where.endswith("dev.txt.gz, line 2")


@pytest.mark.parametrize(
  ("spec", "name"), [("tsv(separator='')", "separator"), ("tsv(text='')", "text"), ("json_lines(text='')", "text")]
)
def test_options_that_are_empty(spec, name):
  fails(f"config.data.source: .*{name} must not be empty", lambda: source(spec, "x").examples("train"))


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("text\tclass\n", "line 1 must name the columns, but has no label: it has text, class"),
    ("text\tlabel\na\n", "line 2 has 1 columns, not 2"),
    ("text\tlabel\n \t1\n", "line 2: the text is empty"),
    ("text\tlabel\na\t\n", "line 2: the label is missing"),
  ],
)
def test_what_is_wrong_with_a_tsv(tmp_path, content, message):
  (tmp_path / "train.tsv").write_text(content)
  fails(message, lambda: source("tsv", tmp_path).examples("train"))


def test_json_lines(tmp_path):
  lines = [{"text": "a", "label": 1}, {"text": "b", "label": "x"}, {"text": "c", "label": 2.5}]
  (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  assert plain(source("json_lines", tmp_path).examples("train")) == [("a", "1"), ("b", "x"), ("c", "2.5")]
  for line, message in (
    ("{", "line 1 is no JSON object"), ("[1]", "line 1 is no JSON object"), ('{"text": 1, "label": 1}', "is no text"),
    ('{"label": 1}', "line 1 has no 'text'; there are 'label'"), ('{"text": "a", "label": null}', "has no 'label'"),
  ):  # fmt: skip
    (tmp_path / "dev.jsonl").write_text(line + "\n")
    fails(message, lambda: source("json_lines", tmp_path).examples("dev"))
  fails("the second is empty", lambda: _second_empty(tmp_path))


def _second_empty(tmp_path):
  (tmp_path / "dev.jsonl").write_text('{"text": "a", "second": " ", "label": "x"}\n')
  return source("json_lines(second='second')", tmp_path).examples("dev")


def test_folders_are_classes(tmp_path):
  for label, name, text in (("neg", "1.txt", "bad\nfilm"), ("pos", "0.txt", "good")):
    folder = tmp_path / "train" / label
    folder.mkdir(parents=True)
    (folder / name).write_text(text)
  found = source("folders", tmp_path)
  assert plain(found.examples("train")) == [("bad\nfilm", "neg"), ("good", "pos")]
  before = found.fingerprint("train")
  (tmp_path / "train" / "neg").rename(tmp_path / "train" / "worse")
  assert found.fingerprint("train") != before
  fails("no folder dev with a folder of .txt files", lambda: found.examples("dev"))


def test_labels_and_numbers():
  assert labelled.index_of("b", ("a", "b"), "x") == 1
  message = "f, line 3: the label 'yess' is not one of config.data.labels = no, yes (did you mean 'yes'?)"
  with pytest.raises(UserError, match=re.escape(message)):
    labelled.index_of("yess", ("no", "yes"), "f, line 3")
  assert labelled.number_of("-2.5", "x") == -2.5
  for text in ("x", "nan", "inf"):
    with pytest.raises(UserError, match="is not a number"):
      labelled.number_of(text, "x")


def test_conll_columns(tmp_path):
  lines = "-DOCSTART- -X- O", "", "EU NNP B-ORG", "rejects VBZ O", "", "Peter NNP B-PER", "B. NNP I-PER"
  (tmp_path / "train.txt").write_text("\n".join(lines))
  found = list(source("conll", tmp_path, make_tagged).examples("train"))
  assert [(x.words, x.tags) for x in found] == [
    (("EU", "rejects"), ("B-ORG", "O")), (("Peter", "B."), ("B-PER", "I-PER"))
  ]  # fmt: skip
  (tmp_path / "spaced").mkdir()
  (tmp_path / "spaced" / "train.conll").write_text("a\u00a0b\t O \r\n")
  (spaced,) = source("conll", tmp_path / "spaced", make_tagged).examples("train")
  assert spaced.words == ("a\u00a0b",)  # a space that parts no columns
  (tmp_path / "dev.conll").write_text("a I-X\nb I-X\nc B-X\nd I-Y\n")
  (dev,) = source("conll(scheme='iob1')", tmp_path, make_tagged).examples("dev")
  assert dev.tags == ("B-X", "I-X", "B-X", "B-Y")


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("a O\nb I-X\n", "sentence before line 3: the tag I-X of word 2 follows O, but an entity begins with B-X"),
    ("a B-Y\nb I-X\n", "follows B-Y"),
    ("a X\n", "the tag 'X' of word 1 is neither O nor B-TYPE nor I-TYPE"),
    ("a B-\n", "the tag 'B-'"),
    ("a\n", "line 1 has a word, but no tag"),
  ],
)
def test_what_is_wrong_with_conll(tmp_path, content, message):
  (tmp_path / "train.txt").write_text(content)
  fails(message, lambda: source("conll", tmp_path, make_tagged).examples("train"))
  if "line 1" in message:
    fails("too few", lambda: source("conll(tag=3)", tmp_path, make_tagged).examples("train"))


def test_the_phrasebook_has_labels_pairs_and_tags():
  found = list(source("phrasebook", make=make_labelled).examples("dev"))
  assert len(found) > 1000 and {x.label for x in found} <= {*labelled.TYPES, "O"}
  assert Example(("Simon moved to Tehran 22 months ago.",), "TIME", "sentence 1 of the phrasebook") in found
  words = list(source("phrasebook(kind='words')").examples("dev"))
  assert words[0].label == "7" and {x.label for x in source("phrasebook(kind='frame')").examples("dev")} <= set(
    map(str, range(43))
  )
  pairs = list(source("phrasebook(kind='same_frame')").examples("dev"))
  share = sum(x.label == "yes" for x in pairs) / len(pairs)
  assert 0.4 < share < 0.6 and all(len(x.texts) == 2 for x in pairs)
  tagged = {" ".join(x.words): x.tags for x in source("phrasebook", make=make_tagged).examples("dev")}
  assert tagged["Simon moved to Tehran 22 months ago ."] == (
    "B-PERSON", "O", "O", "B-PLACE", "B-TIME", "I-TIME", "I-TIME", "O"
  )  # fmt: skip
  for sentence, tags in tagged.items():
    check_bio(tags, sentence)
  few = source("phrasebook(most=3)")
  assert [x.texts for x in few.examples("dev")] == [x.texts for x in found]
  for spec, message in (("phrasebook(kind='x')", "kind must be"), ("phrasebook(language='xx')", "has no 'xx'")):
    with pytest.raises(UserError, match=message):
      source(spec)


def test_sentences_of_one_frame_make_a_document():
  together, alone = (source(f"phrasebook(together={n})", make=make_documents) for n in (4, 0))
  sentences = set(alone.documents("dev"))
  frames = {x.texts[0]: x.label for x in source("phrasebook(kind='frame')").examples("dev")}
  found = [document.split("\n") for document in together.documents("dev")]
  assert len(found) > 250 and {len(lines) for lines in found} == {4}
  for lines in found:
    assert set(lines) <= sentences and len({frames[line] for line in lines}) == 1
  assert together.fingerprint("dev") != alone.fingerprint("dev")
  with pytest.raises(UserError, match="together must be at least 0"):
    source("phrasebook(together=-1)", make=make_documents)
