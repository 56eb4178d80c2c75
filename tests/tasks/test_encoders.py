"""One encoder, several tasks: pretrained, tuned with a new head, used; wrong input told in one line."""

import json

import jax
import numpy as np
import pytest

import attention_zoo as zoo
from attention_zoo import tasks
from attention_zoo.configs.language import quickstart as language_quickstart
from attention_zoo.configs.pretraining import bert_quickstart, classification_quickstart, tagging_quickstart
from attention_zoo.errors import UserError
from attention_zoo.tasks.encoding import check_labels
from attention_zoo.training import loop
from attention_zoo.training.metrics import read_metrics

COLOURS, ANIMALS = ("red", "blue", "green", "black"), ("cat", "dog", "cow", "pig")
SIZES = dict(num_heads=2, d_model=16, d_ff=32, d_k=8, d_v=8, num_layers=1, dropout=0.0, max_length=32)


def sentences(number, seed):
  """(words, whether one is a cat, a tag for each)."""
  rng = np.random.default_rng(seed)
  for _ in range(number):
    kinds = rng.integers(0, 2, 4)
    words = [str(rng.choice((COLOURS, ANIMALS)[kind])) for kind in kinds]
    yield words, "cat" if "cat" in words else "none", [("B-COLOUR", "O")[kind] for kind in kinds]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("text")
  for split, number, seed in (("train", 400, 0), ("dev", 40, 1)):
    found = list(sentences(number, seed))
    (path / f"{split}.jsonl").write_text(
      "".join(json.dumps({"text": " ".join(words), "label": label}) + "\n" for words, label, _ in found)
    )
    lines = [[f"{w} {t}" for w, t in zip(words, tags, strict=True)] for words, _, tags in found]
    (path / f"{split}.conll").write_text("\n\n".join("\n".join(sentence) for sentence in lines))
    (path / f"{split}.txt").write_text("\n".join(" ".join(words) for words, *_ in found))
  return path


def made(config, folder, source, **data):
  config.model.update({name: value for name, value in SIZES.items() if name in config.model})
  config.data.update(
    source=source, dir=str(folder), test_split="dev", vocab_size=40, batch_tokens=512, row_length=16, **data
  )
  config.optimizer.update(name="adam", schedule="constant", learning_rate=0.01, warmup_steps=5, d_model=16)
  config.train.update(steps=60, eval_every=60, checkpoint_every=60, log_every=60, dev_samples=2)
  config.decode.update(batch_tokens=512)
  return config


def train(config, workdir):
  tasks.validate(config)
  loop.train(tasks.make(config, workdir), config, workdir, quiet=True)
  return zoo.load(workdir)


@pytest.fixture(scope="module")
def pretrained(folder, tmp_path_factory):
  config = made(bert_quickstart.get_config(), folder, "text", batching="full_sentences")
  config.train.update(steps=20, eval_every=20, checkpoint_every=20)
  return train(config, tmp_path_factory.mktemp("runs") / "bert")


@pytest.fixture(scope="module")
def classifier(folder, pretrained, tmp_path_factory):
  config = made(classification_quickstart.get_config(), folder, "json_lines", labels=("none", "cat"))
  config.train.init_from = str(pretrained.task.workdir)
  return train(config, tmp_path_factory.mktemp("runs") / "classifier")


def test_masks_are_filled(pretrained):
  (first, second) = pretrained.fill("red [MASK] blue [MASK]", top=3)
  assert len(first.pieces) == 3 and first.probabilities == sorted(first.probabilities, reverse=True)
  assert 0 < sum(second.probabilities) <= 1 + 1e-6
  whole = pretrained.fill("red <mask>", top=40)[0]
  assert sum(whole.probabilities) == pytest.approx(1, abs=1e-5)
  evaluation = pretrained.evaluate("dev", num_samples=2)
  assert evaluation.scores[0].name == "nats per mask" and "[MASK]" in evaluation.samples[0]["hidden"]
  assert evaluation.samples[0]["wanted"].split()[0] in COLOURS + ANIMALS
  for text, message in (("red", "has no .MASK."), ("red [MASK] " * 20, "tokens, and a row holds 16")):
    with pytest.raises(UserError, match=message):
      pretrained.fill(text)


def test_a_pretrained_encoder_is_tuned_with_a_new_head(pretrained, classifier):
  ours, theirs = (run.task.tokenizer.fingerprint for run in (classifier, pretrained))
  assert ours == theirs and "masked_head" in pretrained.params and "masked_head" not in classifier.params
  shapes = lambda run, name: jax.tree.map(np.shape, run.params[name])
  assert shapes(pretrained, "encoder") == shapes(classifier, "encoder")
  assert read_metrics(classifier.task.workdir)[-1]["accuracy"] > 0.9


def test_texts_are_classified(classifier):
  found = classifier.classify(["red red cat red", "pig dog blue cow"])
  assert [x.label for x in found] == ["cat", "none"]
  assert all(sum(x.probabilities.values()) == pytest.approx(1, abs=1e-5) for x in found)
  evaluation = classifier.evaluate("dev")
  scores = {score.name: score.value for score in evaluation.scores}
  assert scores["accuracy"] > 90 and {"F1 of cat", "Matthews correlation"} < set(scores)
  assert classifier.classify([]) == []
  many = classifier.classify(["red red cat red"] * 50 + ["cat " * 40])
  assert len({x.label for x in many[:50]}) == 1
  vectors = classifier.vectors(["red cat", ("red", "cat dog")])
  assert [x.shape[1] for x in vectors] == [16, 16] and len(vectors[1]) > len(vectors[0])
  for texts, message in (
    ("red", "not a single text"), (["red", ""], r"texts\[1\] is empty"), ([("red", " ")], "has an empty sentence"),
    ([3], "must be a text or a pair"), ([("a", "b", "c")], "must be a text or a pair"),
  ):  # fmt: skip
    with pytest.raises(UserError, match=message):
      classifier.classify(texts)


def test_words_are_tagged(folder, tmp_path):
  config = made(tagging_quickstart.get_config(), folder, "conll", labels=("COLOUR",))
  run = train(config, tmp_path / "tagger")
  assert read_metrics(run.task.workdir)[-1]["f1"] > 95
  (one, two) = run.tag(["red cat dog", ["cat", "blue"]])
  assert one.tags == ["B-COLOUR", "O", "O"] and two.entities == [("COLOUR", "blue")]
  scores = {score.name: score.value for score in run.evaluate("dev").scores}
  assert scores["F1"] > 95 and scores["F1"] == pytest.approx(scores["F1 of COLOUR"])
  for given, message in (
    ("red", "not a single one"), ([""], "is empty"), ([["a", " "]], "a list of words"), ([3], "a list of words"),
    (["cat " * 20], r"sentences\[0\] has 22 tokens .* more than config.data.row_length = 16"),
  ):  # fmt: skip
    with pytest.raises(UserError, match=message):
      run.tag(given)


def test_a_language_model_is_tuned_at_its_last_token(folder, tmp_path):
  """GPT's way, with the auxiliary loss; the new run takes the vocabulary and all but the head."""
  config = made(language_quickstart.get_config(), folder, "text(documents='line')", tokenizer="byte_bpe")
  model = dict(name="gpt", activation="gelu_tanh", attention_dropout=0.0) | SIZES
  config.model = type(config)(model)
  config.data.vocab_size = 280
  config.train.update(steps=10, eval_every=10, checkpoint_every=10, dev_samples=0)
  language = train(config, tmp_path / "gpt")
  tuned = made(classification_quickstart.get_config(), folder, "json_lines", labels=("none", "cat"))
  tuned.model = type(config)(model)
  tuned.data.update(tokenizer="byte_bpe", vocab_size=280)
  tuned.head.pooling = "last"
  tuned.train.update(init_from=str(tmp_path / "gpt"), language_model_weight=0.5)
  run = train(tuned, tmp_path / "tuned")
  assert run.task.tokenizer.fingerprint == language.task.tokenizer.fingerprint
  last = read_metrics(tmp_path / "tuned")[-1]
  assert last["accuracy"] > 0.9 and 0 < last["language_model"] < 3
  assert last["loss"] == pytest.approx(last["nll"] + 0.5 * last["language_model"], rel=1e-4)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda c: c.data.update(labels=("a", "a")), "must be texts that differ"),
    (lambda c: c.data.update(labels=("a",)), "must name at least 2"),
    (lambda c: c.head.update(pooling="middle"), "config.head.pooling = 'middle' is not one of first, .*pooler"),
    (lambda c: c.data.update(row_length=64), "row_length = 64, but the model's positions end at .* 32"),
  ],
)
def test_what_is_wrong_with_a_config(folder, tmp_path, change, message):
  config = made(classification_quickstart.get_config(), folder, "json_lines", labels=("none", "cat"))
  change(config)
  with pytest.raises(UserError, match=message):
    tasks.make(config, tmp_path)


def test_what_is_wrong_with_the_data_is_told_before_training(folder, tmp_path):
  config = made(classification_quickstart.get_config(), folder, "json_lines", labels=("none", "cats"))
  with pytest.raises(UserError, match=r"train.jsonl, line \d+: the label 'cat' is not one of .*did you mean"):
    train(config, tmp_path / "a")
  config = made(tagging_quickstart.get_config(), folder, "conll", labels=("COLOR",))
  with pytest.raises(UserError, match="the label 'B-COLOUR' is not one of config.data.labels = O, B-COLOR, I-COLOR"):
    train(config, tmp_path / "b")
  path = tmp_path / "vocab.txt"
  path.write_text("<s>\n</s>\n")
  config = made(bert_quickstart.get_config(), folder, "text", batching="full_sentences", vocabulary=str(path))
  with pytest.raises(UserError, match="vocab.txt is not a vocabulary of BERT"):
    train(config, tmp_path / "c")
  path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nred\n")
  with pytest.raises(UserError, match="has 6 pieces, but config.data.vocab_size = 40"):
    train(config, tmp_path / "c")
  with pytest.raises(UserError, match="labels"):
    check_labels(type("C", (), {"data": type("D", (), {"labels": (1, 2)})}))
