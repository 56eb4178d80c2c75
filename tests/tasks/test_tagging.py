"""Where a word is tagged, and whether its capitals are kept."""

import pytest

from attention_zoo import tasks
from attention_zoo.configs.pretraining import gpt_quickstart, tagging_quickstart
from attention_zoo.data import wordpiece
from attention_zoo.data.tagged import Tagged


def make(tmp_path, model=None, **data):
  (tmp_path / "train.txt").write_text("Ulm B-PLACE\nis O\n\n")
  config = tagging_quickstart.get_config()
  if model:
    config.model = type(config)(model).lock()
  config.data.update(source="conll", dir=str(tmp_path), **data)
  config.train.init_from = str(tmp_path) if (tmp_path / "tokenizer.model").exists() else ""
  return tasks.make(config, tmp_path / "run")


@pytest.mark.parametrize(("model", "places"), [(None, [1, 4, 7]), (gpt_quickstart.GPT, [3, 6, 11])])
def test_a_causal_model_has_read_the_word_that_it_tags(tmp_path, model, places):
  task = make(tmp_path, model, tokenizer="bytes", vocab_size=4 + 256)
  task.claim()
  (found,) = task.encode([Tagged(("Ulm", "is", "near"), ("B-PLACE", "O", "O"), "here")])
  assert found.labels["words"].tolist() == places and len(found.ids) == 1 + len("Ulm is near") + 1


@pytest.mark.parametrize("lower", [True, False])
def test_a_vocabulary_without_capitals_is_told(tmp_path, caplog, lower):
  pieces = [*wordpiece.SPECIAL.values(), "U"]
  (tmp_path / "tokenizer.model").write_bytes(wordpiece.dump(pieces, lower))
  make(tmp_path, vocab_size=len(pieces)).claim()
  assert ("config.data.lower = False, but the vocabulary" in caplog.text) is lower
