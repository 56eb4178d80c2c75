"""What a run's config may say: fields, types, ranges; written to and read from JSON; compared on resume.

A config is a locked `ml_collections.ConfigDict` with the string `task` and groups of fields: `optimizer`, `train` and
`mesh` are the loop's (`GROUPS`), `model` has the fields of the named model's dataclass (`fields_of`), and the task adds
its own (`data`, `decode`, more of `train`); `tasks.validate` puts them together. A misspelt field, a missing one, a
wrong type or a value out of range is a `UserError` that names it.
"""

import ast
import contextlib
import dataclasses
import fnmatch
import json
import math

import ml_collections

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.grammar import nearest


@dataclasses.dataclass(frozen=True)
class Field:
  """Type and range of one field. An int may stand where a float is asked for; a bool is never a number.

  default: what a config without the field means; None: it must have the field.
  """

  type: type
  low: float | None = None
  high: float | None = None
  choices: tuple[str, ...] = ()
  default: object = None


COUNT = Field(int, low=1)
NATURAL = Field(int, low=0)
TEXT = Field(str)
FLAG = Field(bool)
FRACTION = Field(float, low=0.0, high=1.0)
POSITIVE = Field(float, low=0.0)

GROUPS = {
  "optimizer": {
    "name": TEXT,  # training/optimizer.py, with options: "adam(b1=0.9, b2=0.98, eps=1e-9)"
    "schedule": TEXT,  # training/schedule.py, with options: "cosine(decay_steps=10_000)"
    "learning_rate": POSITIVE,
    "warmup_steps": NATURAL,
    "d_model": COUNT,  # the width in the paper's schedule
    "clip_norm": POSITIVE,
  },
  "train": {
    "steps": COUNT,
    "accumulate": COUNT,
    "seed": NATURAL,
    "log_every": COUNT,
    "eval_every": COUNT,
    "checkpoint_every": COUNT,
    "keep": COUNT,
    "max_nonfinite": COUNT,
    # Decay of the moving average of the parameters that is evaluated and loaded; 0: none.
    "ema": Field(float, low=0.0, high=1.0, default=0.0),
    # The checkpoint whose dev summary has the best figure of this name is kept too; "": none.
    "best_metric": Field(str, default=""),
    "best_mode": Field(str, choices=("min", "max"), default="min"),
    "patience": Field(int, low=0, default=0),  # evaluations without a better figure that end training; 0: never
    # Examples of the dev split that TensorBoard shows at each evaluation, where every device has all parameters;
    # 0: none.
    "dev_samples": Field(int, low=0, default=3),
    "random_bits": Field(str, choices=("threefry2x32", "rbg"), default="threefry2x32"),
    "init_from": Field(str, default=""),  # fine-tuning: the run whose parameters this one begins with
    "init_map": Field(tuple, default=()),  # ((pattern, replacement), ..): names here -> names there
    "learning_rate_factors": Field(tuple, default=()),  # ((pattern, factor), ..): by path; 0 freezes
  },
  "mesh": {
    "rules": TEXT,
    "replica": COUNT,
    "data": Field(int, low=-1),
    "fsdp": COUNT,
    "tensor": COUNT,
  },
}

# What may differ when a work directory is resumed: none of it changes the parameters that a step computes. Fields of
# tasks are here by their usual names: `decode` is what trained parameters are used with.
MAY_CHANGE = (
  "model.remat",
  "model.scan_layers",
  "train.steps",
  "train.log_every",
  "train.eval_every",
  "train.checkpoint_every",
  "train.keep",
  "train.max_nonfinite",
  "train.best_metric",
  "train.best_mode",
  "train.patience",
  "train.dev_samples",
  "data.cache_dir",
  "data.dir",  # what lies there may not: the task's fingerprint
  "data.dev_split",
  "data.test_split",
  "decode.*",
  "mesh.*",
)


def fields_of(dataclass, given=()) -> dict[str, Field]:
  """The fields of a model's Config, but those that the task gives it.

  Ints are at least 1, floats at least 0, and dropouts at most 1, unless the field's metadata says otherwise:
  `dataclasses.field(default=0, metadata={"low": 0})`.
  """
  fields = {"name": TEXT}
  for field in dataclasses.fields(dataclass):
    if field.name in given:
      continue
    low = {int: 1, float: 0.0}.get(field.type)
    high = 1.0 if field.type is float and "dropout" in field.name else None
    default = None if field.default is dataclasses.MISSING else field.default
    ranges = {"low": low, "high": high} | dict(field.metadata)
    fields[field.name] = Field(field.type, default=default, **ranges)
  return fields


def _shown(value) -> str:
  """One line of it."""
  return " ".join(repr(value).split())[:80]


def _check_value(path, value, field):
  kind = type(value)
  if field.type is tuple:
    good = kind in (tuple, list)
  else:
    good = kind is field.type or (field.type is float and kind is int)
  if not good:
    raise UserError(f"config.{path} must be {field.type.__name__}, not {kind.__name__} ({_shown(value)})")
  if kind is float and not math.isfinite(value):
    raise UserError(f"config.{path} must be finite, not {value!r}")
  if field.choices and value not in field.choices:
    raise UserError(
      f"config.{path} = {_shown(value)} is not one of {', '.join(field.choices)}{nearest(value, field.choices)}"
    )
  if (field.low is not None and value < field.low) or (field.high is not None and value > field.high):
    bounds = f"at least {field.low}" if field.high is None else f"from {field.low} to {field.high}"
    raise UserError(f"config.{path} must be {bounds}, not {_shown(value)}")


def read_field(group, text, fields) -> tuple[str, object]:
  """(name, value) of "name=value" as a command line has it. fields: of the group.
  Raises UserError as `validate` does."""
  name, equals, value = text.partition("=")
  if name not in fields:
    raise UserError(
      f"config.{group}.{name} is not a field{nearest(name, fields)}; there are {', '.join(fields) or 'none'}"
    )
  if not equals:
    raise UserError(f"config.{group}.{name} needs a value: --{group}.{name}=VALUE")
  field = fields[name]
  if field.type is not str:
    # What fails is left a string, which is no such type.
    with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
      value = ast.literal_eval(value.strip())
    value = float(value) if field.type is float and type(value) is int else value
  _check_value(f"{group}.{name}", value, field)
  return name, value


def validate(config, groups) -> None:
  """Raises UserError for a field that is unknown, missing, of the wrong type or out of range.

  groups: {group: {field: Field}}, all but `task`. Fields that are absent and have a default are filled in.
  """
  top = ("task", *groups)
  for name in config:
    if name not in top:
      raise UserError(f"config.{name} is not a field{nearest(name, top)}")
  for name in top:
    if name not in config:
      raise UserError(f"config.{name} is missing")
  for group, fields in groups.items():
    if not isinstance(config[group], ml_collections.ConfigDict):
      raise UserError(f"config.{group} must be a group of fields, not {_shown(config[group])}")
    for name, value in config[group].items():
      if name not in fields:
        raise UserError(f"config.{group}.{name} is not a field{nearest(name, fields)}")
      _check_value(f"{group}.{name}", value, fields[name])
    for name, field in fields.items():
      if name not in config[group]:
        if field.default is None:
          raise UserError(f"config.{group}.{name} is missing")
        with config.unlocked():
          config[group][name] = field.default
  if config.mesh.data == 0:
    raise UserError("config.mesh.data must be -1 (all devices that are left) or at least 1, not 0")


def to_json(config) -> str:
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str | bytes, name="config.json") -> ml_collections.ConfigDict:
  """The locked ConfigDict that `to_json` wrote. name: the file, for the error message."""

  def tuples(value):
    if isinstance(value, dict):
      return {key: tuples(item) for key, item in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value

  value = files.parse_json(text, name)
  if not isinstance(value, dict):
    raise UserError(f"{name} is not a config: it must be groups of fields")
  try:
    return ml_collections.ConfigDict(tuples(value)).lock()
  except (TypeError, ValueError, KeyError, AttributeError) as error:  # a field with the name of a method
    raise UserError(f"{name} is not a config: {error}") from error


def flat(config) -> dict:
  """"group.field" -> value."""
  values = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else config
  found = {}
  for name, value in values.items():
    found |= {f"{name}.{key}": item for key, item in flat(value).items()} if isinstance(value, dict) else {name: value}
  return found


def defaults(groups) -> dict:
  """"group.field" -> default of those fields that have one. groups: as for `validate`."""
  return {
    f"{group}.{name}": field.default
    for group, fields in groups.items()
    for name, field in fields.items()
    if field.default is not None
  }


def diff(old, new, ignore=(), common=False) -> str:
  """One line for each field that differs, 'field: old -> new'; '' where none does.

  ignore: name patterns. common: compare only the fields that both have.
  """
  old, new = ({name: json.dumps(value) for name, value in flat(config).items()} for config in (old, new))
  names = [
    name for name in sorted(old | new) if not any(fnmatch.fnmatch(name, pattern) for pattern in ignore)
  ]
  if common:
    names = [name for name in names if name in old and name in new]
  absent = "(absent)"
  changed = [name for name in names if old.get(name, absent) != new.get(name, absent)]
  return "\n".join(f"  {name}: {old.get(name, absent)} -> {new.get(name, absent)}" for name in changed)
