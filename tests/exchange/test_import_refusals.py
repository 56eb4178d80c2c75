"""Folders that are not to be trusted, and those of other frameworks: one line says why, and nothing is read."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors

from attention_zoo import import_model
from attention_zoo.errors import UserError
from attention_zoo.exchange import importing
from tests.exchange import folders

SECRET = "/etc/hostname"


@pytest.fixture
def marian(tmp_path):
  config, arrays = folders.marian(tmp_path / "marian")
  return tmp_path / "marian", config, arrays


@pytest.fixture
def gpt2(tmp_path):
  config, arrays = folders.gpt2(tmp_path / "gpt2")
  return tmp_path / "gpt2", config, arrays


@pytest.fixture(autouse=True)
def nothing_is_read(monkeypatch, request):
  """No array may be asked for, but where the test is about its values."""
  if "values" in request.node.name:
    return
  real = safetensors.safe_open

  class Watched:
    def __init__(self, *args):
      self._file = real(*args)

    def __enter__(self):
      self._arrays = self._file.__enter__()
      return self

    def __exit__(self, *args):
      return self._file.__exit__(*args)

    keys = property(lambda self: self._arrays.keys)
    get_slice = property(lambda self: self._arrays.get_slice)

    def get_tensor(self, name):
      raise AssertionError(f"{name} was read")

  monkeypatch.setattr(safetensors, "safe_open", Watched)


def refuses(folder, match):
  with pytest.raises(UserError, match=match) as caught:
    importing.read(folder)
  assert "\n" not in str(caught.value)


def change(folder, name, **fields):
  value = json.loads((folder / name).read_text())
  for key, new in fields.items():
    value[key] = new
  folders.write(folder, name, value)


def test_links_out(marian):
  folder, *_ = marian
  (folder / "source.spm").unlink()
  (folder / "source.spm").symlink_to(SECRET)
  refuses(folder, f"is a link to {SECRET}")


@pytest.mark.parametrize(
  "target", ["../../secret", "../../blobs/../secret", "../../blobs/deep/0", "../../blobs", SECRET]
)
def test_links_out_of_hugging_faces_cache(marian, tmp_path, target):
  snapshot = tmp_path / "models--a--b/snapshots/0f3a"
  (tmp_path / "models--a--b/blobs/deep").mkdir(parents=True)
  for name in ("secret", "blobs/deep/0"):
    (tmp_path / "models--a--b" / name).write_bytes(b"secret")
  shutil.copytree(marian[0], snapshot)
  (snapshot / "source.spm").unlink()
  (snapshot / "source.spm").symlink_to(target)
  refuses(snapshot, "is a link to .*, which is not a file or folder of the run")


def test_parameters_behind_a_link(marian, tmp_path):
  folder, *_ = marian
  (folder / "model.safetensors").rename(tmp_path / "blob")
  (folder / "model.safetensors").symlink_to("../blob")
  refuses(folder, r"is a link to \.\./blob")


def test_pipes(marian):
  folder, *_ = marian
  (folder / "vocab.json").unlink()
  os.mkfifo(folder / "vocab.json")
  refuses(folder, "is neither a file nor a folder")


@pytest.mark.parametrize(
  "name", ["../blob.safetensors", "/etc/x.safetensors", "a/../../b.safetensors", "config.json", 3]
)
def test_an_index_that_leads_out(marian, tmp_path, name):
  folder, _, arrays = marian
  folders.put(tmp_path, arrays)
  (tmp_path / "model.safetensors").rename(tmp_path / "blob.safetensors")
  (folder / "model.safetensors").unlink()
  folders.write(folder, "model.safetensors.index.json", {"weight_map": dict.fromkeys(arrays, name)})
  refuses(folder, "is not a file of safetensors in this folder")


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"x": "gone.safetensors"}}, []])
def test_an_index_that_is_none(marian, index):
  folder, *_ = marian
  (folder / "model.safetensors").unlink()
  folders.write(folder, "model.safetensors.index.json", index)
  refuses(folder, "weight_map|no gone|not a JSON object")


def test_an_array_twice(marian):
  folder, _, arrays = marian
  (folder / "model.safetensors").unlink()
  folders.put(folder, arrays, shards=2)
  (folder / "model-00001-of-00002.safetensors").write_bytes((folder / "model-00002-of-00002.safetensors").read_bytes())
  refuses(folder, "twice")


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("d_model", 1 << 40), ("d_model", float("nan")), ("d_model", -16), ("d_model", 16.0), ("d_model", True),
    ("vocab_size", 10**12), ("vocab_size", "58101"), ("encoder_layers", 10**6), ("decoder_layers", 0),
    ("encoder_ffn_dim", float("inf")), ("encoder_attention_heads", 3), ("dropout", float("nan")),
    ("eos_token_id", 10**6), ("pad_token_id", -1), ("max_position_embeddings", float("nan")),
  ],
)  # fmt: skip
def test_sizes_that_are_none(marian, field, value):
  folder, *_ = marian
  change(folder, "config.json", **{field: value})
  refuses(folder, field.split("_")[0] + "|heads")


def test_shapes_that_are_huge(marian):
  """A small file that declares much is refused by its header, a large one of holes by what the disk holds."""
  folder, *_ = marian
  size = 1 << 40
  header = {"model.shared.weight": {"dtype": "F32", "shape": [1 << 30, 1 << 8], "data_offsets": [0, size]}}
  content = json.dumps(header).encode()
  (folder / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
  refuses(folder, "is not a safetensors file")
  os.truncate(folder / "model.safetensors", size + 8 + len(content))
  refuses(folder, "of which the disk holds")


def test_arrays_that_are_not_the_configs(marian):
  folder, _, arrays = marian
  name = "model.decoder.layers.1.fc1.weight"
  folders.put(folder, {key: value for key, value in arrays.items() if key != name})
  refuses(folder, f"lacks the array {re.escape(name)}")
  folders.put(folder, arrays | {name: arrays[name].T.copy()})
  refuses(folder, "has shape")
  folders.put(folder, arrays | {"model.more": arrays[name]})
  refuses(folder, "has the array model.more")
  folders.put(folder, arrays | {name: arrays[name].astype(np.int32)})
  refuses(folder, "is of type I32")
  folders.put(folder, {key: value for key, value in arrays.items() if key != "model.shared.weight"})
  refuses(folder, "has 0 embeddings")


def test_values(marian):
  folder, config, arrays = marian
  name = "model.encoder.layers.0.fc1.bias"
  folders.put(folder, arrays | {name: np.full_like(arrays[name], np.nan)})
  refuses(folder, f"{re.escape(name)} has values that are not finite")
  folders.put(folder, arrays | {"lm_head.weight": arrays["model.shared.weight"] + 1})
  refuses(folder, "has 2 embeddings")
  places = np.zeros((config["max_position_embeddings"], 16), np.float32)
  folders.put(folder, arrays | {"model.encoder.embed_positions.weight": places})
  refuses(folder, "are not the sines")


@pytest.mark.parametrize("i", [10**9, -1, 1.5, None, True])
def test_ids_out_of_range(marian, i):
  folder, config, _ = marian
  change(folder, "vocab.json", **{"</s>": i})
  refuses(folder, "has the id|same id")


def test_other_vocabularies(marian):
  folder, *_ = marian
  change(folder, "vocab.json", **{"<unk>": 0})
  refuses(folder, "have the same id 0")
  change(folder, "vocab.json", **{"<unk>": 1})
  (folder / "target.spm").write_bytes(b"\x80\x04K\x01.")
  refuses(folder, "is not a SentencePiece model")
  change(folder, "tokenizer_config.json", separate_vocabs=True)
  refuses(folder, "a vocabulary for each language")


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("static_position_embeddings", False), ("normalize_before", True), ("add_final_layer_norm", True),
    ("share_encoder_decoder_embeddings", False), ("decoder_attention_heads", 4), ("activation_function", "mish"),
    ("model_type", "t5"), ("model_type", ["marian"]),
  ],
)  # fmt: skip
def test_models_that_are_computed_otherwise(marian, field, value):
  folder, *_ = marian
  change(folder, "config.json", **{field: value})
  refuses(folder, field)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(
  ("field", "value", "match"),
  [
    ("forced_bos_token_id", 3, "first token of each translation"),
    ("bad_words_ids", [[1], [2, 3]], "words of several tokens"),
    ("bad_words_ids", "none", "words of several tokens"),
  ],
)
def test_searches_that_ours_is_not(marian, name, field, value, match):
  folder, _, _ = marian
  if name == "config.json":
    (folder / "generation_config.json").unlink()
  change(folder, name, **{field: value})
  refuses(folder, match)


@pytest.mark.parametrize(
  ("field", "value", "match"),
  [
    ("scale_attn_by_inverse_layer_idx", True, "scale_attn"), ("n_embd", 15, "not a multiple"),
    ("n_positions", 1 << 30, "n_positions"),
    ("eos_token_id", None, "eos_token_id"), ("layer_norm_epsilon", float("nan"), "layer_norm_epsilon"),
  ],
)  # fmt: skip
def test_gpt2(gpt2, field, value, match):
  folder, *_ = gpt2
  change(folder, "config.json", **{field: value})
  refuses(folder, match)


def test_merges(gpt2):
  folder, *_ = gpt2
  (folder / "merges.txt").write_text("#version: 0.2\nt h e\n")
  refuses(folder, "merges are not pairs")
  (folder / "merges.txt").unlink()
  refuses(folder, "has no tokenizer.json")
  folders.write(folder, "tokenizer.json", {"model": {"type": "Unigram", "vocab": []}})
  refuses(folder, "not byte-level BPE")


@pytest.mark.parametrize(
  ("name", "match"),
  [
    ("pytorch_model.bin", "AutoModelForSeq2SeqLM.from_pretrained.*save_pretrained"), ("checkpoint_best.pt", "fairseq"),
    ("pytorch_model.bin.index.json", "a pickle"), ("model.ckpt-250000.data-00000-of-00002", "need TensorFlow"),
    ("checkpoint", "tensor2tensor"), ("model.npz", "Marian's own files"),
  ],
)  # fmt: skip
def test_other_frameworks(marian, name, match):
  folder, *_ = marian
  (folder / "model.safetensors").rename(folder / name)
  refuses(folder, match)
  refuses(folder / name, match)


def test_no_folder(marian, tmp_path):
  refuses(tmp_path / "nowhere", "is not a folder")
  refuses(marian[0] / "config.json", "name the folder")
  refuses("gs://bucket/folder", "local disk")
  (marian[0] / "model.safetensors").unlink()
  refuses(marian[0], "has neither model.safetensors")


def test_the_command_says_it_in_one_line(marian, tmp_path):
  folder, *_ = marian
  (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
  command = [sys.executable, "-m", "attention_zoo.import_model", f"--from={folder}", f"--workdir={tmp_path}/to"]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2 and "pickle" in done.stderr and done.stderr.count("\n") == 1
  assert not (tmp_path / "to").exists()
  for word in ("pickles", "fairseq", "tensor2tensor", "save_pretrained"):
    assert word in import_model.__doc__
