"""What `import attention_zoo as zoo` offers."""

import inspect
import pathlib
import typing

import pytest

import attention_zoo as zoo
from attention_zoo import api
from attention_zoo.errors import UserError


def test_tab_offers_load():
  assert "load" in dir(zoo) and "__version__" in dir(zoo)
  assert zoo.load is api.load
  with pytest.raises(AttributeError, match="no attribute 'lode'"):
    zoo.lode  # noqa: B018


def test_what_load_returns_is_annotated():
  hints = typing.get_type_hints(api.load)
  assert hints["return"].__name__ == "Translator"
  for verb in ("translate", "hypotheses"):
    assert {"sentences", "beam_size", "alpha", "report"} <= set(
      inspect.signature(getattr(hints["return"], verb)).parameters
    )


def test_load_knows_the_home_directory(tiny_run, monkeypatch):
  monkeypatch.setenv("HOME", str(pathlib.Path(tiny_run).parent))
  assert zoo.load(f"~/{pathlib.Path(tiny_run).name}").checkpoint == "average"


def test_models_are_listed_and_built_by_name():
  assert {"lstm_lm", "transformer_lm"} <= set(zoo.list("*lm*")) and "transformer" in zoo.list()
  model = zoo.build("transformer_lm", vocab_size=11, d_model=8, num_heads=2, d_k=4, d_v=4)
  assert model.config.vocab_size == 11 and model.config.num_layers == 12
  with pytest.raises(UserError, match="no field 'num_layer' .did you mean 'num_layers'"):
    zoo.build("transformer_lm", vocab_size=11, num_layer=2)
  with pytest.raises(UserError, match="transformer_lm: .*vocab_size"):
    zoo.build("transformer_lm")
  with pytest.raises(UserError, match="did you mean 'transformer_lm'"):
    zoo.build("transfomer_lm", vocab_size=11)
