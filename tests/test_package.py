"""What `import attention_zoo as zoo` offers."""

import inspect
import pathlib
import typing

import pytest

import attention_zoo as zoo
from attention_zoo import api


def test_tab_offers_load():
  assert "load" in dir(zoo) and "__version__" in dir(zoo)
  assert zoo.load is api.load
  with pytest.raises(AttributeError, match="no attribute 'lode'"):
    zoo.lode  # noqa: B018


def test_what_load_returns_is_annotated():
  hints = typing.get_type_hints(api.load)
  assert hints["return"].__name__ == "Translator"
  for verb in ("translate", "hypotheses"):
    assert {"sentences", "beam_size", "alpha", "report"} <= set(inspect.signature(getattr(hints["return"], verb)).parameters)


def test_load_knows_the_home_directory(tiny_run, monkeypatch):
  monkeypatch.setenv("HOME", str(pathlib.Path(tiny_run).parent))
  assert zoo.load(f"~/{pathlib.Path(tiny_run).name}").checkpoint == "average"
