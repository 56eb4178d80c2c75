"""Folders of BERT and RoBERTa that are computed otherwise here: one line says why, and nothing is made of them."""

import pytest

from attention_zoo.errors import UserError
from attention_zoo.exchange import importing
from tests.exchange import folders


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("architectures", ["BertForTokenClassification"]), ("architectures", ["BertForMultipleChoice"]),
    ("problem_type", "multi_label_classification"), ("problem_type", "regression"),
  ],
)  # fmt: skip
def test_a_classifier_of_another_kind(tmp_path, field, value):
  config, _ = folders.bert(tmp_path / "bert", classes=3, architectures=["BertForSequenceClassification"])
  assert importing.read(tmp_path / "bert").config["task"] == "classification"
  folders.write(tmp_path / "bert", "config.json", config | {field: value})
  with pytest.raises(UserError, match=f"{field} = .* cannot be computed here"):
    importing.read(tmp_path / "bert")
