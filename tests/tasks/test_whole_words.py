"""Tagging with whole words: their characters in batches, published vectors, and the CRF."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from attention_zoo import tasks
from attention_zoo.configs.pretraining import bilstm_crf_quickstart, tagging_quickstart
from attention_zoo.data import words
from attention_zoo.data.characters import FIRST
from attention_zoo.data.tagged import Tagged
from attention_zoo.data.tokenizer import BOS, EOS, UNK
from attention_zoo.errors import UserError
from attention_zoo.ops import crf
from attention_zoo.tasks.tagging import CRF
from attention_zoo.training import sharding
from attention_zoo.training.init_from import with_known

TEXT = "Lena B-PER\nflies O\nto O\nNew B-LOC\nYork I-LOC\n\nUlm B-LOC\nis O\nnot O\nNew B-LOC\nYork I-LOC\n\n"


def make(tmp_path, **data):
  for split in ("train", "dev"):
    (tmp_path / f"{split}.txt").write_text(TEXT)
  (tmp_path / "vectors.txt").write_text("york 1 2 3\nulm -1 -2 -3\nnowhere 7 7 7\n")
  config = bilstm_crf_quickstart.get_config()
  config.model.update(d_word=3, word_length=6, d_character=2, d_spelling=2, d_hidden=2)
  config.data.update(
    source="conll", dir=str(tmp_path), labels=("PER", "LOC"), vocab_size=FIRST + 8, batch_tokens=64, row_length=16,
    row_multiple=1,
  )  # fmt: skip
  config.data.update(data)
  tasks.validate(config)
  task = tasks.make(config, tmp_path / "run")
  return task


@pytest.fixture(scope="module")
def task(tmp_path_factory):
  folder = tmp_path_factory.mktemp("tagging")
  task = make(folder, word_vectors=f"glove(path={str(folder / 'vectors.txt')!r})")
  task.claim()
  return task


def test_batches_hold_the_characters_of_their_words(task):
  batch = next(iter(task.eval_batches("dev")))
  spelt = lambda sentence: words.spelt(sentence.split(), 6)
  edges = [words.special(mark, 6)[None] for mark in (words.BEGIN_TEXT, words.END_TEXT)]
  for b, sentence in enumerate(("Lena flies to New York", "Ulm is not New York")):
    wanted = np.concatenate([edges[0], spelt(sentence), edges[1]])
    np.testing.assert_array_equal(batch["characters"][b, :7], wanted)
    assert not batch["characters"][b, 7:].any()
    ids = task.tokenizer.encode([sentence])[0]
    assert batch["inputs"][b, :7].tolist() == [BOS, *ids, EOS] and batch["words"][b, :5].tolist() == [1, 2, 3, 4, 5]
  train = next(iter(task.train_batches(0, (0,), 1)))
  shapes = {name: tuple(shape) for name, shape in task.train_shapes()[0].items()}
  assert {name: x.shape for name, x in train.items()} == shapes
  assert task.batch_shapes()["characters"].shape == (4, 16, 6)


def test_a_word_that_is_a_space_keeps_its_place(task):
  (found,) = task.encode([Tagged(("Ulm", "\u00a0", "York"), (), "here")])
  assert found.labels["words"].tolist() == [1, 2, 3] and found.ids[2] == UNK
  np.testing.assert_array_equal(found.labels["characters"][1:4], words.spelt(["Ulm", "", "York"], 6))


def test_a_run_begins_with_the_vectors_of_a_file(task):
  mesh = sharding.local_mesh()
  params = jax.jit(task.init, out_shardings=NamedSharding(mesh, PartitionSpec()))(jax.random.key(0)).params
  drawn_VD = np.asarray(params["words"]["table"]["table_VD"])
  params = with_known(params, task.known_params(), mesh)
  table_VD = np.asarray(params["words"]["table"]["table_VD"])
  row = lambda word: task.tokenizer.encode([word])[0][0]
  assert table_VD[row("York")].tolist() == [1, 2, 3] and table_VD[row("Ulm")].tolist() == [-1, -2, -3]
  others = [i for i in range(len(table_VD)) if i not in (row("York"), row("Ulm"))]
  np.testing.assert_array_equal(table_VD[others], drawn_VD[others])
  with pytest.raises(UserError, match="no parameter is called nowhere"):
    with_known(params, {"nowhere": None}, mesh)
  with pytest.raises(UserError, match=r"words/table/table_VD has the shape .* and what it begins with \(1, 3\)"):
    with_known(params, {"words/table/table_VD": lambda x: x[:1]}, mesh)


def test_words_without_an_id_share_buckets(tmp_path):
  task = make(tmp_path, buckets=2, vocab_size=FIRST + 8 + 2)
  task.claim()
  ids = task.tokenizer.encode(["Köln York Bonn"])[0]
  assert UNK not in ids and ids[1] < FIRST + 8 <= min(ids[0], ids[2])


def test_what_does_not_go_together_is_told(tmp_path):
  with pytest.raises(UserError, match='reads the characters of whole words: set config.data.tokenizer to "words"'):
    make(tmp_path, tokenizer="bpe")
  with pytest.raises(UserError, match="has vectors of 2 numbers, and the model's words have 3"):
    (tmp_path / "short.txt").write_text("york 1 2\n")
    make(tmp_path, word_vectors=f"glove(path={str(tmp_path / 'short.txt')!r})").known_params()
  config = tagging_quickstart.get_config()
  with config.unlocked():
    config.data.word_vectors = "glove(path='x')"
  tasks.validate(config)
  with pytest.raises(UserError, match="config.data.word_vectors is for .*a table of words, which bert has not"):
    tasks.make(config, tmp_path / "other")


def test_the_crf_is_a_head(task):
  """Its loss is that of the paths that keep BIO; its best path keeps it."""
  head, n = CRF(5, 0.0), 5  # O and two types
  x_BTU = jax.random.normal(jax.random.key(0), (6, 7, 3))
  params = head.init(jax.random.key(1), x_BTU)["params"]
  assert {name: x.shape for name, x in params.items() if name != "output"} == {
    "transition_OO": (n, n), "start_O": (n,), "end_O": (n,),
  }  # fmt: skip
  scores_BTO = 20 * head.apply({"params": params}, x_BTU)
  real_BT = jnp.asarray(np.arange(7)[None] < np.array([7, 3, 1, 0, 5, 7])[:, None], jnp.float32)
  best_BT = head.best(params, scores_BTO, real_BT)
  names = np.array(["O", "B-1", "I-1", "B-2", "I-2"])
  for row, length in zip(names[np.asarray(best_BT)], (7, 3, 1, 0, 5, 7), strict=True):
    before = "O"
    for name in row[:length]:
      assert name[0] != "I" or before[1:] == name[1:]
      before = name
  value, correct = head.loss(params, scores_BTO, best_BT, real_BT)
  rules = crf.bio_rules(names.tolist())
  free = crf.Potentials(params["transition_OO"], params["start_O"], params["end_O"])
  wanted = crf.log_likelihood(scores_BTO, best_BT, real_BT > 0, crf.constrained(free, *rules))
  np.testing.assert_allclose(value, -wanted.sum(), rtol=1e-5)
  assert correct == real_BT.sum() and np.isfinite(value)
