"""Folders that somebody sent: whatever is wrong with them is one line, before anything is read that cannot be."""

import json
import os
import shutil

import jax
import ml_collections
import numpy as np
import pytest

import attention_zoo as zoo
from attention_zoo.errors import UserError
from attention_zoo.training import average as average_lib
from attention_zoo.training import checksums, loading, untrusted


@pytest.fixture
def run(tiny_run, tmp_path):
  """A copy with the average alone."""
  copy = tmp_path / "run"
  shutil.copytree(tiny_run, copy, ignore=shutil.ignore_patterns("checkpoints", "data", "tensorboard"))
  return copy


def edit(run, text, *fields):
  """config.json with `text` in the place of what the fields lead to, and no record of what it was."""
  config = json.loads((run / "config.json").read_text())
  group = config
  for field in fields[:-1]:
    group = group[field]
  group[fields[-1]] = json.loads(text)
  (run / "config.json").write_text(json.dumps(config))
  (run / "versions.json").unlink()
  record = json.loads((run / "average/average.json").read_text())
  (run / "average/average.json").write_text(json.dumps({"steps": record["steps"]}))
  checksums.write(run / "average")


def refuses(run, match):
  with pytest.raises(UserError, match=match) as caught:
    zoo.load(run)
  assert "\n" not in str(caught.value)


def test_a_run_is_opened(run):
  assert zoo.load(run).translate(["seven"])[0]


def test_translating_needs_no_text(run):
  edit(run, '"/nowhere"', "data", "dir")
  opened = zoo.load(run)
  assert opened.translate(["seven"])[0]
  with pytest.raises(UserError, match="/nowhere"):
    opened.perplexity("test")


def test_pipes_and_sockets(run):
  os.mkfifo(run / "average" / "pipe")
  refuses(run, "average/pipe is neither a file nor a folder")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "average/checksums.json"])
def test_a_pipe_in_the_place_of_a_file(run, name):
  (run / name).unlink()
  os.mkfifo(run / name)
  refuses(run, f"{name} is neither a file nor a folder")


@pytest.mark.parametrize("target", ["/dev/zero", "../elsewhere", "nothing", ".", "/etc/passwd"])
def test_links_that_lead_out_or_nowhere_or_round(run, target):
  (run.parent / "elsewhere").mkdir()
  (run / "link").symlink_to(target)
  refuses(run, "link is a link to .*, which is not a file or folder of the run")


def test_links_within_the_run_are_fine(run, tmp_path):
  (run / "average").rename(run / "really")
  (run / "average").symlink_to("really")
  (tmp_path / "another name").symlink_to(run)
  assert zoo.load(tmp_path / "another name").checkpoint == "average"


def test_too_large_too_many_too_deep(run, monkeypatch):
  with open(run / "tokenizer.model", "r+b") as file:
    file.truncate(1 << 40)  # takes no room
  refuses(run, "tokenizer.model has 1,099,511,627,776 bytes; no run needs")
  (run / "tokenizer.model").unlink()
  monkeypatch.setattr(untrusted, "DEEPEST", 4)
  (run / "a/b/c/d/e").mkdir(parents=True)
  refuses(run, "is not a run: it has more than")


def test_a_huge_checkpoint_is_not_summed_up(run):
  with open(run / "average" / "more", "wb") as file:
    file.truncate(1 << 40)
  refuses(run, "average has 1,099,.* bytes; a checkpoint of the model in config.json has at most")


@pytest.mark.parametrize(
  ("fields", "text", "match"),
  [
    (["model"], "1", "config.model must be a group"),
    (["mesh", "replica"], '{"a": {"b": 1}}', "config.mesh.replica must be int, not ConfigDict"),
    (["model", "d_model"], "true", "config.model.d_model must be int"),
    (["data", "languages"], '"en"', "config.data.languages must be tuple"),
    (["decode", "beam_size"], "0", "config.decode.beam_size must be at least 1"),
    (["decode", "beam_size"], "100000", "config.decode.beam_size = 100000: more than 128"),
    (["decode", "extra_length"], "1000000000", "config.decode.extra_length = 1000000000"),
    (["model", "num_encoder_layers"], "1000000000000", "num_encoder_layers = 1000000000000: more than"),
    (["model", "num_decoder_layers"], "4000", "num_decoder_layers = 4000, but no checkpoint"),
    (["model", "d_model"], "1000000000000", "config.model.d_model = 1000000000000: more than"),
    (["model", "d_model"], "1" + "0" * 400, "more than 30 digits"),
    (["model", "d_model"], "33", "config.model.*even d_model"),
    (["model", "d_model"], "1000000", "has shape .*, but the model wants .*1000000"),
    (["data", "vocab_size"], "1000000", "table_VD has shape .*, but the model wants .*1000000"),
    (["data", "vocab_size"], "201", r"embedding/table_VD has shape \(200, 32\), but the model wants \(201, 32\)"),
    (
      ["model", "decoder_attention"],
      '"sliding_window(width=1000000000)"',
      "config.model.decoder_attention = 1000000000",
    ),
    (["model", "decoder_attention"], '"time_restricted(left=1000000)"', "has shape .*, but the model wants .*1000017"),
    (["model", "decoder_attention"], '"rotary(base=[[[[[]]]]])"', "config.model"),
    (["model", "decoder_attention"], json.dumps("(" * 5000), "config.model"),
    (["model", "positions"], '"learned"', "lacks the array .*table"),
    (["model", "residual"], '"pre"', "lacks the array decoder/norm"),
  ],
)
def test_configs_that_training_would_refuse_or_nobody_has(run, fields, text, match):
  edit(run, text, *fields)
  refuses(run, match)


@pytest.mark.parametrize(
  ("field", "value"),
  [("max_tokens", 10**6), ("stop", (1, (2, 10**9))), ("method", "beam(size=5, width=-2000000)"), ("alpha", 10**400)],
)
def test_numbers_beyond_all_bounds_wherever_they_stand(field, value):
  config = ml_collections.ConfigDict({"task": "x", "decode": {"beam_size": 4, field: value}})
  with pytest.raises(UserError, match=f"config.decode.{field} = .*: more than"):
    untrusted.check_ranges(config)


@pytest.mark.parametrize(
  ("text", "match"),
  [
    ("", "is not valid JSON"),
    ("[" * 100_000, "is not valid JSON"),
    ('{"a":' * 100 + "1" + "}" * 100, "nested more than 32 deep"),
    ("[]", "must be groups of fields"),
    ('{"get": {}}', "config"),
    ("{}", "config.task"),
    (b"\xff\xfe", "is not valid JSON"),
    ('{"a": "' + "x" * (1 << 20) + '"}', "more than 1,048,576 bytes"),
  ],
)
def test_what_is_no_config(run, text, match):
  (run / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
  refuses(run, match)


def test_a_config_that_was_changed_is_used_only_if_it_is_asked_for(run):
  path = run / "config.json"
  path.write_text(path.read_text().replace('"alpha": 0.6', '"alpha": 0.7'))
  refuses(run, "config.json is not as training wrote it: .* delete .*versions.json")
  (run / "versions.json").unlink()
  assert zoo.load(run).config.decode.alpha == 0.7


def rewrite(run, change):
  """An average of other parameters, whole and with its checksums."""
  params = loading.load_params(run)
  average_lib._write(
    run / "average", {"params": change(params)}, {"average.json": (run / "average/average.json").read_text()}
  )


def zeros(params):
  return params | {"more": {"zeros": np.zeros((20_000, 20_000), np.int8)}}


def without(params):
  return {name: value for name, value in params.items() if name != "encoder"}


def wider(params):
  return params | {"embedding": {"table_VD": np.zeros((200, 33), np.float32)}}


def halves(params):
  return params | {"embedding": {"table_VD": params["embedding"]["table_VD"].astype(np.float16)}}


def joined(params):  # a name with the sign that stands between names
  return {name: value for name, value in params.items() if name != "embedding"} | {
    "embedding/table_VD": params["embedding"]["table_VD"]
  }


def renamed(params):
  return {name.replace("embedding", "../embedding"): value for name, value in params.items()}


@pytest.mark.parametrize(
  ("change", "match"),
  [
    (zeros, "average/params has the array more/zeros, which the model in config.json has not"),
    (without, "average/params lacks the array encoder/layer_0"),
    (wider, r"the array embedding/table_VD has shape \(200, 33\), but the model wants \(200, 32\)"),
    (halves, "the array embedding/table_VD is float16, but the model wants float32"),
    (joined, "lacks the array embedding/table_VD"),
    (renamed, "lacks the array embedding/table_VD"),
  ],
)
def test_parameters_that_are_not_the_models(run, change, match):
  rewrite(run, change)
  refuses(run, match)


def test_any_arrays_will_do_where_none_are_expected_but_not_zeros_that_fill_the_memory(run):
  whole = untrusted.read_params(run / "average" / "params")
  assert whole["embedding"]["table_VD"].shape == (200, 32)
  rewrite(run, zeros)
  with pytest.raises(UserError, match="bytes, too few for its arrays, which would take 400,"):
    untrusted.read_params(run / "average" / "params")


def test_layers_without_end_are_not_traced_when_no_list_of_arrays_can_be_read(run):
  edit(run, "4000", "model", "num_decoder_layers")
  (run / "average/params/_METADATA").write_text("{}")
  refuses(run, "has no checkpoints")


def store(run):
  """The key-value store that the arrays lie in."""
  import tensorstore

  return tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{run}/average/params/"}).result()


@pytest.mark.parametrize(
  ("field", "value", "match"),
  [
    ("shape", [100_000, 100_000], r"has shape \(100000, 100000\), but"),
    ("chunks", [100_000, 100_000], r"is stored in pieces of \(100000, 100000\)"),
    ("dtype", "<f8", "is float64, but"),
    ("compressor", {"id": "none of these"}, "cannot be read"),
    ("zarr_format", 7, "cannot be read"),
  ],
)
def test_arrays_that_declare_what_they_do_not_hold(run, field, value, match):
  """[100000, 100000] ended the process: 40 GB were asked for."""
  values = store(run)
  header = json.loads(values.read("embedding.table_VD/.zarray").result().value)
  values.write("embedding.table_VD/.zarray", json.dumps(header | {field: value})).result()
  checksums.write(run / "average")  # the sender can compute them
  refuses(run, match)


@pytest.mark.parametrize(
  "text", ["", "[" * 100_000, "{}", '{"tree_metadata": 3}', '{"tree_metadata": {"a": {"key_metadata": 3}}}']
)
def test_lists_of_arrays_that_are_none(run, text):
  (run / "average/params/_METADATA").write_text(text)
  checksums.write(run / "average")  # the sender can compute them
  refuses(run, "params/_METADATA")


def test_reading_writes_nowhere_but_in_the_run(tiny_run, run, tmp_path):
  target = tmp_path / "not here"
  edit(run, json.dumps(str(target)), "data", "cache_dir")
  assert zoo.load(run).perplexity("test")["per_subword"] > 1
  assert not target.exists() and (run / "data").exists()


def test_shapes_are_those_of_the_parameters(tiny_run):
  task = zoo.load(tiny_run).task
  shapes = untrusted.abstract_items(task, tiny_run)["params"]
  found = loading.load_params(tiny_run)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(lambda x: (x.shape, x.dtype), found)
