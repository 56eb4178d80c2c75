"""A run that begins with another's parameters: what is taken, what is new, what is left, and what does not fit."""

import os
import shutil

import jax
import numpy as np
import pytest

from attention_zoo.errors import UserError
from attention_zoo.protocols import Initial
from attention_zoo.training import average as average_lib
from attention_zoo.training import loading, untrusted
from attention_zoo.training.init_from import init_from
from attention_zoo.training.loop import train
from tests.training import toy_task


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("parent")
  config = toy_task.make_config(**{"train.steps": 2, "data.labels": ("no", "yes")})
  train(toy_task.ToyTask(config), config, workdir, quiet=True)
  return workdir


def test_training_goes_on_from_there(parent, tmp_path, capsys):
  config = toy_task.make_config(
    **{"train.init_from": str(parent), "train.steps": 1, "optimizer.learning_rate": 0.0, "train.seed": 1}
  )
  state = train(toy_task.ToyTask(config), config, tmp_path)
  assert toy_task.digest(state.params) == toy_task.digest(loading.load_params(parent, "latest"))
  shown = capsys.readouterr().err
  assert "12 taken, 0 new, 0 left" in shown and "taken  embedding/table_VD" in shown


def config_of(parent, *entries):
  return toy_task.make_config(**{"train.init_from": str(parent), "train.init_map": entries})


def test_names_are_mapped_and_the_rest_is_listed(parent):
  drawn = {"encoder": {"table_VD": np.ones((toy_task.V, toy_task.D), np.float32)}, "head": {"bias_V": np.zeros(3)}}
  drawn = jax.device_put(drawn)
  (params, _), taken = init_from(Initial(drawn), config_of(parent, ("^encoder/", "embedding/")))
  stored = loading.load_params(parent, "latest")
  np.testing.assert_array_equal(params["encoder"]["table_VD"], stored["embedding"]["table_VD"])
  assert taken.taken == [("encoder/table_VD", "embedding/table_VD")] and taken.new == ["head/bias_V"]
  assert len(taken.left) == 11 and "embedding/table_VD" not in taken.left
  assert "  taken  encoder/table_VD <- embedding/table_VD\n  new    head/bias_V\n  left   encoder/" in str(taken)


@pytest.mark.parametrize(
  ("name", "labels", "told"),
  [
    ("kernel_UO", ("yes", "no"), True), ("kernel_UO", ("no", "yes"), False), ("kernel_UO", None, False),
    ("table_VD", ("yes", "no"), False),
  ],
)  # fmt: skip
def test_labels_in_another_order(parent, caplog, name, labels, told):
  drawn = jax.device_put({"head": {name: np.ones((toy_task.V, toy_task.D), np.float32)}})
  config = config_of(parent, ("^head/.*", "embedding/table_VD"))
  if labels:
    with config.unlocked():
      config.data.labels = labels
  init_from(Initial(drawn), config, meanings={"O": "data.labels"} if labels else {})
  line = "has config.data.labels = ('no', 'yes'), this run ('yes', 'no'): the outputs of head/kernel_UO mean other"
  assert (line in caplog.text) is told and bool(caplog.text) is told


def test_a_run_in_the_home_folder(parent, monkeypatch):
  monkeypatch.setenv("HOME", str(parent.parent))
  _, taken = init_from(Initial(jax.device_put(loading.load_params(parent, "latest"))), config_of(f"~/{parent.name}"))
  assert len(taken.taken) == 12


def test_what_does_not_fit_is_all_listed(parent):
  drawn = jax.device_put({"embedding": {"table_VD": np.ones((3, 4))}, "source_positions": {"table_TD": np.ones(7)}})
  with pytest.raises(UserError, match=r"(?s)embedding/table_VD \(3, 4\) <- .*source_positions/table_TD \(7,\) <- "):
    init_from(Initial(drawn), config_of(parent))
  with pytest.raises(UserError, match="no parameter there has a name of this model.*embedding/table_VD"):
    init_from(Initial(jax.device_put({"other": np.ones(3)})), config_of(parent))
  with pytest.raises(UserError, match="init_map: 'x' is not"):
    init_from(Initial(drawn), config_of(parent, "x"))
  with pytest.raises(UserError, match="no checkpoints"):
    init_from(Initial(drawn), config_of(parent / "nowhere"))


def test_the_folder_may_come_from_anybody(parent, tmp_path):
  copy = tmp_path / "copy"
  shutil.copytree(parent, copy)
  os.mkfifo(copy / "checkpoints" / "pipe")
  with pytest.raises(UserError, match="checkpoints/pipe is neither a file nor a folder"):
    init_from(Initial({}), config_of(copy))


def test_a_small_file_that_fills_the_memory(parent, tmp_path, monkeypatch):
  monkeypatch.setattr(untrusted, "SMALL", 1000)
  copy = shutil.copytree(parent, tmp_path / "copy")
  zeros = {"params": {"embedding": {"table_VD": np.zeros((2000, 2000), np.int8)}}}
  average_lib._write(copy / "average", zeros, {"average.json": '{"steps": [2]}'})
  with pytest.raises(UserError, match="bytes, too few for its arrays, which would take 4,000,000"):
    init_from(Initial({}), config_of(copy))


class WithVocabulary(toy_task.ToyTask):
  def claim(self):
    (self.workdir / "tokenizer.model").write_bytes(b"own")


@pytest.mark.parametrize("theirs", ["own", "other"])
def test_a_new_run_knows_its_vocabulary_before_it_takes_parameters(parent, tmp_path, caplog, theirs):
  there, here = shutil.copytree(parent, tmp_path / "there"), tmp_path / "here"
  (there / "tokenizer.model").write_text(theirs)
  task = WithVocabulary(toy_task.make_config(**{"train.init_from": str(there), "train.steps": 1}))
  task.workdir = here
  train(task, task.config, here, quiet=True)
  assert ("the rows of embedding/table_VD mean other tokens" in caplog.text) == (theirs == "other")


def test_characters_are_the_same_in_every_vocabulary(parent, tmp_path, caplog):
  there = shutil.copytree(parent, tmp_path / "there")
  for folder, text in ((there, "theirs"), (tmp_path, "ours")):
    (folder / "tokenizer.model").write_text(text)
  for name, told in (("characters", False), ("words", True)):
    drawn = jax.device_put({name: {"table_VD": np.ones((toy_task.V, toy_task.D), np.float32)}})
    init_from(Initial(drawn), config_of(there, (f"^{name}/", "embedding/")), tmp_path)
    assert ("mean other tokens" in caplog.text) is told
