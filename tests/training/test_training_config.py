import pytest
from ml_collections import ConfigDict

from attention_zoo.errors import UserError
from attention_zoo.training import config as config_lib
from attention_zoo.training import workdir as workdir_lib

VALUES = {int: 1, float: 0.5, str: "x", bool: True, tuple: ("en", "de")}


def translation_config():
  groups = {
    group: {name: field.choices[0] if field.choices else VALUES[field.type] for name, field in fields.items()}
    for group, fields in config_lib.GROUPS.items()
  }
  return ConfigDict({"task": "translation", **groups})


def test_a_good_config_passes_and_ints_may_stand_for_floats():
  config = translation_config()
  config_lib.validate(config)
  with config.ignore_type():
    config.optimizer.learning_rate = 1
  config_lib.validate(config)


@pytest.mark.parametrize(
  ("group", "name", "value", "message"),
  [
    ("train", "stepz", 5, r"config.train.stepz is not a field \(did you mean 'steps'\?\)"),
    ("model", "d_modl", 5, r"config.model.d_modl is not a field \(did you mean 'd_model'\?\)"),
    ("train", "steps", 2.5, r"config.train.steps must be int, not float \(2.5\)"),
    ("train", "steps", True, "config.train.steps must be int, not bool"),
    ("train", "steps", 0, "config.train.steps must be at least 1, not 0"),
    ("model", "dropout", 1.5, "config.model.dropout must be from 0.0 to 1.0, not 1.5"),
    ("model", "residual", "psot", r"'psot' is not one of post, pre, none \(did you mean 'post'\?\)"),
    ("data", "languages", "en", "config.data.languages must be tuple, not str"),
    ("mesh", "data", 0, "config.mesh.data must be -1"),
  ],
)
def test_bad_fields(group, name, value, message):
  config = translation_config()
  with config.ignore_type():
    config[group][name] = value
  with pytest.raises(UserError, match=message):
    config_lib.validate(config)


def test_missing_and_unknown_groups():
  config = translation_config()
  del config.train["keep"]
  with pytest.raises(UserError, match="config.train.keep is missing"):
    config_lib.validate(config)
  del config["decode"]
  with pytest.raises(UserError, match="config.decode is missing"):
    config_lib.validate(config)
  config.optimiser = ConfigDict()
  with pytest.raises(UserError, match="config.optimiser is not a field .*'optimizer'"):
    config_lib.validate(config)


def test_another_tasks_groups():
  groups = {**config_lib.GROUPS, "data": {"files": config_lib.Field(str)}}
  config = translation_config()
  config.data = ConfigDict({"files": "music/*.mid"})
  config_lib.validate(config, groups)


def test_json_round_trip():
  config = translation_config()
  again = config_lib.from_json(config_lib.to_json(config))
  assert again.to_dict() == config.to_dict() and again.is_locked
  with pytest.raises(UserError, match="run/config.json is not a config"):
    config_lib.from_json("{", "run/config.json")


def test_diff():
  old, new = translation_config(), translation_config()
  assert config_lib.diff(old, new) == ""
  new.train.steps = 9
  new.model.d_model = 64
  new.mesh.fsdp = 2
  new.eval.extra = "here"
  text = (
    '  eval.extra: (absent) -> "here"\n  mesh.fsdp: 1 -> 2\n  model.d_model: 1 -> 64\n  train.steps: 1 -> 9'
  )
  assert config_lib.diff(old, new) == text
  assert config_lib.diff(old, new, ignore=config_lib.MAY_CHANGE) == "  model.d_model: 1 -> 64"


def test_workdir_belongs_to_one_config(tmp_path):
  config = translation_config()
  config.model.d_ff = 3
  workdir_lib.prepare_workdir(tmp_path / "run", config)
  config.model.d_ff = 1
  workdir_lib.prepare_workdir(tmp_path / "run", config)  # put right before anything was made: no harm done
  assert workdir_lib.read_config(tmp_path / "run").to_dict() == config.to_dict()
  (tmp_path / "run" / "tokenizer.model").touch()
  assert '"jax"' in (tmp_path / "run" / "versions.json").read_text()
  config.train.steps = 100
  workdir_lib.prepare_workdir(tmp_path / "run", config)  # longer training: allowed, and recorded
  assert workdir_lib.read_config(tmp_path / "run").train.steps == 100
  config.model.d_ff = 7
  with pytest.raises(UserError, match=r"another config[^\n]*\n  model.d_ff: 1 -> 7\n.* delete it: it has no checkpoint"):
    workdir_lib.prepare_workdir(tmp_path / "run", config)
  (tmp_path / "run" / "tokenizer.model").unlink()
  (tmp_path / "run" / "checkpoints" / "5").mkdir(parents=True)
  with pytest.raises(UserError, match=r"model.d_ff: 1 -> 7\nChoose .* was started with$"):
    workdir_lib.prepare_workdir(tmp_path / "run", config)
  assert workdir_lib.read_config(tmp_path / "run").model.d_ff == 1


def test_workdir_errors(tmp_path):
  with pytest.raises(UserError, match="no config.json"):
    workdir_lib.read_config(tmp_path)
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot write .*file/config.json"):
    workdir_lib.prepare_workdir(tmp_path / "file", translation_config())
