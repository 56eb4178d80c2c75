"""Every task of the zoo: name in `config.task` -> class, made with (config, workdir) and imported when first used."""

import importlib

import ml_collections

from attention_zoo import models
from attention_zoo.errors import UserError
from attention_zoo.grammar import nearest
from attention_zoo.training import config as config_lib

TASKS = {
  "translation": "attention_zoo.tasks.translation:Translation",
  "language_modeling": "attention_zoo.tasks.language_modeling:LanguageModeling",
  "bidirectional_language_modeling": (
    "attention_zoo.tasks.bidirectional_language_modeling:BidirectionalLanguageModeling"
  ),
  "music": "attention_zoo.tasks.music:Music",
  "image_modeling": "attention_zoo.tasks.image_modeling:ImageModeling",
  "classification": "attention_zoo.tasks.classification:Classification",
  "regression": "attention_zoo.tasks.classification:Regression",
  "masked_language_modeling": "attention_zoo.tasks.masked_language_modeling:MaskedLanguageModeling",
  "permutation_language_modeling": (
    "attention_zoo.tasks.permutation_language_modeling:PermutationLanguageModeling"
  ),
  "tagging": "attention_zoo.tasks.tagging:Tagging",
  "super_resolution": "attention_zoo.tasks.super_resolution:SuperResolution",
  "super_resolution_gan": "attention_zoo.tasks.super_resolution_gan:SuperResolutionGAN",
  "image_classification": "attention_zoo.tasks.image_classification:ImageClassification",
  "gan": "attention_zoo.tasks.gan:GAN",
}


def find(name) -> type:
  """The class of a task. UserError for a name that there is not."""
  if not isinstance(name, str) or name not in TASKS:
    raise UserError(f"config.task = {name!r} is not one of {', '.join(TASKS)}{nearest(name, TASKS)}")
  module, _, attribute = TASKS[name].partition(":")
  return getattr(importlib.import_module(module), attribute)


def validate(config) -> None:
  """Raises UserError for whatever is wrong with a config's fields; fills in those that have defaults.

  `model` is held against the dataclass of the model that it names, `data`, `decode` and part of `train` against the
  task's fields, the rest against the loop's.
  """
  config_lib.validate(config, _groups(config))


def _groups(config) -> dict:
  """{group: {field: Field}} of all that a config of this task and model may hold."""
  task = find(config.get("task"))
  model = config.get("model")
  if not isinstance(model, ml_collections.ConfigDict):
    raise UserError(f"config.model must be a group of fields, not {str(model)[:80]!r}")
  groups = {"model": config_lib.fields_of(models.find(model.get("name")).Config, task.GIVEN)}
  for group, fields in (*task.FIELDS.items(), *config_lib.GROUPS.items()):
    groups[group] = {**groups.get(group, {}), **fields}
  return groups


def set_fields(config, group, texts) -> dict:
  """Sets fields of a group that is the task's alone from texts "name=value"; returns those that differ from before.

  Raises UserError for a field that there is not, and for a value that is not of its type or out of range.
  """
  fields = find(config.task).FIELDS.get(group, {})
  given = dict(config_lib.read_field(group, text, fields) for text in texts)
  changed = {name: value for name, value in given.items() if value != config[group][name]}
  with config.unlocked():
    config[group].update(changed)
  return changed


def make(config, workdir):
  """The task that `config.task` names."""
  task = find(config.task)(config, workdir)
  task.defaults = config_lib.defaults(_groups(config))
  return task

