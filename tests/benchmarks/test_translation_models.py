"""The benchmark of all translation models runs at the smallest size."""

import json

import pytest

from benchmarks import common, translation_models


@pytest.fixture(autouse=True)
def no_restart(monkeypatch):
  monkeypatch.setenv("GLIBC_TUNABLES", "")
  monkeypatch.setattr(common, "busy", lambda: 0.0)


def test_every_model_has_the_same_batches():
  arguments = translation_models.parse([])
  configs = [translation_models.make_config(name, arguments) for name in translation_models.MODELS]
  for group, fields in {
    "data": None, "train": None, "decode": ("beam_size", "alpha"), "mesh": None, "optimizer": ("warmup_steps",),
  }.items():  # fmt: skip
    found = [{name: config[group][name] for name in fields or config[group]} for config in configs]
    assert all(one == found[0] for one in found), group


@pytest.mark.slow
def test_two_models(tmp_path):
  translation_models.main(["--tiny", "--steps=2", f"--out={tmp_path}", "--only=sutskever,transformer", "--long=8"])
  found = json.loads((tmp_path / "translation_models.json").read_text())
  assert {row[0] for row in found["rows"]} == {"sutskever", "transformer"}
  assert all(len(one["dev"]) == 2 and 0 <= one["bleu"]["all"] <= 100 for one in found["results"])
  assert (tmp_path / "translation_models.png").read_bytes().startswith(b"\x89PNG")


def test_a_name_that_is_none(capsys):
  with pytest.raises(SystemExit):
    translation_models.parse(["--only=sutskver"])
  assert "there is no 'sutskver'; there are sutskever, bahdanau" in capsys.readouterr().err
