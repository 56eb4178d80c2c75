import dataclasses

import pytest
from ml_collections import ConfigDict

from attention_zoo import tasks
from attention_zoo.configs import transformer_base
from attention_zoo.errors import UserError
from attention_zoo.training import config as config_lib
from attention_zoo.training import workdir as workdir_lib


def translation_config():
  return transformer_base.get_config().unlock()


def test_a_good_config_passes_and_ints_may_stand_for_floats():
  config = translation_config()
  tasks.validate(config)
  with config.ignore_type():
    config.optimizer.learning_rate = 2
  tasks.validate(config)


@pytest.mark.parametrize(
  ("group", "name", "value", "message"),
  [
    ("train", "stepz", 5, r"config.train.stepz is not a field \(did you mean 'steps'\?\)"),
    ("model", "d_modl", 5, r"config.model.d_modl is not a field \(did you mean 'd_model'\?\)"),
    ("train", "steps", 2.5, r"config.train.steps must be int, not float \(2.5\)"),
    ("train", "steps", True, "config.train.steps must be int, not bool"),
    ("train", "steps", 0, "config.train.steps must be at least 1, not 0"),
    ("model", "dropout", 1.5, "config.model.dropout must be from 0.0 to 1.0, not 1.5"),
    ("data", "batching", "pakced", r"'pakced' is not one of packed, bucketed \(did you mean 'packed'\?\)"),
    ("optimizer", "learning_rate", float("nan"), "config.optimizer.learning_rate must be finite"),
    ("model", "name", "transfromer", "not one of .*did you mean 'transformer'"),
    ("data", "languages", "en", "config.data.languages must be tuple, not str"),
    ("mesh", "data", 0, "config.mesh.data must be -1"),
  ],
)
def test_bad_fields(group, name, value, message):
  config = translation_config()
  with config.ignore_type():
    config[group][name] = value
  with pytest.raises(UserError, match=message):
    tasks.validate(config)


def test_missing_and_unknown_groups():
  config = translation_config()
  del config.train["keep"]
  with pytest.raises(UserError, match="config.train.keep is missing"):
    tasks.validate(config)
  del config["decode"]
  with pytest.raises(UserError, match="config.decode is missing"):
    tasks.validate(config)
  config.optimiser = ConfigDict()
  with pytest.raises(UserError, match="config.optimiser is not a field .*'optimizer'"):
    tasks.validate(config)


def test_another_tasks_groups():
  groups = {**config_lib.GROUPS, "data": {"files": config_lib.Field(str), "rate": config_lib.Field(int, default=7)}}
  config = translation_config()
  for group in ("model", "decode"):
    del config[group]
  config.data = ConfigDict({"files": "music/*.mid"})
  del config.train["label_smoothing"]
  config_lib.validate(config, groups)
  assert config.data.rate == 7


def test_a_models_fields_are_its_dataclasss():
  @dataclasses.dataclass(frozen=True)
  class Config:
    vocab_size: int
    width: int
    depth: int = dataclasses.field(default=0, metadata={"low": 0})
    dropout: float = 0.1

  fields = config_lib.fields_of(Config, ("vocab_size",))
  assert list(fields) == ["name", "width", "depth", "dropout"]
  assert fields["width"] == config_lib.Field(int, low=1) and fields["depth"].low == 0
  assert (fields["dropout"].low, fields["dropout"].high, fields["dropout"].default) == (0.0, 1.0, 0.1)


def test_json_round_trip():
  config = translation_config()
  again = config_lib.from_json(config_lib.to_json(config))
  assert again.to_dict() == config.to_dict() and again.is_locked
  with pytest.raises(UserError, match="run/config.json is not valid JSON"):
    config_lib.from_json("{", "run/config.json")


def test_diff():
  old, new = translation_config(), translation_config()
  assert config_lib.diff(old, new) == ""
  new.train.steps = 9
  new.model.d_model = 64
  new.mesh.fsdp = 2
  new.data.extra = "here"
  text = (
    '  data.extra: (absent) -> "here"\n  mesh.fsdp: 1 -> 2\n  model.d_model: 512 -> 64\n'
    "  optimizer.d_model: 512 -> 64\n  train.steps: 100000 -> 9"
  )
  assert config_lib.diff(old, new) == text
  ignored = (*config_lib.MAY_CHANGE, "optimizer.*", "data.extra")
  assert config_lib.diff(old, new, ignore=ignored) == "  model.d_model: 512 -> 64"


def test_workdir_belongs_to_one_config(tmp_path):
  config = translation_config()
  config.model.d_ff = 3
  workdir_lib.prepare_workdir(tmp_path / "run", config)
  config.model.d_ff = 1
  (tmp_path / "run" / "tokenizer.model").touch()
  workdir_lib.prepare_workdir(tmp_path / "run", config)  # put right before a checkpoint was made: no harm done
  assert workdir_lib.read_config(tmp_path / "run").to_dict() == config.to_dict()
  assert '"jax"' in (tmp_path / "run" / "versions.json").read_text()
  config.train.steps = 100
  workdir_lib.prepare_workdir(tmp_path / "run", config)  # longer training: allowed, and recorded
  assert workdir_lib.read_config(tmp_path / "run").train.steps == 100
  (tmp_path / "run" / "checkpoints" / "5").mkdir(parents=True)
  config.model.d_ff = 7
  with pytest.raises(UserError, match=r"model.d_ff: 1 -> 7\nChoose .* was started with$"):
    workdir_lib.prepare_workdir(tmp_path / "run", config)
  assert workdir_lib.read_config(tmp_path / "run").model.d_ff == 1


def test_a_workdir_whose_checkpoints_are_all_damaged_is_not_free(tmp_path):
  config = translation_config()
  workdir_lib.prepare_workdir(tmp_path, config)
  (tmp_path / "damaged" / "5").mkdir(parents=True)
  config.model.d_ff += 1
  with pytest.raises(UserError, match="belongs to a run with another config"):
    workdir_lib.prepare_workdir(tmp_path, config)


def test_workdir_errors(tmp_path):
  with pytest.raises(UserError, match="no config.json"):
    workdir_lib.read_config(tmp_path)
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot read .*file/checkpoints: Not a directory"):
    workdir_lib.prepare_workdir(tmp_path / "file", translation_config())
