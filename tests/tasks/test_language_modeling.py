"""A language model from text to samples: trained, resumed, scored, sampled, looked at; wrong input told in one line."""

import json
import math

import jax
import numpy as np
import pytest

import attention_zoo as zoo
from attention_zoo import tasks
from attention_zoo.configs.language import quickstart
from attention_zoo.errors import UserError
from attention_zoo.training import average, loop
from attention_zoo.training.metrics import read_metrics
from tests.training.saved import edit_metadata

TEXT = "the cat sat on the mat. the dog sat on the cat. " * 40
TRANSFORMER = dict(
  d_model=16, d_ff=32, num_heads=2, d_k=8, d_v=8, num_layers=1, dropout=0.0, attention="rotary", positions="none"
)
LSTM = dict(name="lstm_lm", d_model=16, d_hidden=16, num_layers=1, dropout=0.0, tied=True)


def make_config(path, model=TRANSFORMER, **data):
  config = quickstart.get_config()
  if "name" in model:
    config.model = type(config)(model)
  else:
    config.model.update(model)
  config.data.update(
    source="text", dir=str(path), tokenizer="characters", vocab_size=4 + len(set(TEXT)), test_split="dev",
    batching="windows", batch_tokens=512, row_length=32, **data,
  )  # fmt: skip
  config.optimizer.update(name="adam", schedule="constant", learning_rate=0.01, warmup_steps=10)
  config.train.update(steps=60, eval_every=30, checkpoint_every=30, log_every=30, dev_samples=0)
  config.decode.update(max_tokens=24, batch_tokens=512)
  return config


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
  path = tmp_path_factory.mktemp("text") / "cats.txt"
  path.write_text(TEXT)
  return path


def train(config, workdir):
  tasks.validate(config)
  loop.train(tasks.make(config, workdir), config, workdir, quiet=True)
  return zoo.load(workdir)


@pytest.fixture(scope="module")
def run(text_file, tmp_path_factory):
  return train(make_config(text_file), tmp_path_factory.mktemp("lm"))


def test_it_learns_and_says_so(run):
  dev = [record for record in read_metrics(run.task.workdir) if record["split"] == "dev"]
  assert dev[-1]["nll"] < 1.5 < dev[0]["nll"] + 1 and dev[-1]["perplexity"] == pytest.approx(math.exp(dev[-1]["nll"]))
  assert dev[-1]["weight"] == len(TEXT) - round(len(TEXT) * 0.9) + 1  # every character of dev, and its end
  found = run.perplexity("dev")
  assert found["nats_per_token"] == pytest.approx(dev[-1]["nll"], rel=1e-5)
  size = len(TEXT) - round(len(TEXT) * 0.9)
  assert found["bits_per_character"] == pytest.approx(found["nats_per_token"] * (size + 1) / size / math.log(2))
  assert found["bits_per_byte"] == found["bits_per_character"]


def test_a_run_that_begins_with_another_has_its_vocabulary(run, tmp_path):
  (tmp_path / "pigs.txt").write_text(TEXT.replace("c", "z"))  # as many characters, others
  config = make_config(tmp_path / "pigs.txt")
  config.train.init_from = str(run.task.workdir)
  task = tasks.make(config, tmp_path / "run")
  task.claim()
  assert task.tokenizer.fingerprint == run.task.tokenizer.fingerprint


def test_samples_are_functions_of_prompt_and_seed(run):
  three = run.sample("the ", num_samples=3, seed=5)
  assert [x.text for x in three[1:]] == [x.text for x in run.sample("the ", num_samples=2, seed=6)]
  assert len({x.text for x in three}) > 1 and all(len(x.ids) == len(x.logprobs) <= 24 for x in three)
  greedy = run.sample("the ", temperature=0)[0]
  assert greedy.text == run.sample("the ", temperature=0, seed=9)[0].text
  assert run.sample("the ", top_k=1, temperature=1.0)[0].text == greedy.text


def test_log_probabilities_are_those_of_the_whole_text(run):
  """Windows train without <s>: the sample's prompt is fed as it is, and the score's after <s>;
  both from the same step on."""
  import jax

  sample = run.sample("the cat", seed=3)[0]
  ids = run.task.tokenizer.encode(["the cat"])[0] + sample.ids
  n, T = len(ids) - len(sample.ids), len(ids) - 1
  batch = {
    "inputs": np.array([ids[:-1]]), "targets": np.array([ids[1:]]),
    "segments": np.ones((1, T), np.int32), "positions": np.arange(T)[None].astype(np.int32),
  }  # fmt: skip
  logits_TV = run.task.model.apply({"params": jax.device_get(run.params)}, batch)[0]
  logprobs_TV = jax.nn.log_softmax(logits_TV)
  expected = [float(logprobs_TV[t, ids[t + 1]]) for t in range(n - 1, T)]
  np.testing.assert_allclose(sample.logprobs, expected, atol=1e-5)


def test_stop_strings_end_a_sample(run):
  whole = run.sample("the ", temperature=0, max_tokens=24)[0].text
  cut = run.sample("the ", temperature=0, max_tokens=24, stop=whole[5:8])[0]
  assert cut.text == whole[: whole.index(whole[5:8])] and cut.ended


def test_watching(run):
  seen = []
  found = run.sample("the ", watch=lambda texts: seen.append(texts[0]), seed=1)
  assert len(seen) > 1 and seen[-1] == found[0].text and all(found[0].text.startswith(text) for text in seen)


def test_scores_and_attention(run):
  scores = run.score(["the cat", "tac eht", ""])
  assert scores[0].logprob > scores[1].logprob and scores[2].pieces == ["</s>"]
  assert scores[0].logprob == pytest.approx(sum(scores[0].logprobs), rel=1e-5)
  seen = run.attention("the cat")
  assert seen.weights.shape == (1, 2, 8, 8) and not np.triu(seen.weights, 1).any()
  assert (
    seen.logprob == pytest.approx(scores[0].logprob, rel=1e-4) and seen.inputs[0] == "<s>" and seen.target[-1] == "</s>"
  )


def test_evaluation(run):
  found = run.evaluate("dev", num_samples=2)
  assert [score.name for score in found.scores][0] == "nats per token" and len(found.samples) == 2
  assert "LanguageModel transformer_lm" in repr(run)
  page = run.page(found, "python")
  assert page.lower().startswith("<!doctype html>") and "accuracy over steps" in page
  (accuracy,) = (score.value for score in found.scores if score.name == "accuracy")
  dev = [record for record in read_metrics(run.task.workdir) if record["split"] == "dev"]
  assert accuracy == found.record["accuracy"] == pytest.approx(dev[-1]["accuracy"], rel=1e-5)


def test_words_that_cannot_be_counted_have_no_perplexity(run, monkeypatch):
  monkeypatch.setattr(run.task.source, "documents", lambda split: iter(["我们今天去学校。"] * 3))
  found = run._perplexity("dev", {"nll": 3.0, "weight": 27.0})
  assert "perplexity_per_word" not in found and found["bits_per_character"] > 0


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda run: run.sample("the ßig Q"), "vocabulary does not have 'Q', 'i', 'ß'|'Q'.*'ß'"),
    (lambda run: run.sample("the", top_p=0), "top_p must be above 0"),
    (lambda run: run.sample("the", top_p=1.1), "top_p must be a number from 0 to 1"),
    (lambda run: run.sample("the", temperature=-1), "temperature must be"),
    (lambda run: run.sample("the", max_tokens=0), "max_tokens must be"),
    (lambda run: run.sample("the", stop=[""]), "stop must not hold an empty string"),
    (lambda run: run.sample(["the"]), "prompt must be a string"),
    (lambda run: run.score("the"), "texts must be a list"),
  ],
)
def test_what_is_refused(run, call, message):
  with pytest.raises(UserError, match=message):
    call(run)


def test_a_prompt_that_the_model_cannot_hold(text_file, tmp_path):
  config = make_config(text_file, TRANSFORMER | dict(positions="learned", attention="dot_product", max_length=32))
  config.train.update(steps=1, eval_every=1, checkpoint_every=1)
  run = train(config, tmp_path)
  with pytest.raises(UserError, match="the prompt has 20 tokens.*holds 32: ask for at most 12 more"):
    run.sample("the cat sat on the m", max_tokens=13)
  assert len(run.sample("the cat sat on the m", max_tokens=12)[0].ids) <= 12
  with pytest.raises(UserError, match=r"texts\[1\] has 41 tokens"):
    run.score(["the", "t" * 40])


def test_an_lstm_hands_its_state_from_batch_to_batch(text_file, tmp_path):
  import jax

  config = make_config(text_file, LSTM)
  config.data.batching = "contiguous"
  task = tasks.make(config, tmp_path)
  params = task.init(jax.random.key(0)).params
  whole = np.random.default_rng(0).integers(4, 10, (2, 9)).astype(np.int32)
  shape = (2, 8)

  def batch(columns, fresh):
    found = {"inputs": whole[:, :8][:, columns], "targets": whole[:, 1:][:, columns]}
    ones = np.ones_like(found["inputs"])
    return found | {"segments": ones, "positions": ones * 0, "fresh": np.full(shape[0], fresh, np.int32)}

  loss = lambda carry, batch: task.loss(params, {}, carry, batch, None, None)
  first = loss(task.carry(2), batch(slice(0, 4), 1))
  second = loss(first.carry, batch(slice(4, 8), 0))
  together = loss(task.carry(2), batch(slice(0, 8), 1))
  np.testing.assert_allclose(first.value + second.value, together.value, rtol=1e-5)
  again = loss(second.carry, batch(slice(0, 4), 1))  # a fresh row forgets
  np.testing.assert_allclose(again.value, first.value, rtol=1e-6)
  config.data.batching = "packed"
  with pytest.raises(UserError, match="lstm_lm. does not keep the documents apart.*windows. or .contiguous"):
    tasks.make(config, tmp_path)


def test_an_lstm_learns_on_many_devices(text_file, tmp_path):
  import jax

  config = make_config(text_file, LSTM | dict(d_model=32, d_hidden=32))
  config.data.batching = "contiguous"
  run = train(config, tmp_path)
  assert jax.device_count() == 8 and run.dev_loss() < 2.5  # of log 18 = 2.9 before


def test_a_run_from_before_a_field_goes_on(text_file, tmp_path):
  """Nothing that was written before config.train.ema and config.model.dtype existed names them."""

  def forget(config):
    del config["train"]["ema"], config["model"]["dtype"]

  config = make_config(text_file, LSTM)
  config.data.batching = "windows"
  config.train.update(steps=2, eval_every=2, checkpoint_every=2)
  train(config, tmp_path)
  edit_metadata(tmp_path, 2, lambda found: forget(found["config"]))
  older = json.loads((tmp_path / "config.json").read_text())
  forget(older)
  (tmp_path / "config.json").write_text(json.dumps(older))
  (tmp_path / "versions.json").unlink()
  config.train.steps = 4
  config.train.ema = 0.5
  with pytest.raises(UserError, match=r"here\):\n  train.ema: 0.0 -> 0.5\n"):
    train(config, tmp_path)
  config.train.ema = 0.0
  assert train(config, tmp_path).step == "4" and zoo.load(tmp_path, 2).step == "2"
  average.average(tmp_path, steps=[2, 4])


def test_text_of_another_kind(text_file, tmp_path):
  config = make_config(text_file)
  config.data.vocab_size = 99
  with pytest.raises(UserError, match="different characters.*set it to"):
    train(config, tmp_path / "a")
  config = make_config(text_file)
  config.model.name = "transformer"
  with pytest.raises(UserError, match="config.model"):
    train(config, tmp_path / "b")


def test_samples_while_training(text_file, tmp_path):
  """TensorBoard shows them; training goes the same way as without them."""
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

  runs = []
  for count in (0, 2):
    config = make_config(text_file)
    config.train.update(steps=4, eval_every=2, checkpoint_every=4, log_every=1, dev_samples=count)
    runs.append(train(config, tmp_path / str(count)))
  without, shown = runs
  jax.tree.map(np.testing.assert_array_equal, without.params, shown.params)
  losses = [[record["loss"] for record in read_metrics(run.task.workdir)] for run in runs]
  assert losses[0] == losses[1] and len(losses[0]) == 6
  events = [EventAccumulator(str(run.task.workdir / "tensorboard")) for run in runs]
  for event in events:
    event.Reload()
  assert "dev/samples" not in events[0].Tags()["tensors"]
  texts = events[1].Tensors("dev/samples")
  assert [text.step for text in texts] == [2, 4] and texts[0].tensor_proto.string_val[0].startswith(b"| sample |")
  assert shown.task.dev_samples(shown.params, {}, 2) == shown.task.dev_samples(shown.params, {}, 2)
