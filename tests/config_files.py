"""The files of configs/, and the parameters that each describes."""

import functools
import importlib.util
import json
import pathlib
import tempfile

import jax

from attention_zoo import tasks

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
NAMES = sorted(
  str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.py") if path.name != "__init__.py"
)  # "transformer_base", "ablation/base", ...


@functools.cache
def load(name):
  """The module of a config file, loaded by its path as --config does."""
  spec = importlib.util.spec_from_file_location(f"config_{name.replace('/', '_')}", CONFIGS / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def get_config(name):
  return load(name).get_config()


def make_task(config):
  return tasks.make(config, pathlib.Path(tempfile.gettempdir()) / "no_such_workdir")


def given(config):
  """The fields of the model's Config that the task gives it."""
  return {name: config.data[name] for name in tasks.find(config.task).GIVEN}


_PARAMETERS = {}


def parameters(config):
  """The parameters as ShapeDtypeStructs; nothing is computed, and configs that share a model are traced once."""
  model = {field: value for field, value in config.model.items() if "dropout" not in field}
  key = json.dumps([config.task, model, given(config)])
  if key not in _PARAMETERS:
    _PARAMETERS[key] = jax.eval_shape(make_task(config).init, jax.random.key(0)).params
  return _PARAMETERS[key]
