import json
import os

import pytest

from attention_zoo.data import identity
from attention_zoo.data.tokenizer import learn
from attention_zoo.errors import UserError
from tests.data.texts import sentences

SETTINGS = {"vocab_size": 100}
MODELS = {size: learn(sentences(200), vocab_size=size) for size in (100, 120)}


def claim(workdir, train="ab", settings=SETTINGS, trained=False, learnt=None):
  """Returns how often the vocabulary was learnt."""
  calls = []

  def learn():
    calls.append(1)
    return MODELS[settings["vocab_size"]] if learnt is None else learnt

  identity.claim(workdir, train=train, directory="/text", settings=settings, learn=learn, trained=trained)
  return len(calls)


def test_a_vocabulary_is_learnt_once(tmp_path):
  run = tmp_path / "run"
  assert claim(run) == 1 and claim(run) == 0 and claim(run, trained=True) == 0
  assert sorted(os.listdir(run)) == ["text.json", "tokenizer.model"]
  assert identity.tokenizer(run).vocab_size == 100
  assert identity.read(run)["train"] == "ab" and identity.read(run)["settings"] == SETTINGS


def test_a_run_without_a_checkpoint_learns_with_other_settings(tmp_path):
  claim(tmp_path)
  assert claim(tmp_path, settings={"vocab_size": 120}) == 1
  assert identity.tokenizer(tmp_path).vocab_size == 120


def test_another_text_is_refused(tmp_path):
  claim(tmp_path)
  with pytest.raises(UserError, match=r"config.data.dir = '/text'\) is not the one .* bring that back, or choose"):
    claim(tmp_path, train="cd", trained=True)


def test_a_text_that_was_put_right_before_a_checkpoint_was_made_has_its_own_vocabulary(tmp_path):
  claim(tmp_path)
  assert claim(tmp_path, train="cd", learnt=MODELS[120]) == 1
  assert (tmp_path / "tokenizer.model").read_bytes() == MODELS[120] and identity.read(tmp_path)["train"] == "cd"
  assert claim(tmp_path, train="cd", learnt=MODELS[100], trained=True) == 0


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_lost_vocabulary_is_replaced_by_the_same_one_only(tmp_path, caplog, harm):
  claim(tmp_path)
  path = tmp_path / "tokenizer.model"

  def spoil():
    path.unlink() if harm == "missing" else path.write_bytes(path.read_bytes()[:-1])

  spoil()
  with pytest.raises(UserError, match="missing or damaged, and learning it again gives another"):
    claim(tmp_path, trained=True, learnt=MODELS[120])
  with pytest.raises(UserError, match="no tokenizer at|not as it was written"):
    identity.tokenizer(tmp_path)
  assert claim(tmp_path, trained=True) == 1 and path.read_bytes() == MODELS[100]
  assert "learnt again, the same to the bit" in caplog.text
  spoil()
  assert claim(tmp_path) == 1 and path.read_bytes() == MODELS[100]


def test_a_run_that_has_lost_its_text_json_is_refused(tmp_path):
  claim(tmp_path)
  (tmp_path / "text.json").unlink()
  with pytest.raises(UserError, match=r"has checkpoints, but no text\.json"):
    claim(tmp_path, trained=True)
  with pytest.raises(UserError, match=r"has no text\.json, and so no vocabulary"):
    identity.tokenizer(tmp_path)


def test_a_vocabulary_of_ones_own_is_taken(tmp_path):
  (tmp_path / "tokenizer.model").write_bytes(MODELS[120])
  assert claim(tmp_path) == 0
  assert identity.tokenizer(tmp_path).vocab_size == 120


@pytest.mark.parametrize("change", [{"train": "cd"}, {"train": 3}, {"more": 1}, {"checksum": "0"}, {"settings": {}}])
def test_a_changed_text_json_is_told(tmp_path, change):
  claim(tmp_path)
  path = tmp_path / "text.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  for use in (identity.read, identity.tokenizer, claim):
    with pytest.raises(UserError, match=r"text\.json is not as it was written"):
      use(tmp_path)
  for content in ("", "[]", "null", "{", "\xff"):
    path.write_text(content, "latin-1")
    with pytest.raises(UserError, match=r"text\.json is not"):
      identity.read(tmp_path)


def test_a_relative_place_is_kept_and_found(tmp_path, monkeypatch):
  (tmp_path / "here" / "text").mkdir(parents=True)
  run = tmp_path / "run"
  monkeypatch.chdir(tmp_path / "here")
  assert identity.find_text(run, "text") == "text" and identity.find_text(run, "nowhere") == "nowhere"
  claim(run)
  monkeypatch.chdir(tmp_path)
  assert identity.find_text(run, "text") == "/text"  # where training found it
  for same in ("", "/absolute", "~/text", "gs://bucket/text"):
    assert identity.find_text(run, same) == same


def test_a_vocabulary_of_ones_own_stays_whatever_the_text(tmp_path):
  (tmp_path / "tokenizer.model").write_bytes(MODELS[100])
  assert claim(tmp_path) == claim(tmp_path, train="cd") == claim(tmp_path, settings={"vocab_size": 120}) == 0
  assert (tmp_path / "tokenizer.model").read_bytes() == MODELS[100]
  assert claim(tmp_path, trained=True) == 0
