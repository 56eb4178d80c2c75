"""What is imported from transformers' folders of BERT and RoBERTa computes here what it computes there."""

import ast
import functools
import json
import re

import jax
import ml_collections
import numpy as np
import pytest
import safetensors.numpy

import attention_zoo as zoo
from attention_zoo import tasks
from attention_zoo.configs.pretraining import classification_quickstart
from attention_zoo.data import identity
from attention_zoo.data.tagged import Tagged
from attention_zoo.data.tokenizer import BOS, EOS
from attention_zoo.errors import UserError
from attention_zoo.exchange import from_bert, huggingface, importing, reading
from attention_zoo.layers.linear import logits
from attention_zoo.protocols import Initial
from attention_zoo.training import loop
from attention_zoo.training.init_from import init_from
from tests.exchange import folders
from tests.exchange.test_import import imported

TAGS = ["I-PER", "B-LOC", "O", "B-PER", "I-LOC"]  # in no order
AUTO = {
  "pretraining": "BertForPreTraining", "wide": "BertForPreTraining", "classifier": "AutoModelForSequenceClassification",
  "roberta classifier": "AutoModelForSequenceClassification", "tagger": "AutoModelForTokenClassification",
  "roberta tagger": "AutoModelForTokenClassification",
}  # fmt: skip
KINDS = {
  "pretraining": dict(kind="bert", old_names=True), "masks": dict(kind="bert", pooler=False, next_sentence=False),
  "classifier": dict(kind="bert", classes=3), "tagger": dict(kind="bert", pooler=False, tags=TAGS),
  "roberta classifier": dict(kind="roberta", pooler=False, classes=3),
  "roberta tagger": dict(kind="roberta", pooler=False, tags=TAGS[::-1]), "roberta": dict(kind="roberta", pooler=False),
  "wide": dict(kind="bert", hidden_size=24, num_attention_heads=3, num_hidden_layers=1, intermediate_size=8),
}  # fmt: skip


@pytest.fixture(scope="module")
def torch():
  torch = pytest.importorskip("torch")
  pytest.importorskip("transformers")
  return torch


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
  """name -> (folder, run of it)"""

  @functools.cache
  def make(name):
    directory = tmp_path_factory.mktemp(name.replace(" ", "_"))
    folders.bert(directory / "there", **KINDS[name])
    return directory / "there", imported(directory / "there", directory / "here")

  return make


def rows_of(folder, kind):
  """The id there of each id here."""
  make = from_bert._word_pieces if kind == "bert" else from_bert._bytes
  read = reading.Folder(folder)
  return make(read, read.config["vocab_size"])[1]


def batch_of(ids, first=None):
  ids = np.asarray(ids, np.int32)
  positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
  types = (positions >= (first or ids.shape[1])).astype(np.int32)
  return {"inputs": ids, "segments": np.ones_like(ids), "positions": positions, "types": types}


@pytest.mark.parametrize("name", KINDS)
def test_hidden_states_and_outputs_are_the_same(torch, run_of, name):
  import transformers

  folder, run = run_of(name)
  kind = KINDS[name]["kind"]
  task, rows = run.task, rows_of(folder, kind)
  rng = np.random.default_rng(0)
  batch = batch_of([[BOS, *rng.integers(5, len(rows), 6), EOS, *rng.integers(5, len(rows), 4), EOS]] * 2, first=8)
  if kind == "roberta":
    batch["types"] = np.zeros_like(batch["types"])
  make = getattr(transformers, AUTO.get(name, "AutoModelForMaskedLM"))
  model, report = make.from_pretrained(folder, output_loading_info=True)
  assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
  given = dict(input_ids=torch.from_numpy(rows[batch["inputs"]]), token_type_ids=torch.from_numpy(batch["types"]))
  with torch.no_grad():
    wanted = model.eval()(**given, output_hidden_states=True)
  params = run.params
  x_BTD, _ = task.encoded(params, batch, None)
  np.testing.assert_allclose(x_BTD, wanted.hidden_states[-1].numpy(), atol=1e-4)
  if "classifier" in name:
    np.testing.assert_allclose(task.scores(params, batch)[0], wanted.logits.numpy(), atol=1e-4)
    assert run.task.labels == ("class 0", "class 1", "class 2")
    return
  if "tagger" in name:
    batch["words"] = np.array([[1, 3, 4, 0]] * 2, np.int32)
    order = [KINDS[name]["tags"].index(tag) for tag in run.task.labels]
    assert set(order) == set(range(len(TAGS)))
    there = wanted.logits.numpy()[:, [1, 3, 4]][..., order]
    np.testing.assert_allclose(task.scores(params, batch)[0][:, :3], there, atol=1e-4)
    return
  batch["masked"] = np.array([[2, 5, 9]] * 2, np.int32)
  (x_BTF, _, next_BO), *_ = task.scores(params, batch)
  found_BTV = logits(task.model_config, x_BTF, task.table(params))
  there = wanted.prediction_logits if AUTO.get(name) == "BertForPreTraining" else wanted.logits
  np.testing.assert_allclose(found_BTV, there.numpy()[:, [2, 5, 9]][..., rows], atol=1e-4)
  if next_BO is not None:
    np.testing.assert_allclose(next_BO, wanted.seq_relationship_logits.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["pretraining", "roberta"])
def test_texts_are_cut_and_masks_filled_alike(torch, run_of, name):
  import transformers

  folder, run = run_of(name)
  peer = transformers.AutoTokenizer.from_pretrained(folder)
  rows = rows_of(folder, KINDS[name]["kind"])
  texts = ["The thing is unable.", "one, two!  Three?", "naïve Ünable -- don't"]
  encoded = run.task.encode_texts([(text,) for text in texts], [{}] * 3)
  for text, ours in zip(texts, encoded, strict=True):
    assert rows[ours.ids].tolist() == peer(text).input_ids
  (pair,) = run.task.encode_texts([("one", "two three")], [{}])
  assert rows[pair.ids].tolist() == peer("one", "two three").input_ids
  model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
  # The published <mask> takes the space before it, as ours does; that of a bare vocabulary does not.
  given = peer(f"the{' ' * (name != 'roberta')}{peer.mask_token} is one.", return_tensors="pt")
  with torch.no_grad():
    probabilities_TV = model(**given).logits[0].softmax(-1).numpy()
  at = int((given.input_ids[0] == peer.mask_token_id).nonzero()[0, 0])
  (filled,) = run.fill("the [MASK] is one.", top=3)
  np.testing.assert_allclose(filled.probabilities, np.sort(probabilities_TV[at])[::-1][:3], atol=1e-4)


@pytest.mark.parametrize("name", ["classifier", "roberta classifier"])
def test_texts_are_classified_alike(torch, run_of, name):
  import transformers

  folder, run = run_of(name)
  peer = transformers.AutoTokenizer.from_pretrained(folder)
  model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
  for texts in (["The thing is unable.", "one, two"], [("one", "two three")]):
    for text, found in zip(texts, run.classify(texts), strict=True):
      with torch.no_grad():
        wanted = model(**peer(*([text] if isinstance(text, str) else text), return_tensors="pt")).logits[0].softmax(-1)
      np.testing.assert_allclose([found.probabilities[f"class {i}"] for i in range(3)], wanted.numpy(), atol=1e-4)
      assert found.label == model.config.id2label[int(wanted.argmax())]


@pytest.mark.parametrize("name", ["tagger", "roberta tagger"])
def test_words_are_tagged_alike(torch, run_of, name):
  import transformers

  folder, run = run_of(name)
  peer = transformers.AutoTokenizer.from_pretrained(folder)
  model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
  rows = rows_of(folder, KINDS[name]["kind"])
  words = "the one , three in on".split()
  (encoded,) = run.task.encode([Tagged(tuple(words), (), "here")])
  given = peer(" ".join(words), return_tensors="pt")
  assert rows[encoded.ids].tolist() == given.input_ids[0].tolist()
  with torch.no_grad():
    wanted = model(**given).logits[0].argmax(-1).numpy()[encoded.labels["words"]]
  (found,) = run.tag([words])
  assert found.tags == [model.config.id2label[int(i)] for i in wanted] and len(set(found.tags)) > 1


@pytest.mark.parametrize("name", KINDS)
def test_it_goes_back(tmp_path, run_of, name):
  """To the bit, and by the same names."""
  _, run = run_of(name)
  huggingface.write(run, tmp_path / "back")
  again = importing.read(tmp_path / "back")
  jax.tree.map(np.testing.assert_array_equal, again.params, jax.device_get(run.params))
  assert again.config["model"] == run.config.model.to_dict()
  texts = ["The thing is unable.", "one, two!  Three?"]
  tokenizer = identity.parse(again.tokenizer, "back")
  assert tokenizer.encode(texts) == run.task.tokenizer.encode(texts)


@pytest.mark.parametrize("name", ["pretraining", "roberta"])
def test_what_goes_back_computes_the_same_there(torch, tmp_path, run_of, name):
  import transformers

  folder, run = run_of(name)
  huggingface.write(run, tmp_path / "back")
  found = []
  for place in (folder, tmp_path / "back"):
    model = transformers.AutoModelForMaskedLM.from_pretrained(place).eval()
    peer = transformers.AutoTokenizer.from_pretrained(place)
    with torch.no_grad():
      given = peer("the one is unable.", return_tensors="pt")
      found.append(model(**given, output_hidden_states=True).hidden_states[-1])
  np.testing.assert_allclose(*found, atol=1e-4)
  there = peer(f"the {peer.mask_token} is", return_tensors="pt").input_ids[0].tolist()
  assert run.task.tokenizer.decode([there[1:-1]]) == ["the [MASK] is" if name == "pretraining" else "the<mask> is"]


@pytest.mark.parametrize("name", [name for name in KINDS if "classifier" in name or "tagger" in name])
def test_classes_and_tags_that_go_back_are_the_same_there(torch, tmp_path, monkeypatch, run_of, name):
  import transformers

  folder, run = run_of(name)
  monkeypatch.setitem(run.config.head, "dropout", 0.3)
  huggingface.write(run, tmp_path / "back")
  found = []
  for place in (folder, tmp_path / "back"):
    make = getattr(transformers, AUTO[name])
    model, report = make.from_pretrained(place, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    labels = {label: i for i, label in model.config.id2label.items()}
    peer = transformers.AutoTokenizer.from_pretrained(place)
    with torch.no_grad():
      logits = model.eval()(**peer("the one is unable.", return_tensors="pt")).logits[0]
    found.append(logits[..., [labels[label] for label in run.task.labels]])
  np.testing.assert_allclose(*found, atol=1e-4)
  assert model.config.classifier_dropout == 0.3 and model.config.label2id == labels


def test_tags_that_a_model_does_not_give(tmp_path, caplog):
  """Published models of IOB1 have no B- for types that never meet; a pooler that nothing asks is left out. What the
  warning says draws a new head."""
  tags = ["B-LOC", "I-LOC", "I-PER", "O"]
  _, arrays = folders.bert(tmp_path / "there", tags=tags)
  run = imported(tmp_path / "there", tmp_path / "here")
  assert run.task.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER") and "pooler" not in run.params
  output = jax.device_get(run.params["tagging_head"]["output"])
  np.testing.assert_array_equal(output["kernel_UO"][:, [1, 2, 4, 0]].T, arrays["classifier.weight"])
  np.testing.assert_array_equal(output["bias_O"][[1, 2, 4, 0]], arrays["classifier.bias"])
  assert not output["kernel_UO"][:, 3].any() and output["bias_O"][3] == reading.FORBIDDEN
  said = re.search(r"does not know the tags B-PER: .*init_map='(.*)'", caplog.text)[1]
  train = {"init_from": str(tmp_path / "here"), "init_map": ast.literal_eval(said)}
  _, taken = init_from(Initial(run.params), ml_collections.ConfigDict({"train": train, "data": {}}))
  assert taken.new == ["tagging_head/output/bias_O", "tagging_head/output/kernel_UO"]


def test_a_pooler_that_robertas_classes_do_not_ask(tmp_path):
  _, arrays = folders.bert(tmp_path / "there", kind="roberta", classes=3)
  assert "roberta.pooler.dense.weight" in arrays
  run = imported(tmp_path / "there", tmp_path / "here")
  np.testing.assert_array_equal(run.params["pooler"]["kernel_DU"].T, arrays["classifier.dense.weight"])


def test_it_is_tuned(tmp_path, run_of):
  """Without transformers: the imported folder is a run as any other."""
  _, run = run_of("pretraining")
  (tmp_path / "train.tsv").write_text("text\tlabel\n" + "one two\tyes\nthree the\tno\n" * 8)
  (tmp_path / "dev.tsv").write_text("text\tlabel\none\tyes\n")
  config = classification_quickstart.get_config()
  config.model = run.config.model
  config.data.update(
    source="tsv", dir=str(tmp_path), labels=("no", "yes"), vocab_size=run.config.data.vocab_size, row_length=24,
    batch_tokens=8 * 24,
  )  # fmt: skip
  config.optimizer.update(d_model=16)
  config.train.update(init_from=str(run.task.workdir), steps=2, eval_every=2, checkpoint_every=2, dev_samples=0)
  tasks.validate(config)
  loop.train(tasks.make(config, tmp_path / "tuned"), config, tmp_path / "tuned", quiet=True)
  tuned = zoo.load(tmp_path / "tuned")
  assert tuned.task.tokenizer.fingerprint == run.task.tokenizer.fingerprint
  assert tuned.classify(["one two three"])[0].label in ("no", "yes")
  before, after = (np.asarray(x.params["embedding"]["table_VD"]) for x in (run, tuned))
  assert np.abs(before - after).max() < 0.02 < np.abs(before).max()  # two steps away from what was imported


def test_it_reads_bytes(run_of):
  _, run = run_of("roberta")
  assert run.config.data.separators == 2 and run.config.model.max_length == 24
  (filled,) = run.fill("on the <mask>", top=2)
  assert len(filled.pieces) == 2
  (vectors,) = run.vectors(["the one"])
  assert vectors.shape[1] == 16 and np.isfinite(vectors).all()


def spoil(folder, change):
  arrays = safetensors.numpy.load((folder / "model.safetensors").read_bytes())
  change(arrays)
  (folder / "model.safetensors").write_bytes(safetensors.numpy.save(arrays, {"format": "pt"}))


def test_what_is_missing_or_of_another_shape_is_all_listed(tmp_path):
  folders.bert(tmp_path / "a")

  def change(arrays):
    del arrays["bert.pooler.dense.bias"], arrays["bert.embeddings.LayerNorm.weight"]
    arrays["bert.encoder.layer.1.output.dense.weight"] = np.zeros((3, 4), np.float32)

  spoil(tmp_path / "a", change)
  with pytest.raises(UserError, match="not the model of its config.json") as error:
    importing.read(tmp_path / "a")
  for line in (
    "lacks bert.pooler.dense.bias (16,)", "lacks bert.embeddings.LayerNorm.weight (16,)",
    "has bert.encoder.layer.1.output.dense.weight (3, 4) instead of (16, 24)",
  ):  # fmt: skip
    assert line in str(error.value)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda c: c.update(position_embedding_type="relative_key"), "position_embedding_type = 'relative_key' cannot be"),
    (lambda c: c.update(hidden_act="tanh"), "hidden_act = 'tanh' is not one of"),
    (lambda c: c.update(num_attention_heads=3), "not a multiple of 3 heads"),
    (lambda c: c.update(is_decoder=True), "is_decoder = True cannot be computed"),
  ],
)
def test_what_cannot_be_computed(tmp_path, change, message):
  config, _ = folders.bert(tmp_path / "a")
  change(config)
  (tmp_path / "a" / "config.json").write_text(json.dumps(config))
  with pytest.raises(UserError, match=message):
    importing.read(tmp_path / "a")


def test_a_folder_without_outputs_and_one_with_another_vocabulary(tmp_path):
  folders.bert(tmp_path / "a", next_sentence=False)
  spoil(tmp_path / "a", lambda arrays: [arrays.pop(name) for name in list(arrays) if name.startswith("cls.")])
  with pytest.raises(UserError, match="neither the output of masks nor one of classes or tags: save it with"):
    importing.read(tmp_path / "a")
  folders.bert(tmp_path / "b")
  (tmp_path / "b" / "vocab.txt").write_text("<s>\n</s>\n<unk>\n")
  with pytest.raises(UserError, match="vocab.txt is not a vocabulary of BERT"):
    importing.read(tmp_path / "b")
  _, arrays = folders.bert(tmp_path / "c")
  other = np.zeros_like(arrays["bert.embeddings.word_embeddings.weight"])
  spoil(tmp_path / "c", lambda arrays: arrays.update({"cls.predictions.decoder.weight": other}))
  with pytest.raises(UserError, match="is not the embedding's table"):
    importing.read(tmp_path / "c")
