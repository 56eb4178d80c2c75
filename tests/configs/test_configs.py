"""Every config builds, says what it is, and takes a step at toy size; the paper's are the paper's."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo import tasks
from attention_zoo.training.config import diff, from_json, to_json
from attention_zoo.training.optimizer import make_optimizer
from attention_zoo.training.schedule import make_schedule
from attention_zoo.training.sharding import path_name
from tests import config_files
from tests.config_files import NAMES, get_config

TOY = dict(
  d_model=8, d_hidden=8, d_ff=12, d_attention=8, d_maxout=8, num_heads=2, d_k=4, d_v=4, num_layers=3,
  num_encoder_layers=2, num_decoder_layers=2, max_length=8, vocab_size=16, row_length=8, batch_tokens=16,
  d_word=4, d_character=4, d_spelling=4, word_length=8, filters=((1, 2), (2, 3)), lm_filters=((1, 2), (2, 3)),
  lm_d_model=8, lm_d_hidden=8, lm_d_character=4, d_embedding=8, d_encoder=8,
  d=4, lowest_pitch=1, num_sets=1, max_rate=2, widths=(8, 6), kernel_sizes=(3, 1), size=4, low_size=2, batch_size=2,
  features=8, output_features=6, num_blocks=1, num_levels=2, num_components=2, d_noise=4, attention_size=8,
)  # fmt: skip
# Of single models: not the smaller of two, but these.
TOY_OF = {
  "nonlocal_net": dict(widths=(8, 6), blocks=(1, 1), strides=(1, 1), nonlocal_blocks=(0, 1), size=16),
  "sagan": dict(size=16),
  "resnet_sr": dict(blocks=(1, 1)),
  "pixel_recursive_sr": dict(blocks=(1, 1)),
  "srez_gan": dict(generator_widths=(8, 6), discriminator_widths=(8,)),
}
PUBLISHED = ("Attention Is All You Need", "et al.", "Table")


@pytest.mark.parametrize("name", NAMES)
def test_builds_locked_and_valid(name):
  config = get_config(name)
  assert config.is_locked and config.model.is_locked
  tasks.validate(config)
  assert diff(config, from_json(to_json(config))) == ""
  with config.unlocked():
    config.train.steps += 1
  assert get_config(name).train.steps == config.train.steps - 1, "get_config must make a new config each time"


def header(name, seen=()):
  """A config's docstring, with those of the configs that it refers to ("commands as in transformer_base.py")."""
  text = config_files.load(name).__doc__ or ""
  for other in re.findall(r"(?<!=)\b([\w/]+)\.py\b", text):
    for path in (f"{name.rpartition('/')[0]}/{other}".lstrip("/"), other.removeprefix("configs/")):
      if path in NAMES and path not in (name, *seen):
        text += "\n" + header(path, (name, *seen))
        break
  return text


def header_complaints(name, own, whole):
  """own: the docstring; whole: with what it refers to."""
  first = own.split("\n")[0]
  if len(first.split()) < 4:
    yield "the first line must say what this is"
  commands = re.findall(r"python -m (?:attention_zoo|launch)\.\w+.*", own)
  if "python -m" not in whole:
    yield "no command, nor a config that has it"
  configs = [path for command in commands for path in re.findall(r"--config=(\S+)", command)]
  if configs and set(configs) != {f"configs/{name}.py"}:
    yield f"the command runs {configs[0]}"
  if any(word in whole for word in PUBLISHED):
    for wanted, what in (
      (r"[Hh]ardware", "the hardware"),
      (r"\b[Oo]urs\b", "our number, or 'not run'"),
    ):
      if not re.search(wanted, whole):
        yield f"does not name {what}"
    paper = getattr(config_files.load(name), "PAPER", None) if name in NAMES else None
    if not paper and not re.search(r"\d+\.\d+ [^.]*\b(BLEU|perplexity|nats|bits|top-1|FID|fooled)\b", own):
      yield "does not give the paper's number"


@pytest.mark.parametrize("name", NAMES)
def test_header_says_what_it_is(name):
  assert not list(header_complaints(name, config_files.load(name).__doc__ or "", header(name)))


@pytest.mark.parametrize(
  ("text", "complaint"),
  [
    ("", "first line"),
    ("A small model on dates.", "no command"),
    (
      "A small model on dates.\n\n python -m attention_zoo.train --config=configs/other.py --workdir=DIR",
      "runs configs/o",
    ),
    ("Transformer of Vaswani et al. 2017: 27.3 BLEU. Ours: not run.\n python -m attention_zoo.train", "hardware"),
    (
      "Transformer of Vaswani et al. 2017: 27.3 BLEU. Hardware: 12 hours.\n python -m attention_zoo.train",
      "our number",
    ),
    ("Transformer of Vaswani et al. 2017. Hardware: 1. Ours: 1.\n python -m attention_zoo.train", "paper's number"),
  ],
)
def test_the_header_rule_catches(text, complaint):
  assert any(complaint in found for found in header_complaints("mine", text, text))


# One step at toy size


def shrunk(config):
  config = from_json(to_json(config))
  with config.unlocked():
    for group in (config.model, config.data):
      for field, size in TOY.items():
        if field in group:
          group[field] = min(group[field], size)
      group.update({field: size for field, size in TOY_OF.get(config.model.name, {}).items() if field in group})
    if config.model.get("attention", "").startswith("local_2d"):
      config.model.attention = "local_2d(tile=(2, 2), flange=(1, 1))"  # of so small an image
  return config


def random_batch(task):
  """Rows of two segments and padding, or images."""
  rng = np.random.default_rng(0)
  batch = {}
  for key, shape in task.batch_shapes().items():
    at = np.arange(shape.shape[-1])
    if key in ("fresh", "weights"):
      value = 1
    elif key in ("pixels", "low"):
      value = rng.integers(0, 256, shape.shape)
    elif key == "labels":
      value = rng.integers(0, max(task.config.data.num_classes, 1), shape.shape)
    elif key in ("label", "tags", "types", "unrelated"):
      value = rng.integers(0, 2, shape.shape)
    elif key in ("masked", "places"):
      value = at + 1
    elif key == "words":
      value = (at + 1) % len(at)  # 0: no word
    elif key.endswith("segments"):
      value = np.digitize(at, [4, 7]) + 1
      value = np.where(value == 3, 0, value)
    elif key.endswith("positions"):
      value = at % 4
    else:
      value = rng.integers(0, TOY["vocab_size"], shape.shape)
    batch[key] = jnp.asarray(np.broadcast_to(value, shape.shape), shape.dtype)
  return batch


def make_step(config):
  """(task, function, parameters, batch): one step of the optimizer, which returns the loss, the gradients, and how far
  each parameter moved."""
  task = config_files.make_task(config)
  params = jax.eval_shape(task.init, jax.random.key(0)).params
  optimizer = make_optimizer(config.optimizer)

  def run(params, batch, rng):
    def objective(params):
      loss = task.loss(params, {}, task.carry(len(next(iter(batch.values())))), batch, rng, 0)
      return loss.value, loss

    gradients, loss = jax.grad(objective, has_aux=True)(params)
    gradients = jax.tree.map(lambda leaf: leaf / loss.weight, gradients)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    moved = jax.tree.map(lambda update: jnp.abs(update).max(), updates)
    return loss, gradients, moved

  return task, run, params, random_batch(task)


def without_frozen(task, tree):
  """The leaves, by path, of those parameters that the task does not keep as they are."""
  leaves = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
  return {name: leaf for name, leaf in leaves.items() if task.learning_rate_factor(name, 10**9)}


def traced_as(name):
  """What a step is made of: configs that differ in no more than rates share one."""
  config = shrunk(get_config(name))
  model = {field: value > 0 if "dropout" in field else value for field, value in config.model.items()}
  optimizer = config.optimizer
  return json.dumps([
    config.task, model, config_files.given(config), optimizer.name, optimizer.schedule, optimizer.clip_norm > 0,
    config.train.get("label_smoothing", 0) > 0,
  ])  # fmt: skip


def computed_as(name):
  """What is compiled and computed once: a model of a task and its optimizer. Compiling takes most of the time."""
  config = get_config(name)
  return config.task, config.model.name, config.optimizer.name.partition("(")[0]


TRACED, COMPUTED = ({of(name): name for name in reversed(NAMES)} for of in (traced_as, computed_as))


@pytest.mark.parametrize("name", sorted(TRACED.values()))
def test_a_tiny_step_can_be_taken(name):
  _, run, params, batch = make_step(shrunk(get_config(name)))
  loss, *_ = jax.eval_shape(run, params, batch, jax.random.key(1))
  assert loss.weight.shape == ()


@pytest.mark.parametrize("name", sorted(COMPUTED.values()))
def test_a_tiny_step_moves_every_parameter(name):
  task, run, shapes, batch = make_step(shrunk(get_config(name)))
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), shapes)
  loss, gradients, moved = jax.device_get(jax.jit(run)(params, batch, jax.random.key(1)))
  assert np.isfinite(loss.value) and loss.value > 0
  # Of two rows, seven of whose eight tokens are real; of masks and places each has one.
  weights = {"subpixels": 2 * TOY["size"] ** 2 * 3, "examples": 2, "masks": 2, "places": 2, "images": 2}
  unit = tasks.find(get_config(name).task).unit
  assert loss.weight == weights.get(unit, 2 * 7)
  assert 0 <= loss.sums.get("accuracy", (0, 0))[0] <= loss.weight
  assert all(np.isfinite(leaf).all() and leaf.any() for leaf in without_frozen(task, gradients).values())
  assert all(np.isfinite(leaf) and leaf > 0 for leaf in without_frozen(task, moved).values())


# The paper's own settings


def test_base_is_the_papers():
  """Table 3 (base), sections 5.1 to 5.4 and 6.1."""
  config = get_config("transformer_base")
  paper = {
    "model": dict(
      name="transformer", num_encoder_layers=6, num_decoder_layers=6, d_model=512, d_ff=2048, num_heads=8, d_k=64,
      d_v=64, dropout=0.1, attention_dropout=0.0, residual="post", positions="sinusoidal",
    ),
    "data": dict(
      source="tfds(name='wmt14_translate/de-en')", languages=("en", "de"), vocab_size=37000, tokenizer="bpe",
      tokenized=False,
    ),
    "optimizer": dict(
      name="adam(b1=0.9, b2=0.98, eps=1e-9)", schedule="inverse_sqrt", learning_rate=1.0, warmup_steps=4000,
      d_model=512, clip_norm=0.0,
    ),
    "train": dict(steps=100_000, label_smoothing=0.1, accumulate=1),
    "decode": dict(beam_size=4, alpha=0.6, extra_length=50),
  }  # fmt: skip
  for group, fields in paper.items():
    assert {field: config[group][field] for field in fields} == fields
  assert config.data.batch_tokens == pytest.approx(25_000, rel=0.03)
  rate = make_schedule(config.optimizer)(3999)  # Optax counts from 0
  assert float(rate) == pytest.approx(512**-0.5 * 4000**-0.5)


def changed(old, new):
  lines = diff(get_config(old), get_config(new)).splitlines()
  return {line.split(":")[0].strip(): json.loads(line.split(" -> ")[1]) for line in lines}


def test_big_differs_where_table_3_says_so():
  assert changed("transformer_base", "transformer_big") == {
    "model.d_model": 1024,
    "model.d_ff": 4096,
    "model.num_heads": 16,
    "model.dropout": 0.3,
    "optimizer.d_model": 1024,
    "train.steps": 300_000,
    "train.keep": 20,  # section 6.1 averages as many
  }


def test_french_differs_in_the_data_and_the_big_models_dropout():
  data = {"data.source": "tfds(name='wmt14_translate/fr-en')", "data.languages": ["en", "fr"], "data.vocab_size": 32000}
  assert changed("transformer_base", "transformer_base_enfr") == data
  assert changed("transformer_big", "transformer_big_enfr") == data | {"model.dropout": 0.1}


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("image/", "vision/"))])
def test_models_of_images_are_not_chosen_by_their_test_split(name):
  data = get_config(name).data
  assert len({data.train_split, data.dev_split, data.test_split}) == 3
