"""Exported folders: the same answers as the run, the same bytes each time, and whatever is wrong is one line."""

import json
import os
import shutil
import subprocess
import types

import jax
import ml_collections
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import attention_zoo as zoo
from attention_zoo.data import identity
from attention_zoo.errors import UserError
from attention_zoo.exchange import card, folder, plain
from attention_zoo.protocols import Initial
from attention_zoo.training import arrays, safetensors_file
from attention_zoo.training import average as average_lib
from attention_zoo.training import exported as reading
from attention_zoo.training.init_from import init_from
from attention_zoo.training.workdir import check_names
from tests.training.saved import assert_same

SENTENCES = ["one two three", "four", ""]


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
  to = tmp_path_factory.mktemp("exported") / "folder"
  folder.write(zoo.load(tiny_run), to)
  return to


@pytest.fixture
def copy(exported, tmp_path):
  return shutil.copytree(exported, tmp_path / "copy")


def refuses(path, match, **options):
  with pytest.raises(UserError, match=match) as caught:
    zoo.load(path, **options)
  assert "\n" not in str(caught.value)


def test_it_answers_as_the_run_does(tiny_run, exported):
  run, other = zoo.load(tiny_run), zoo.load(exported)
  assert_same(other.params, run.params)
  assert other.hypotheses(SENTENCES, n_best=2) == run.hypotheses(SENTENCES, n_best=2)
  assert (other.checkpoint, other.parents) == ("exported", run.parents)
  assert not (exported / "checkpoints").exists()


def test_the_same_bytes_again(tiny_run, exported, tmp_path):
  folder.write(zoo.load(tiny_run), tmp_path / "again")
  assert (tmp_path / "again" / reading.SUMS).read_bytes() == (exported / reading.SUMS).read_bytes()


def test_anybody_can_check_it(exported):
  found = subprocess.run(["sha256sum", "-c", reading.SUMS], cwd=exported, capture_output=True, text=True)
  assert found.returncode == 0 and found.stdout.count("OK") == len([*exported.iterdir()]) - 1


def test_card(tiny_run, exported):
  card = json.loads((exported / "card.json").read_text())
  run = zoo.load(tiny_run)
  assert card["parameters"] == sum(x.size for x in jax.tree.leaves(run.params)) and card["steps"] == run.parents
  assert card["config"]["model.name"] == "transformer" and card["stored_as"] == "float32" and card["scores"] == []
  text = (exported / "README.md").read_text()
  assert "None: these parameters were not evaluated" in text and f"{card['parameters']:,} parameters" in text


def test_card_has_the_scores_of_these_parameters_alone(tiny_run, tmp_path):
  run = shutil.copytree(tiny_run, tmp_path / "run")
  loaded = zoo.load(run)
  score = {
    "split": "test", "bleu": [{"name": "sacreBLEU", "score": 12.345, "signature": "x"}], "perplexity": {"per_word": 3.0}
  }  # fmt: skip
  (run / "eval").mkdir(exist_ok=True)
  score |= {"beam_size": 4, "alpha": 0.6}
  digest = arrays.digest(loaded.params, loaded.variables)
  other = jax.tree.map(lambda x: x + 1, loaded.params)
  records = [
    score | {"parameters": digest}, score | {"parameters": arrays.digest(other, {}), "parents": loaded.parents},
    score, [], {"parameters": digest}, {"parameters": digest, "split": "test", "bleu": [{"score": "high"}]},
    {"parameters": digest, "split": "test", "perplexity": 3},
  ]  # fmt: skip
  for i, record in enumerate(records):
    (run / "eval" / f"{i}.json").write_text(json.dumps(record))
  assert folder.write(loaded, tmp_path / "to")["scores"] == [score]
  line = "- test: sacreBLEU 12.35 (x); perplexity per word 3; beam_size 4, alpha 0.6\n"
  assert line in (tmp_path / "to/README.md").read_text()


def test_it_does_not_tell_where_files_lay(tiny_run, tmp_path):
  run = shutil.copytree(tiny_run, tmp_path / "run")
  config = json.loads((run / "config.json").read_text())
  config["data"] |= {"dir": "/home/me/corpora/mine/", "cache_dir": "/home/me/cache"}
  (tmp_path / "my words").write_text("one\teins\n")
  config["decode"] |= {"unknown_dictionary": str(tmp_path / "my words"), "replace_unknown": True}
  (run / "config.json").write_text(json.dumps(config))
  (run / "versions.json").unlink()
  said = json.loads((run / "text.json").read_text())
  del said["checksum"]
  said["dir"] = "/home/me/corpora/mine"
  (run / "text.json").write_text(identity._json(said))
  folder.write(zoo.load(run), tmp_path / "to")
  for name in ("config.json", "text.json", "card.json", "README.md"):
    text = (tmp_path / "to" / name).read_text()
    assert "/home" not in text and "my words" not in text, name
  (tmp_path / "my words").unlink()
  other = zoo.load(tmp_path / "to")
  assert other.config.data.dir == "mine"
  assert json.loads((tmp_path / "to" / "config.json").read_text())["data"]["cache_dir"] == ""
  config["train"]["init_from"] = "/home/me/runs/parent/"
  (run / "config.json").write_text(json.dumps(config))
  task = types.SimpleNamespace(workdir=run, attachments=dict)
  assert card.published(types.SimpleNamespace(task=task))[0].train.init_from == "parent"
  assert other.task.attachments() == {"decode.unknown_dictionary": tmp_path / "to" / "unknown_dictionary.txt"}
  assert len(other.translate(SENTENCES)) == 3


def test_arrays_alone_as_bfloat16(tiny_run, tmp_path):
  run = zoo.load(tiny_run)
  plain.write(run, tmp_path / "to", "bfloat16")
  stored = safetensors_file.parse((tmp_path / "to" / reading.PARAMETERS).read_bytes(), "x")
  assert {leaf.dtype for leaf in jax.tree.leaves(stored)} == {np.dtype(ml_dtypes.bfloat16)}
  assert jax.tree.structure(stored["params"]) == jax.tree.structure(run.params)


def test_names_of_whole_numbers_say_what_they_are_multiplied_by(tiny_run, tmp_path):
  plain.write(zoo.load(tiny_run), tmp_path / "to", "int8")
  names = json.loads((tmp_path / "to" / "names.json").read_text())
  stored = safetensors.numpy.load_file(tmp_path / "to" / reading.PARAMETERS)
  assert {name for name in stored if not name.endswith("#scale")} == set(names)
  for name, about in names.items():
    assert (stored[name].dtype == np.int8) == ("scale" in about)
    assert stored[name].shape == tuple(about["shape"])
    assert "scale" not in about or about["scale"] in stored


def test_the_same_model_has_the_same_digest(tiny_run, exported):
  run, other = zoo.load(tiny_run), zoo.load(exported)
  digest = lambda x: arrays.digest(x.params, x.variables)
  assert digest(run) == digest(other)
  for changed in (lambda x: x.T, lambda x: x.astype(np.float16), lambda x: x + (x == x.max())):
    assert arrays.digest(jax.tree.map(changed, run.params), {}) != digest(run)


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 2**-8), ("int8", 1 / 250)])
def test_smaller_types(tiny_run, exported, tmp_path, dtype, bound):
  run = zoo.load(tiny_run)
  folder.write(run, tmp_path / dtype, dtype)
  size = lambda path: os.path.getsize(path / reading.PARAMETERS)
  assert size(tmp_path / dtype) < 0.8 * size(exported)
  other = zoo.load(tmp_path / dtype)
  for here, there in zip(jax.tree.leaves(run.params), jax.tree.leaves(other.params), strict=True):
    assert there.dtype == here.dtype == np.float32
    np.testing.assert_allclose(there, here, rtol=0, atol=bound * max(np.abs(here).max(), 1e-9))
  other.translate(SENTENCES)


def test_arrays_by_hand():
  items = {"params": {"a": {"w_DF": np.array([[0.5, -1.27], [0, 0]], np.float32)}, "b_F": np.ones(3, np.float32)}}
  items["variables"] = {"seen": np.array([3], np.int32)}
  stored = safetensors.numpy.load(safetensors_file.dump(items, "int8"))
  np.testing.assert_array_equal(stored["params/a/w_DF"], np.array([[50, -127], [0, 0]], np.int8))
  np.testing.assert_allclose(stored["params/a/w_DF#scale"], np.array([[0.01], [1]], np.float32), rtol=1e-6)
  back = safetensors_file.parse(safetensors_file.dump(items, "int8"), "x")
  assert back["variables"]["seen"].dtype == np.int32 and back["params"]["b_F"].dtype == np.float32
  np.testing.assert_allclose(back["params"]["a"]["w_DF"], items["params"]["a"]["w_DF"], rtol=1e-6)
  assert_same(safetensors_file.parse(safetensors_file.dump(items), "x"), items)
  half = safetensors_file.parse(safetensors_file.dump(items, "bfloat16"), "x")["params"]["a"]["w_DF"]
  assert half.dtype == ml_dtypes.bfloat16


def test_fine_tuning_begins_with_it(exported):
  stored = reading.read(exported)
  config = ml_collections.ConfigDict({"train": {"init_from": str(exported), "init_map": ()}})
  drawn = jax.tree.map(np.zeros_like, Initial(stored.params, stored.variables))
  found, taken = init_from(jax.device_put(drawn), config)
  assert_same(found.params, stored.params)
  assert not taken.new and not taken.left


@pytest.mark.parametrize("other", [False, True])
def test_another_vocabulary_than_that_of_the_parameters_is_told(exported, tmp_path, caplog, other):
  stored = reading.read(exported)
  config = ml_collections.ConfigDict({"train": {"init_from": str(exported), "init_map": ()}})
  vocabulary = (exported / "tokenizer.model").read_bytes()
  (tmp_path / "tokenizer.model").write_bytes(vocabulary + b"x" * other)
  init_from(jax.device_put(Initial(stored.params, stored.variables)), config, tmp_path)
  assert ("has another vocabulary than this run" in caplog.text) == other


def test_a_folder_that_is_there_stays(tiny_run, exported):
  before = (exported / reading.SUMS).read_bytes()
  with pytest.raises(UserError, match="exists: export to a new folder"):
    folder.write(zoo.load(tiny_run), exported)
  assert (exported / reading.SUMS).read_bytes() == before


def test_nothing_half_written_is_left(tiny_run, tmp_path, monkeypatch):
  run = zoo.load(tiny_run)
  monkeypatch.setattr(folder, "write_sums", lambda _: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    folder.write(run, tmp_path / "to")
  assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "README.md", "card.json", reading.PARAMETERS])
def test_a_changed_file(copy, name):
  content = bytearray((copy / name).read_bytes())
  content[-2] ^= 1  # in numbers and texts alike still what it was by its form
  (copy / name).write_bytes(content)
  refuses(copy, name)


@pytest.mark.parametrize("name", ["config.json", "text.json", "card.json", reading.SUMS])
def test_a_missing_file(copy, name):
  (copy / name).unlink()
  refuses(copy, name)


def resign(copy):
  (copy / reading.SUMS).unlink()
  folder.write_sums(copy)


def test_other_parameters(copy):
  path = copy / reading.PARAMETERS
  stored = safetensors.numpy.load_file(path)
  name = next(iter(stored))

  def put(changed):
    path.write_bytes(safetensors.numpy.save(changed))
    resign(copy)

  put({key: value for key, value in stored.items() if key != name})
  refuses(copy, f"lacks the array {name}")
  put(stored | {"params/more": stored[name]})
  refuses(copy, "has the array params/more, which the model in config.json has not")
  put(stored | {name: stored[name][..., :1]})
  refuses(copy, "has shape")
  put(stored | {"params": stored[name]})
  refuses(copy, "has the array params,")
  put(stored | {name: stored[name].astype(np.int8)})
  refuses(copy, "what they are multiplied by is missing")
  put(stored | {name: stored[name].astype(np.int32)})
  refuses(copy, "is int32, but the model wants float32")
  path.write_bytes(b"\x80\x04K\x01.")  # a pickle
  resign(copy)
  refuses(copy, "is not a safetensors file")


def test_more_layers_than_arrays(copy):
  config = json.loads((copy / "config.json").read_text())
  stored = safetensors.numpy.load_file(copy / reading.PARAMETERS)
  empty = {f"params/{i}": np.zeros((0, 5), np.float32) for i in range(3000)}  # they take no room, and are no layers
  safetensors.numpy.save_file(stored | empty, copy / reading.PARAMETERS)
  for layers, match in ((10**6, "more than 4,096 is no run's"), (2000, "but .* has more than")):
    config["model"]["num_encoder_layers"] = layers
    (copy / "config.json").write_text(json.dumps(config))
    resign(copy)
    refuses(copy, f"num_encoder_layers = {layers}.*{match}")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "card.json"])
def test_a_list_of_checksums_that_was_cut(copy, name):
  lines = (copy / reading.SUMS).read_text().splitlines(True)
  (copy / reading.SUMS).write_text("".join(line for line in lines if name not in line))
  refuses(copy, f"{reading.SUMS} lacks {name}")


def test_a_file_of_holes_for_fine_tuning(copy):
  os.truncate(copy / reading.PARAMETERS, 1 << 40)
  with pytest.raises(UserError, match="of which the disk holds"):
    reading.read(copy)


def test_a_file_of_holes(copy):
  path = copy / reading.PARAMETERS
  size = 1 << 32
  header = json.dumps({"params/x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
  path.write_bytes(len(header).to_bytes(8, "little") + header)
  os.truncate(path, size + 8 + len(header))
  refuses(copy, reading.PARAMETERS)


def test_a_name_that_leads_out(copy):
  (copy / reading.SUMS).write_text("0" * 64 + "  ../secret\n")
  refuses(copy, "is not a list of checksums")


def test_what_only_runs_have(copy):
  refuses(copy, "one set of parameters: there is no checkpoint 10", checkpoint=10)
  with pytest.raises(UserError, match="has 0 checkpoints"):
    average_lib.average(copy, last=2)
  with pytest.raises(UserError, match="is an exported model: train elsewhere"):
    check_names(copy)
