"""What the loop asks of every task (`protocols.Task`), on the smallest config of each: batches, losses, runner."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo import tasks
from attention_zoo.configs.image import factorised_shapes, srez_gan_shapes, super_resolution_quickstart
from attention_zoo.configs.language import quickstart
from attention_zoo.configs.music import quickstart as music_quickstart
from attention_zoo.configs.pretraining import (
  bert_quickstart,
  bilm_quickstart,
  classification_quickstart,
  tagging_quickstart,
  xlnet_quickstart,
)
from attention_zoo.configs.vision import nonlocal_markers, sagan_markers
from attention_zoo.protocols import Evaluation, Initial, Loss, Score
from attention_zoo.training import config as config_lib
from tests.data import tunes
from tests.small_run import small_config


def language_model(files):
  config = quickstart.get_config()
  config.model.update(num_heads=1, d_model=8, d_ff=8, d_k=8, d_v=8, num_layers=1)
  config.data.update(
    source="text", dir=str(files / "train.en"), test_split="dev", vocab_size=200, batch_tokens=512, row_length=32
  )
  config.decode.update(max_tokens=4, batch_tokens=512)
  return config


def translation(files):
  config = small_config(files)
  config.decode.update(beam_size=1, extra_length=2)
  return config


def music(files):
  config = music_quickstart.get_config()
  config.model.update(num_heads=1, d_model=8, d_ff=8, d_k=8, d_v=8, num_layers=1)
  path = files / "chorales.json"
  path.write_text(json.dumps({split: [tunes.grid(24, i).tolist() for i in range(8)] for split in ("train", "dev")}))
  config.data.update(source="chorales", dir=str(path), test_split="dev", batch_tokens=512, row_length=32)
  config.decode.update(max_tokens=4, batch_tokens=512)
  return config


def image_model(files):
  config = factorised_shapes.get_config()
  config.data.update(source="shapes(train=40, dev=5, test=5)", size=4, num_classes=4, flip=True, batch_size=8)
  return config


def encoder(files, config, ending, lines):
  """A small BERT on files of these lines, which are made in a folder of its own."""
  folder = files / f"{config.task}_{ending}"
  folder.mkdir(exist_ok=True)
  for split in ("train", "dev"):
    (folder / f"{split}.{ending}").write_text("\n".join(lines) + "\n")
  sizes = dict(num_heads=1, d_model=8, d_ff=8, d_k=8, d_v=8, num_layers=1, memory=8)
  config.model.update({name: size for name, size in sizes.items() if name in config.model})
  config.data.update(
    dir=str(folder), test_split="dev", tokenizer="characters", vocab_size=4 + len(LETTERS), batch_tokens=512,
    row_length=32,
  )  # fmt: skip
  return config


LETTERS = "abcdef "


def sentences(number=20):
  rng = np.random.default_rng(0)
  return ["".join(rng.choice(list(LETTERS[:6]), 4)) + " " + "abcdef"[: 1 + i % 6] for i in range(number)]


def classification(files):
  config = classification_quickstart.get_config()
  config.data.update(source="tsv", labels=("odd", "even"))
  lines = [f"{x}\t{('even', 'odd')[len(x) % 2]}" for x in sentences()]
  return encoder(files, config, "tsv", ["text\tlabel", *lines])


def regression(files):
  config = classification_quickstart.get_config()
  with config.unlocked():
    config.task = "regression"
    del config.data["labels"], config.train["label_smoothing"]
  config.data.update(source="json_lines(second='second')")
  pairs = zip(sentences(), reversed(sentences()), strict=True)
  lines = [json.dumps({"text": a, "second": b, "label": len(a) - len(b)}) for a, b in pairs]
  return encoder(files, config, "jsonl", lines)


def tagging(files):
  config = tagging_quickstart.get_config()
  config.data.update(source="conll", labels=("LETTER",))
  words = [word for sentence in sentences() for word in (*sentence.split(), "")]
  lines = [word and f"{word} {'B-LETTER' if len(word) == 1 else 'O'}" for word in words]
  return encoder(files, config, "conll", lines)


def masked(files):
  config = bert_quickstart.get_config()
  config.data.update(source="text(documents='paragraph')")
  lines = [line for i, line in enumerate(sentences(60)) for line in (line, "")[: 1 + (i % 4 == 3)]]
  config = encoder(files, config, "txt", lines)
  config.data.update(tokenizer="byte_bpe", vocab_size=270)
  return config


def permuted(files):
  config = xlnet_quickstart.get_config()
  config.data.update(source="text(documents='line')")
  return encoder(files, config, "txt", sentences(100))


def super_resolution(files):
  config = super_resolution_quickstart.get_config()
  config.model.update(num_heads=1, d_model=8, d_ff=8, d_k=8, d_v=8, num_layers=1, attention="local(block_width=12)")
  config.data.update(source="shapes(train=40, dev=5, test=5)", size=4, low_size=2, batch_size=8)
  return config


def super_resolution_gan(files):
  config = srez_gan_shapes.get_config()
  config.model.update(generator_widths=(4, 5), discriminator_widths=(4,))
  config.data.update(source="shapes(train=40, dev=5, test=5)", size=4, low_size=2, batch_size=8)
  return config


def classifier(files):
  config = nonlocal_markers.get_config()
  config.model.update(widths=(4,), blocks=(1,), nonlocal_blocks=(1,))
  config.data.update(source="markers(train=40, dev=5, test=5)", size=8, batch_size=8)
  return config


def gan(files):
  config = sagan_markers.get_config()
  config.model.update(features=8, d_noise=4, attention_size=8)
  config.data.update(source="markers(train=40, dev=5, test=5)", size=16, num_classes=2, batch_size=8)
  return config


def bidirectional(files):
  config = bilm_quickstart.get_config()
  config.model.update(word_length=6, d_character=4, filters=((1, 2), (2, 3)), d_model=4, d_hidden=5, num_layers=1)
  config.data.update(
    source="text(documents='line')", dir=str(files / "train.en"), test_split="dev", vocab_size=20, batch_tokens=512,
    row_length=32,
  )  # fmt: skip
  return config


CONFIGS = {  # of a folder with text
  "translation": translation, "language_modeling": language_model, "music": music, "image_modeling": image_model,
  "classification": classification, "regression": regression, "tagging": tagging, "masked_language_modeling": masked,
  "permutation_language_modeling": permuted, "super_resolution": super_resolution,
  "image_classification": classifier, "gan": gan, "bidirectional_language_modeling": bidirectional,
  "super_resolution_gan": super_resolution_gan,
}  # fmt: skip


@pytest.fixture(scope="module", params=tasks.TASKS)
def task(request, number_files, tmp_path_factory):
  config = CONFIGS[request.param](number_files)
  tasks.validate(config)
  task = tasks.make(config, tmp_path_factory.mktemp(request.param))
  task.claim()
  return task


@pytest.fixture(scope="module")
def initial(task):
  return jax.jit(task.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def batch(task):
  return next(iter(task.train_batches(0, (0,), 1)))


@pytest.fixture(scope="module")
def loss(task):
  return jax.jit(lambda initial, carry, batch: task.loss(*initial, carry, batch, None, None))


def test_every_task_is_tried_here():
  assert set(CONFIGS) == set(tasks.TASKS)


def test_its_fields_are_its_own(task):
  for group, fields in task.FIELDS.items():
    assert group == "model" or not set(fields) & set(config_lib.GROUPS.get(group, ())), group
  assert set(task.defaults) <= set(config_lib.flat(task.config))
  assert task.unit.endswith("s")


def test_batches_have_the_shapes_that_were_announced(task):
  announced = [{name: tuple(shape) for name, shape in shapes.items()} for shapes in task.train_shapes()]
  for batch in itertools.islice(task.train_batches(0, (0,), 1), 3):
    assert {name: x.shape for name, x in batch.items()} in announced
  most = task.batch_shapes()  # without having seen the data
  assert set(batch) == set(most)
  for name, x in batch.items():
    assert x.dtype == most[name].dtype and len(x) == most[name].shape[0] and x.size <= np.prod(most[name].shape)
  whole = [x for name, x in batch.items() if name != "characters"]  # those of the words
  assert task.batch_units() >= (len(x) if task.unit in ("examples", "images") else max(x.size for x in whole))


def test_batches_are_functions_of_the_step_and_come_in_parts(task):
  whole = list(itertools.islice(task.train_batches(0, (0,), 1), 3))
  for name, x in next(iter(task.train_batches(2, (0,), 1))).items():
    np.testing.assert_array_equal(x, whole[2][name])
  halves = [next(iter(task.train_batches(1, (part,), 2))) for part in (0, 1)]
  for name, x in whole[1].items():
    np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), x)


def test_the_loss_adds_over_rows_and_empty_rows_add_nothing(task, initial, batch, loss):
  assert isinstance(initial, Initial)
  rows = next(iter(batch.values())).shape[0]
  whole = loss(initial, task.carry(rows), batch)
  assert isinstance(whole, Loss) and np.isfinite(whole.value) and 0 < whole.weight <= task.batch_units()
  half = rows // 2
  parts = [
    loss(initial, task.carry(rows), {name: jnp.asarray(x).at[at].set(0) for name, x in batch.items()})
    for at in (slice(half, None), slice(half))
  ]
  for found, wanted in (
    (sum(part.value for part in parts), whole.value), (sum(part.weight for part in parts), whole.weight),
    *((sum(part.sums[name][i] for part in parts), whole.sums[name][i]) for name in whole.sums for i in (0, 1)),
  ):  # fmt: skip
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
  empty = loss(initial, task.carry(rows), {name: jnp.zeros_like(x) for name, x in batch.items()})
  assert empty.value == empty.weight == 0
  assert jax.tree.map(jnp.shape, whole.variables) == jax.tree.map(jnp.shape, initial.variables)
  assert jax.tree.map(jnp.shape, whole.carry) == jax.tree.map(jnp.shape, task.carry(rows))


def test_its_figures_have_names(task, initial, batch, loss):
  found = loss(initial, task.carry(next(iter(batch.values())).shape[0]), batch)
  sums = {name: (float(sum), float(weight)) for name, (sum, weight) in found.sums.items()}
  figures = task.summarize(sums | {"loss": (float(found.value), float(found.weight))})
  assert {"loss", "weight", *found.sums} <= set(figures)
  assert all(isinstance(value, float) and np.isfinite(value) for value in figures.values())
  assert len(task.fingerprint()) == 64


def test_the_runner_evaluates_and_makes_a_page(task, initial):
  task.workdir.joinpath("config.json").write_text(config_lib.to_json(task.config))
  run = task.runner(*jax.device_get(initial), checkpoint="latest", step=0)
  run.parents = [0]
  assert np.isfinite(run.dev_loss())
  result = run.evaluate("dev")
  assert isinstance(result, Evaluation) and result.scores and all(isinstance(score, Score) for score in result.scores)
  assert all(np.isfinite(score.value) for score in result.scores)
  assert all(isinstance(text, str) for sample in result.samples for text in sample.values())
  assert run.page(result, "command").lower().startswith("<!doctype html>")
