"""Folders of BERT and RoBERTa that are computed otherwise here: one line says why, and nothing is made of them."""

import pytest

from attention_zoo.errors import UserError
from attention_zoo.exchange import from_bert, importing, to_bert
from tests.exchange import folders
from tests.exchange.test_import import imported


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("architectures", ["RobertaForSequenceClassification"]), ("architectures", ["BertForMultipleChoice"]),
    ("architectures", {"a": []}), ("architectures", [["BertForSequenceClassification"]]),
    ("problem_type", "multi_label_classification"), ("problem_type", "regression"),
  ],
)  # fmt: skip
def test_a_classifier_of_another_kind(tmp_path, field, value):
  config, _ = folders.bert(tmp_path / "bert", classes=3, architectures=["BertForSequenceClassification"])
  assert importing.read(tmp_path / "bert").config["task"] == "classification"
  folders.write(tmp_path / "bert", "config.json", config | {field: value})
  with pytest.raises(UserError, match=f"{field} = .* cannot be computed here"):
    importing.read(tmp_path / "bert")


@pytest.mark.parametrize(
  ("tags", "message"),
  [
    (["NOUN", "O", "VERB-"], "has NOUN, VERB-; read are tags of entities"), (["O", "S-X"], "has S-X;"),
    (["B-X", "I-X"], "lacks O;"), (["O", "B-X", "B-X"], "gives two classes one name"), (["O", "B-"], "has B-;"),
    (["O"], "does not name the classes"), (["O", 3], "does not name the classes"),
  ],
)  # fmt: skip
def test_tags_that_are_none_of_entities(tmp_path, tags, message):
  folders.bert(tmp_path / "bert", tags=tags)
  with pytest.raises(UserError, match=f"config.json: id2label {message}"):
    importing.read(tmp_path / "bert")


def test_very_many_tags(tmp_path):
  """The error shows some; and each tag is looked up, not searched."""
  tags = [f"B-{i}" for i in range(20_000)]
  with pytest.raises(UserError, match="has X0, .*X19; read are"):
    from_bert._tags(["O", *(f"X{i}" for i in range(20_000))], tmp_path)
  types, numbers = from_bert._tags(Searched(["O", *tags]), tmp_path)
  assert len(types) == 20_000 and numbers[:4] == [0, 1, -1, 2]


class Searched(list):
  def index(self, tag):
    raise AssertionError(f"{tag} is searched for")


def test_classes_without_a_pooler(tmp_path):
  folders.bert(tmp_path / "bert", classes=3, pooler=False)
  with pytest.raises(UserError, match="lacks bert.pooler.dense.weight"):
    importing.read(tmp_path / "bert")


def test_heads_that_transformers_has_not(tmp_path):
  folders.bert(tmp_path / "classes", kind="roberta", classes=3)
  run = imported(tmp_path / "classes", tmp_path / "classes_run")
  run.config.head.pooling = "mean"
  with pytest.raises(UserError, match="no class for this head: .* classes with config.head.pooling = 'pooler'"):
    to_bert.bert(run)
  folders.bert(tmp_path / "tags", tags=["O", "B-X", "I-X"])
  run = imported(tmp_path / "tags", tmp_path / "tags_run")
  run.config.head.name = "crf"
  with pytest.raises(UserError, match="no class for this head: .* tags with config.head.name = 'softmax'"):
    to_bert.bert(run)


@pytest.mark.parametrize(
  ("part", "field", "value"),
  [
    ("normalizer", "clean_text", False), ("model", "continuing_subword_prefix", ""),
    ("model", "max_input_chars_per_word", 50), ("model", "unk_token", "<unk>"),
  ],
)  # fmt: skip
def test_a_tokenizer_that_cuts_otherwise(tmp_path, part, field, value):
  folder = tmp_path / "bert"
  folders.bert(folder)
  said = {
    "model": {
      "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
      "vocab": {piece: i for i, piece in enumerate((folder / "vocab.txt").read_text().split("\n")[:-1])},
    },
    "normalizer": {
      "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
      "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
  }  # fmt: skip
  wanted = importing.read(folder).tokenizer
  (folder / "vocab.txt").unlink()
  folders.write(folder, "tokenizer.json", said)
  assert importing.read(folder).tokenizer == wanted
  said[part][field] = value
  folders.write(folder, "tokenizer.json", said)
  with pytest.raises(UserError, match=f"tokenizer.json: {field} = .*, which BERT has as"):
    importing.read(folder)


def test_pairs_that_would_be_other_rows_there(tmp_path):
  for kind, separators in (("bert", 1), ("roberta", 2)):
    folders.bert(tmp_path / kind, kind=kind)
    run = imported(tmp_path / kind, tmp_path / f"{kind}_run")
    to_bert.bert(run)
    with run.config.unlocked():
      run.config.data.separators = 3 - separators
    with pytest.raises(UserError, match=f"config.data.separators = {3 - separators}, but .* {kind} has {separators}"):
      to_bert.bert(run)
  folders.bert(tmp_path / "types", kind="roberta", type_vocab_size=2)
  run = imported(tmp_path / "types", tmp_path / "types_run")
  with pytest.raises(UserError, match="config.model.num_types = 2, but .* does not tell two sentences apart"):
    to_bert.bert(run)
