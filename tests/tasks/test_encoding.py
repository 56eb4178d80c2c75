"""What tasks on encoders refuse before anything is read, and what they take of a model."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo import tasks
from attention_zoo.configs.pretraining import bert_quickstart, classification_quickstart, xlnet_quickstart
from attention_zoo.data import wordpiece
from attention_zoo.data.examples import Encoded
from attention_zoo.data.masking import Vocabulary
from attention_zoo.data.windows import Stream
from attention_zoo.errors import UserError
from attention_zoo.tasks.classification import Classification
from attention_zoo.training import checkpoints
from attention_zoo.training.step import learning_rate_factors
from tests.data.test_masking import corpus_of, documents

GPT = dict(
  name="gpt", d_model=16, d_ff=32, num_heads=2, d_k=8, d_v=8, num_layers=1, max_length=64, dropout=0.0,
  activation="gelu_tanh", attention_dropout=0.0,
)  # fmt: skip


def make(config, workdir, model=None):
  if model:
    config.model = type(config)(model)
  config.data.row_length = 32
  return tasks.make(config, workdir)


def test_the_loss_of_a_language_model_is_for_models_that_do_not_see_the_next_token(tmp_path):
  config = classification_quickstart.get_config()
  config.train.language_model_weight = 0.5
  with pytest.raises(UserError, match="language_model_weight: bert is no causal language model; set it to 0.0"):
    make(config, tmp_path)
  config.head.pooling = "last"
  make(config, tmp_path, GPT)


def test_a_causal_model_guesses_no_masks(tmp_path):
  config = bert_quickstart.get_config()
  config.data.batching = "full_sentences"
  make(config, tmp_path)
  with pytest.raises(UserError, match="'gpt' is no model that guesses masks from both sides"):
    make(config, tmp_path, GPT)


def test_a_model_without_a_pooler_is_not_asked_for_it(tmp_path):
  config = classification_quickstart.get_config()
  config.model.pooler = False
  with pytest.raises(UserError, match="config.head.pooling = 'pooler' is not one of first, .* of this model"):
    make(config, tmp_path)


def test_heads_do_not_read_the_one_of_a_language_models_bias(tmp_path):
  config = classification_quickstart.get_config()
  config.head.pooling = "last"
  config.train.language_model_weight = 0.5
  task = make(config, tmp_path, GPT | {"output_bias": True})
  params = task.init(jax.random.key(0)).params
  assert params[task.HEAD]["output"]["kernel_UO"].shape[0] == 16
  params["output_bias_V"] = jnp.arange(512, dtype=jnp.float32) / 50
  ids = np.array([[1, 7, 8, 2, 0]], np.int32)
  batch = {"inputs": ids, "segments": (ids > 0).astype(np.int32), "positions": np.arange(5, dtype=np.int32)[None]}
  x_BTD, _ = task.encoded(params, batch, None)
  assert x_BTD.shape == (1, 5, 16)
  value, _ = task.with_language_model(0.0, {}, params, batch, x_BTD)
  logits_BTV = x_BTD @ params["embedding"]["table_VD"].T + params["output_bias_V"][None, None]
  wanted = -np.mean([jax.nn.log_softmax(logits_BTV[0, t])[ids[0, t + 1]] for t in range(3)])
  np.testing.assert_allclose(value, 0.5 * wanted, rtol=1e-5)


def test_a_masked_model_hides_something(tmp_path):
  config = bert_quickstart.get_config()
  config.data.mask_rate = 0.0
  with pytest.raises(UserError, match="mask_rate"):
    tasks.validate(config)


@pytest.mark.parametrize("quickstart", [bert_quickstart, xlnet_quickstart])
def test_runs_of_different_seeds_are_evaluated_alike(quickstart, tmp_path, monkeypatch):
  found = []
  for seed in (1, 2):
    config = quickstart.get_config()
    config.data.update(seed=seed, batch_tokens=256)
    task = make(config, tmp_path)
    corpus = corpus_of(documents())
    monkeypatch.setattr(type(task), "vocabulary", Vocabulary(10**4, 4), raising=False)
    task.corpus = lambda split, corpus=corpus: corpus
    task.stream = lambda split, corpus=corpus: Stream(corpus.source_tokens, corpus.source_offsets)
    found.append((task.batches[0], next(iter(task.eval_batches("dev")))))
  (train, dev), (other_train, other_dev) = found
  assert any((train[name] != other_train[name]).any() for name in train)
  for name in dev:
    np.testing.assert_array_equal(dev[name], other_dev[name])


def test_a_vocabulary_that_is_gone(tmp_path, monkeypatch):
  """The embedding of another run needs its vocabulary; a run that has begun has its own."""
  config = classification_quickstart.get_config()
  config.train.init_from = str(tmp_path / "there")
  config.data.vocabulary = str(tmp_path / "vocab.txt")
  for name in ("there", "here"):
    (tmp_path / name).mkdir()
  task = make(config, tmp_path / "here")
  with pytest.raises(UserError, match="there has no tokenizer.model, which says what the rows of its embedding mean"):
    task.claim()
  (tmp_path / "there" / "tokenizer.model").write_bytes(wordpiece.dump([*wordpiece.SPECIAL.values(), "a"], True))
  task.claim()
  (tmp_path / "there" / "tokenizer.model").unlink()
  monkeypatch.setattr(checkpoints, "steps", lambda workdir: [100])
  task.claim()
  config.train.init_from = ""
  task.claim()


@pytest.mark.parametrize("model", [None, GPT])
def test_the_pattern_of_the_docs_freezes_all_but_the_head(model, tmp_path):
  config = classification_quickstart.get_config()
  config.head.pooling = "first"
  task = make(config, tmp_path, model)
  text = (pathlib.Path(__file__).parents[2] / "docs/pretraining.md").read_text()
  (pattern,) = re.findall(r"learning_rate_factors='..\"(.*?)\", 0.0", text)
  config.train.learning_rate_factors = ((pattern, 0.0),)
  factors = learning_rate_factors(config, jax.eval_shape(lambda: task.init(jax.random.key(0)).params))
  learnt = {name for name, factor in factors.items() if factor}
  assert learnt == {"classification_head/output/kernel_UO", "classification_head/output/bias_O"}


def test_a_split_that_is_evaluated_again_is_not_encoded_again(tmp_path, monkeypatch):
  calls = []
  monkeypatch.setattr(Classification, "examples", lambda self, split: ["example"])
  monkeypatch.setattr(Classification, "encode", lambda self, found: calls.append(found) or [Encoded(np.arange(3), 3)])
  task = make(classification_quickstart.get_config(), tmp_path)
  assert len([*task.eval_batches("dev"), *task.eval_batches("dev")]) == 2 and len(calls) == 1
