"""What every model of the zoo offers, and that it is imported when it is first used."""

import dataclasses
import subprocess
import sys

import pytest

from attention_zoo import models
from attention_zoo.errors import UserError


@pytest.mark.parametrize("name", models.MODELS)
def test_a_model_offers_what_the_house_asks_for(name):
  module = models.find(name)
  config = module.small()
  assert isinstance(config, module.Config) and dataclasses.is_dataclass(config)
  with pytest.raises(dataclasses.FrozenInstanceError):
    config.vocab_size = 3
  assert module.parameter_count(config) < 10_000
  assert module.Model(config).config is config
  assert "|" in module.__doc__  # the table of deviations


def test_a_name_that_is_none_is_told():
  with pytest.raises(UserError, match=r"config.model.name = 'transformr' is not one of transformer, .*did you mean 'transformer'"):
    models.find("transformr")


def test_a_model_for_other_batches_is_told():
  assert models.find("transformer_lm", ("inputs", "targets", "segments", "positions"))
  with pytest.raises(UserError, match="config.model.name = 'transformer_lm' is no model for this task.* no segments, positions"):
    models.find("transformer_lm", ("source", "inputs"))


def test_models_are_imported_when_they_are_used():
  code = "import sys; from attention_zoo import models; assert 'flax' not in sys.modules and 'jax' not in sys.modules"
  subprocess.run([sys.executable, "-c", code], check=True)
