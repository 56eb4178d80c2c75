"""What a run's config may say: fields, types, ranges; written to and read from JSON; compared on resume.

A config is a locked `ml_collections.ConfigDict` with the string `task` and the groups `model, data,
optimizer, train, decode, eval, mesh`. `GROUPS` lists the fields of translation; a task with other fields
passes its own groups to `validate`. A misspelt field, a missing one, a wrong type or a value out of range is
a `UserError` that names it.
"""

import dataclasses
import difflib
import fnmatch
import json

import ml_collections

from attention_zoo.errors import UserError


@dataclasses.dataclass(frozen=True)
class Field:
  """Type and range of one field. An int may stand where a float is asked for; a bool is never a number."""

  type: type
  low: float | None = None
  high: float | None = None
  choices: tuple[str, ...] = ()


COUNT = Field(int, low=1)
NATURAL = Field(int, low=0)
TEXT = Field(str)
FLAG = Field(bool)
FRACTION = Field(float, low=0.0, high=1.0)
POSITIVE = Field(float, low=0.0)

GROUPS = {
  "model": {
    "name": TEXT,
    "d_model": COUNT,
    "d_ff": COUNT,
    "num_heads": COUNT,
    "d_k": COUNT,
    "d_v": COUNT,
    "num_encoder_layers": COUNT,
    "num_decoder_layers": COUNT,
    "dropout": FRACTION,
    "attention_dropout": FRACTION,
    "residual": Field(str, choices=("post", "pre", "none")),
    "encoder_attention": TEXT,
    "decoder_attention": TEXT,
    "feed_forward": TEXT,
    "positions": Field(str, choices=("sinusoidal", "learned", "scalar", "none")),
    "position_mode": Field(str, choices=("add", "add_every_layer", "concatenate")),
    "max_length": COUNT,
    "dtype": Field(str, choices=("float32", "bfloat16")),
    "matmul_dtype": Field(str, choices=("float32", "bfloat16")),
    "remat": FLAG,
  },
  "data": {
    "source": Field(str, choices=("phrasebook", "text", "tfds")),
    "name": TEXT,
    "dir": TEXT,
    "languages": Field(tuple),
    "train_split": TEXT,
    "dev_split": TEXT,
    "test_split": TEXT,
    "tokenized": FLAG,
    "vocab_size": COUNT,
    "tokenizer": Field(str, choices=("bpe", "unigram")),
    "normalization": TEXT,
    "split_digits": FLAG,
    "batching": Field(str, choices=("packed", "bucketed")),
    "batch_tokens": COUNT,
    "row_length": COUNT,
    "row_multiple": COUNT,
    "max_length": COUNT,
    "too_long": Field(str, choices=("truncate", "skip")),
    "seed": NATURAL,
    "cache_dir": TEXT,
  },
  "optimizer": {
    "name": Field(str, choices=("adam", "adafactor", "sm3")),
    "b1": FRACTION,
    "b2": FRACTION,
    "eps": POSITIVE,
    "schedule": Field(str, choices=("inverse_sqrt", "exponential", "cosine")),
    "learning_rate": POSITIVE,
    "warmup_steps": NATURAL,
    "decay_steps": NATURAL,
    "decay_rate": FRACTION,
    "end_factor": FRACTION,
    "clip_norm": POSITIVE,
  },
  "train": {
    "steps": COUNT,
    "label_smoothing": FRACTION,
    "accumulate": COUNT,
    "seed": NATURAL,
    "log_every": COUNT,
    "eval_every": COUNT,
    "checkpoint_every": COUNT,
    "keep": COUNT,
    "max_nonfinite": COUNT,
  },
  "decode": {
    "beam_size": COUNT,
    "alpha": Field(float),
    "extra_length": NATURAL,
    "batch_tokens": COUNT,
  },
  "eval": {},
  "mesh": {
    "rules": TEXT,
    "replica": COUNT,
    "data": Field(int, low=-1),
    "fsdp": COUNT,
    "tensor": COUNT,
  },
}

# What may differ when a work directory is resumed: none of it changes the parameters that a step computes.
MAY_CHANGE = (
  "model.remat",
  "train.steps",
  "train.log_every",
  "train.eval_every",
  "train.checkpoint_every",
  "train.keep",
  "train.max_nonfinite",
  "data.cache_dir",
  "data.dir",  # the text in it may not: `Translation.train_batches`
  "data.dev_split",
  "data.test_split",
  "decode.*",
  "eval.*",
  "mesh.*",
)


def nearest(name, names) -> str:
  """' (did you mean X?)', or nothing where no name is near."""
  near = difflib.get_close_matches(name, names, n=1)
  return f" (did you mean {near[0]!r}?)" if near else ""


def _check_value(path, value, field):
  kind = type(value)
  if field.type is tuple:
    good = kind in (tuple, list)
  else:
    good = kind is field.type or (field.type is float and kind is int)
  if not good:
    raise UserError(f"config.{path} must be {field.type.__name__}, not {kind.__name__} ({value!r})")
  if field.choices and value not in field.choices:
    raise UserError(
      f"config.{path} = {value!r} is not one of {', '.join(field.choices)}{nearest(value, field.choices)}"
    )
  if (field.low is not None and value < field.low) or (field.high is not None and value > field.high):
    bounds = f"at least {field.low}" if field.high is None else f"from {field.low} to {field.high}"
    raise UserError(f"config.{path} must be {bounds}, not {value!r}")


def validate(config, groups=None) -> None:
  """Raises UserError for a field that is unknown, missing, of the wrong type or out of range.

  groups: {group: {field: Field}}; the default is translation's. A group without fields may hold anything.
  """
  groups = GROUPS if groups is None else groups
  top = ("task", *groups)
  for name in config:
    if name not in top:
      raise UserError(f"config.{name} is not a field{nearest(name, top)}")
  for name in top:
    if name not in config:
      raise UserError(f"config.{name} is missing")
  for group, fields in groups.items():
    if not isinstance(config[group], ml_collections.ConfigDict):
      raise UserError(f"config.{group} must be a group of fields, not {config[group]!r}")
    if not fields:
      continue
    for name, value in config[group].items():
      if name not in fields:
        raise UserError(f"config.{group}.{name} is not a field{nearest(name, fields)}")
      _check_value(f"{group}.{name}", value, fields[name])
    missing = [name for name in fields if name not in config[group]]
    if missing:
      raise UserError(f"config.{group}.{missing[0]} is missing")
  if config.mesh.data == 0:
    raise UserError("config.mesh.data must be -1 (all devices that are left) or at least 1, not 0")
  if config.optimizer.schedule != "inverse_sqrt" and config.optimizer.decay_steps < 1:
    raise UserError(
      f"config.optimizer.decay_steps must be at least 1 with schedule {config.optimizer.schedule!r}"
    )


def to_json(config) -> str:
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str, name="config.json") -> ml_collections.ConfigDict:
  """The locked ConfigDict that `to_json` wrote. name: the file, for the error message."""

  def tuples(value):
    if isinstance(value, dict):
      return {key: tuples(item) for key, item in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value

  try:
    return ml_collections.ConfigDict(tuples(json.loads(text))).lock()
  except ValueError as error:
    raise UserError(f"{name} is not a config: {error}") from error


def _flat(config) -> dict[str, str]:
  values = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else config
  flat = {}
  for name, value in values.items():
    if isinstance(value, dict):
      flat |= {f"{name}.{key}": item for key, item in _flat(value).items()}
    else:
      flat[name] = json.dumps(value)
  return flat


def diff(old, new, ignore=()) -> str:
  """One line for each field that differs, 'field: old -> new'; '' where none does. ignore: name patterns."""
  old, new = _flat(old), _flat(new)
  names = [
    name for name in sorted(old | new) if not any(fnmatch.fnmatch(name, pattern) for pattern in ignore)
  ]
  absent = "(absent)"
  changed = [name for name in names if old.get(name, absent) != new.get(name, absent)]
  return "\n".join(f"  {name}: {old.get(name, absent)} -> {new.get(name, absent)}" for name in changed)
