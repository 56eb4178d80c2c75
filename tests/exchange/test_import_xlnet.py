"""What is imported from transformers' folders of XLNet computes here what it computes there."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from attention_zoo.data import joint_pieces
from attention_zoo.data import tokenizer as tokenizers
from attention_zoo.data.tokenizer import BOS, EOS, PAD, UNK
from attention_zoo.errors import UserError
from attention_zoo.exchange import from_xlnet, huggingface, importing, reading, to_xlnet
from attention_zoo.layers.linear import logits, with_bias
from tests.exchange import folders
from tests.exchange.test_import import imported

B, T = 2, 7


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """(folder, run of it, the id there of each id here)."""
  directory = tmp_path_factory.mktemp("xlnet")
  folders.xlnet(directory / "there")
  folder = reading.Folder(directory / "there")
  ids, *_ = from_xlnet._vocabulary(folder, folder.config["vocab_size"])
  return directory / "there", imported(directory / "there", directory / "here"), ids


@pytest.fixture(scope="module")
def both(made):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  folder, run, ids = made
  model, report = transformers.XLNetLMHeadModel.from_pretrained(folder, output_loading_info=True)
  assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
  return torch, model.eval(), run, ids


def batch_of(run, **more):
  rng = np.random.default_rng(0)
  inputs = rng.integers(4, run.config.data.vocab_size, (B, T)).astype(np.int32)
  types = np.broadcast_to(np.arange(T) >= 4, (B, T)).astype(np.int32)
  return {"inputs": inputs, "segments": np.ones_like(inputs), "types": types} | more


def streams(run, batch, carry=None):
  return run.task.model.apply({"params": run.params}, batch, carry=carry, method="streams")


def test_the_content_stream_is_the_same(both):
  torch, model, run, ids = both
  batch = batch_of(run)
  given = dict(input_ids=torch.from_numpy(ids[batch["inputs"]]), token_type_ids=torch.from_numpy(batch["types"]))
  with torch.no_grad():
    wanted = model.transformer(**given, use_mems=False).last_hidden_state.numpy()
  np.testing.assert_allclose(streams(run, batch)[0], wanted, atol=1e-4)


def test_predictions_in_an_order_are_the_same(both):
  torch, model, run, ids = both
  order = np.array([[0, 2, 0, 1, 0, 0, 3], [1, 0, 0, 0, 3, 2, 0]], np.int32)
  places = np.stack([np.flatnonzero(row) for row in order]).astype(np.int32)
  batch = batch_of(run, order=order, places=places)
  before = order[:, None, :] < order[:, :, None]
  before |= (order[:, None, :] == 0) & (order[:, :, None] == 0)  # what is not predicted sees all of its kind
  targets = np.zeros((B, 3, T), np.float32)
  np.put_along_axis(targets, places[:, :, None], 1, 2)
  with torch.no_grad():
    wanted = model(
      input_ids=torch.from_numpy(ids[batch["inputs"]]), token_type_ids=torch.from_numpy(batch["types"]),
      perm_mask=torch.from_numpy((~before).astype(np.float32)), target_mapping=torch.from_numpy(targets),
      use_mems=False,
    ).logits.numpy()  # fmt: skip
  _, x_BTD, _ = streams(run, batch)
  x_BTD, bias_V = run.task.apply_head(run.params, x_BTD, None)
  found = logits(run.task.model_config, x_BTD, with_bias(run.task.module.output_table(run.params), bias_V))
  np.testing.assert_allclose(found, wanted[..., ids], atol=1e-4)


def test_the_memory_is_the_same(both):
  torch, model, run, ids = both
  batch = batch_of(run)
  batch["types"] = np.zeros_like(batch["types"])
  given = torch.from_numpy(ids[batch["inputs"]])
  with torch.no_grad():
    first = model.transformer(given[:, :4], use_mems=True)
    second = model.transformer(given[:, 4:], mems=first.mems, use_mems=True)
  part = lambda at: {name: jnp.asarray(x[:, at]) for name, x in batch.items()}
  carry = run.task.module.carry(run.task.model_config, B)
  ours, _, carry = streams(run, part(np.s_[:4]), carry)
  np.testing.assert_allclose(ours, first.last_hidden_state.numpy(), atol=1e-4)
  ours, _, _ = streams(run, part(np.s_[4:]), carry)
  np.testing.assert_allclose(ours, second.last_hidden_state.numpy(), atol=1e-4)


def test_it_is_a_run_and_reads_text(made):
  folder, run, ids = made
  import sentencepiece

  processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
  texts = ["one two three", "eleven nineteen one!"]
  for text, found in zip(texts, run.task.tokenizer.encode(texts), strict=True):
    assert ids[found].tolist() == processor.encode(text)
  (vectors,) = run.vectors(["one two"])
  assert vectors.shape[1] == 16 and np.isfinite(vectors).all()
  assert run.config.model.memory == 4


def test_it_goes_back(made, tmp_path):
  """To the bit, with the ids that it had there."""
  folder, run, _ = made
  huggingface.write(run, tmp_path / "back")
  again = importing.read(tmp_path / "back")
  jax.tree.map(np.testing.assert_array_equal, again.params, jax.device_get(run.params))
  assert again.config["model"] == run.config.model.to_dict()
  assert (tmp_path / "back" / "spiece.model").read_bytes() == (folder / "spiece.model").read_bytes()
  was, now = (safetensors.numpy.load_file(at / "model.safetensors") for at in (folder, tmp_path / "back"))
  jax.tree.map(np.testing.assert_array_equal, now, was)


def test_what_goes_back_computes_the_same_there(both, made, tmp_path):
  torch, model, run, ids = both
  huggingface.write(run, tmp_path / "back")
  back, report = type(model).from_pretrained(tmp_path / "back", output_loading_info=True)
  assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
  batch = batch_of(run)
  with torch.no_grad():
    given = dict(input_ids=torch.from_numpy(ids[batch["inputs"]]), token_type_ids=torch.from_numpy(batch["types"]))
    wanted, found = (x(**given, use_mems=False).logits.numpy() for x in (model, back.eval()))
  np.testing.assert_allclose(found, wanted, atol=1e-4)


LINES = [" ".join(words.split()[i:]) for words in folders.WORDS.values() for i in range(17)] * 5


@pytest.fixture
def learnt(made, tmp_path, monkeypatch):
  """The run with a vocabulary as one that is trained here has."""
  _, run, _ = made
  model = tokenizers.learn(LINES, vocab_size=run.config.data.vocab_size, model_type="unigram")
  (tmp_path / "tokenizer.model").write_bytes(model)
  monkeypatch.setattr(run.task, "tokenizer", tokenizers.Tokenizer(tmp_path / "tokenizer.model"))
  monkeypatch.setattr(run.task, "workdir", tmp_path)
  return run


def test_a_vocabulary_learnt_here_goes_there_and_back(learnt, tmp_path):
  run = learnt
  huggingface.write(run, tmp_path / "there")
  assert json.loads((tmp_path / "there" / "tokenizer_config.json").read_text())["cls_token"] == "<s>"
  again = importing.read(tmp_path / "there")
  jax.tree.map(np.testing.assert_array_equal, again.params, jax.device_get(run.params))
  texts = ["one two", "forty-one three ten"]
  assert joint_pieces.parse(again.tokenizer, "there").encode(texts) == run.task.tokenizer.encode(texts)


def test_a_vocabulary_learnt_here_is_the_same_there(learnt, tmp_path):
  """Without one more id, and README.md's example gives the vectors that the run gives."""
  pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  huggingface.write(learnt, tmp_path / "there")
  peer = transformers.AutoTokenizer.from_pretrained(tmp_path / "there")
  assert len(peer) == learnt.config.data.vocab_size
  assert [peer.pad_token_id, peer.cls_token_id, peer.sep_token_id, peer.unk_token_id] == [PAD, BOS, EOS, UNK]
  (ours,) = learnt.task.tokenizer.encode(["forty-one three ten"])
  assert peer("forty-one three ten").input_ids == [*ours, EOS, BOS]
  code = re.search("```python\n(.*?)\n```", (tmp_path / "there" / "README.md").read_text(), re.DOTALL)[1]
  scope = {"FOLDER": tmp_path / "there"}
  exec(code.replace('"..."', '"forty-one three ten"'), scope)
  (wanted,) = learnt.vectors(["forty-one three ten"])
  np.testing.assert_allclose(scope["vectors"][0].detach(), wanted, atol=1e-4)


def test_texts_are_cut_alike(both, made, tmp_path):
  """Both special tokens stand at the end there."""
  import transformers

  folder, run, ids = made
  huggingface.write(run, tmp_path / "back")
  peer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
  texts = ["one two three", "forty-one eleven nineteen"]
  for text, ours in zip(texts, run.task.tokenizer.encode(texts), strict=True):
    assert peer(text).input_ids == [*ids[ours], ids[EOS], ids[BOS]]


def test_what_does_not_go_back(made, tmp_path, monkeypatch):
  _, run, _ = made
  with monkeypatch.context() as patch:
    patch.setattr(run.task, "model_config", dataclasses.replace(run.task.model_config, d_k=4))
    with pytest.raises(UserError, match="heads of d_model / num_heads = 8 dimensions, but config.model.d_k = 4"):
      to_xlnet.xlnet(run)
  with monkeypatch.context() as patch:
    patch.setattr(run.task, "tokenizer", object())
    with pytest.raises(UserError, match="needs a vocabulary of one SentencePiece model"):
      to_xlnet.xlnet(run)
  model = tokenizers.learn(LINES, vocab_size=300, model_type="unigram", byte_fallback=True)
  (tmp_path / "tokenizer.model").write_bytes(model)
  with monkeypatch.context() as patch:
    patch.setattr(run.task, "tokenizer", tokenizers.Tokenizer(tmp_path / "tokenizer.model"))
    patch.setattr(run.task, "workdir", tmp_path)
    with pytest.raises(UserError, match="tokenizer.model spells unknown characters as bytes, .* --format=safetensors"):
      to_xlnet.xlnet(run)
  monkeypatch.setattr(run, "params", {name: x for name, x in run.params.items() if name != "permutation_head"})
  with pytest.raises(UserError, match="only a run of config.task = 'permutation_language_modeling'"):
    to_xlnet.xlnet(run)


def test_what_cannot_be_computed(tmp_path):
  folders.xlnet(tmp_path / "a", attn_type="uni")
  with pytest.raises(UserError, match="attn_type = 'uni' cannot be computed here"):
    importing.read(tmp_path / "a")
  folders.xlnet(tmp_path / "b", d_inner=25)
  (tmp_path / "b" / "spiece.model").write_bytes(folders.pieces("source"))
  with pytest.raises(UserError, match="spiece.model"):
    importing.read(tmp_path / "b")
  folders.xlnet(tmp_path / "c")
  wanted = importing.read(tmp_path / "c").tokenizer
  for field, said, message in (
    ("cls_token", "<pad>", "two of <pad>, <pad>, .* one name"),
    ("cls_token", {"content": 3}, "cls_token = .* is no piece"),
    ("do_lower_case", True, "tokenizer_config.json: do_lower_case = True, but texts are not"),
  ):
    folders.write(tmp_path / "c", "tokenizer_config.json", {field: said})
    with pytest.raises(UserError, match=message):
      importing.read(tmp_path / "c")
  folders.write(tmp_path / "c", "tokenizer_config.json", {"cls_token": None, "do_lower_case": None})
  assert importing.read(tmp_path / "c").tokenizer == wanted
