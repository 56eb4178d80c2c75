"""Programs of StableHLO: what they compute without the package is what a run computes."""

import ast
import dataclasses
import functools
import json
import pathlib
import re
import subprocess
import sys
import types

import jax
import ml_collections
import numpy as np
import pytest
import safetensors.numpy
from jax import export

import attention_zoo as zoo
from attention_zoo import files, models, tasks
from attention_zoo.configs.language import quickstart
from attention_zoo.data import characters, identity
from attention_zoo.data.tokenizer import BOS, EOS
from attention_zoo.errors import UserError
from attention_zoo.exchange import stablehlo
from attention_zoo.tasks import programs
from attention_zoo.training import config as config_lib
from attention_zoo.training import exported as reading

pytest.importorskip("flatbuffers")  # jax.export writes with it
SENTENCES = ["one two three four", "five", "nine eight seven six five"]
TRANSLATION = [name for name in models.MODELS if "source" in models.find(name).BATCH]
TEXT = [name for name in models.MODELS if "inputs" in models.find(name).BATCH and name not in TRANSLATION]
LANGUAGE = [name for name in TEXT if hasattr(models.find(name), "decoding")]  # those that generate


def drawn(config, workdir, name, **fields):
  """A run of a small model of that name, drawn at random; the workdir has the vocabulary."""
  config = config.copy_and_resolve_references()
  small = dataclasses.asdict(models.find(name).small()) | fields
  small.pop("vocab_size")
  with config.unlocked():
    config.model = ml_collections.ConfigDict({"name": name} | small)
  config.data.batching = "bucketed" if config.task == "translation" else "windows"
  tasks.validate(config)
  task = tasks.make(config, workdir)
  initial = jax.jit(task.init)(jax.random.key(7))
  noisy = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), initial.params)
  run = task.runner(noisy, initial.variables, checkpoint="latest", step="0")
  run.parents = [0]
  return run


def opened(folder):
  params = safetensors.numpy.load_file(folder / reading.PARAMETERS)
  load = lambda name: jax.jit(export.deserialize(bytearray((folder / f"{name}.stablehlo").read_bytes())).call)
  return params, *map(load, stablehlo.NAMES)


def rows(ids, length=None):
  width = length or max(map(len, ids))
  return np.stack([np.pad(np.int32(x), (0, width - len(x))) for x in ids]), np.int32([len(x) for x in ids])


@pytest.mark.parametrize("name", [*TRANSLATION, *LANGUAGE])
def test_every_model_can_be_exported(name):
  module = models.find(name)
  config = module.small()
  model = module.Model(config)
  sizes = types.SimpleNamespace(max_length=12, row_length=12)
  task = types.SimpleNamespace(
    model=model, longest=config.max_length if getattr(config, "bounded", False) else None,
    decoding=functools.partial(module.decoding, config),
    logits=lambda params, batch: model.apply({"params": params}, batch),
    config=types.SimpleNamespace(decode=types.SimpleNamespace(extra_length=3), data=sizes),
  )  # fmt: skip
  batch = {field: np.zeros((1, 2), np.int32) for field in module.BATCH}
  params = jax.eval_shape(lambda: model.init(jax.random.key(0), batch))["params"]
  kind = programs.translation if name in TRANSLATION else programs.language
  run = types.SimpleNamespace(programs=lambda: kind(task), config=types.SimpleNamespace(model=config))
  _, dimensions, platforms = stablehlo._export(run, params)
  assert platforms == ("cpu", "cuda", "tpu")
  # ByteNet extends a source by a table of lengths; skewing pads rows by numbers that follow from their length.
  free = {"b"} if name in ("bytenet", "music_transformer") else set(dimensions)
  assert {dimension for dimension, size in dimensions.items() if size is None} == free


@pytest.mark.parametrize("name", ["transformer", "bahdanau"])
def test_translation_models(tiny_run, tmp_path, name):
  run = drawn(zoo.load(tiny_run).config, tiny_run, name)
  stablehlo.write(run, tmp_path / "to")
  about = json.loads((tmp_path / "to" / "programs.json").read_text())
  assert about["platforms"] == ["cpu", "cuda", "tpu"]
  assert about["dimensions"]["b"] is None
  params, score, start, step = opened(tmp_path / "to")
  sources = rows(run.encode(SENTENCES), about["dimensions"]["s"])
  expected = [found for (found,) in run.hypotheses(SENTENCES, beam_size=1, alpha=0.0)]
  fixed, cache = start(params, *sources)
  tokens, chosen = np.full(len(SENTENCES), BOS, np.int32), []
  for t in range(max(len(found.ids) for found in expected)):
    logits, cache = step(params, fixed, cache, tokens, np.int32(t))
    tokens = np.asarray(logits).argmax(-1).astype(np.int32)
    chosen.append(tokens)
  for found, ids in zip(expected, np.stack(chosen, 1), strict=True):
    assert ids[: len(found.ids)].tolist() == found.ids
  targets = [found.ids for found in expected]
  logprobs = score(params, *sources, *rows(targets, about["dimensions"]["t"]))
  np.testing.assert_allclose(logprobs.sum(-1), [found.logprob for found in expected], rtol=1e-5)


@pytest.fixture(scope="module")
def language_directory(tmp_path_factory):
  """(config, workdir with a vocabulary of characters)."""
  directory = tmp_path_factory.mktemp("language")
  config = quickstart.get_config()
  alphabet = "abcdefghijklmnopqrstuvwxyz "
  config.data.update(source="toy", tokenizer="characters", vocab_size=len(alphabet) + 4, row_length=16)
  learn = lambda: characters.learn([alphabet], vocab_size=len(alphabet) + 4)
  files.write_text(directory / "config.json", config_lib.to_json(config))
  identity.claim(directory, train="0" * 64, directory="", settings={}, learn=learn, trained=False)
  return config, directory


@pytest.mark.parametrize("name", LANGUAGE)
def test_language_models(language_directory, tmp_path, name):
  config, directory = language_directory
  run = drawn(config, directory, name)
  stablehlo.write(run, tmp_path / "to")
  params, score, start, step = opened(tmp_path / "to")
  texts = ["abc de", "x"]
  ids = [[*text, EOS] for text in run.task.tokenizer.encode(texts)]
  dimensions = json.loads((tmp_path / "to" / "programs.json").read_text())["dimensions"]
  logprobs = np.asarray(score(params, *rows(ids, dimensions["t"])))
  for row, scored in zip(logprobs, run.score(texts), strict=True):
    np.testing.assert_allclose(row[: len(scored.logprobs)], scored.logprobs, rtol=1e-4, atol=1e-5)
  (sample,) = run.sample("abc", temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, max_tokens=6)
  found, drawn_with = run.task.tokenizer.encode(["abc"])[0], []
  fixed, cache = start(params, np.zeros((1, dimensions["z"] or 9), np.int32))
  for t in range(8):
    logits, cache = step(params, fixed, cache, np.int32(found[t : t + 1]), np.int32(t))
    if t + 1 == len(found):
      found.append(int(logits[0].argmax()))
      drawn_with.append(float(jax.nn.log_softmax(logits[0]).max()))
  assert found[3 : 3 + len(sample.ids)] == sample.ids
  np.testing.assert_allclose(drawn_with[: len(sample.ids)], sample.logprobs, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def written(tiny_run, tmp_path_factory):
  to = tmp_path_factory.mktemp("stablehlo") / "to"
  stablehlo.write(zoo.load(tiny_run), to)
  return to


def example(folder, text):
  """What README.md's example prints, where this package cannot be imported."""
  code = re.search("```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
  used = set(re.findall(r"^(?:import|from) (.*)$", code, re.MULTILINE))
  assert not [line for line in used if "attention_zoo" in line] and len(code.splitlines()) <= 32
  blocked = "import sys\nsys.modules['attention_zoo'] = None\n"
  done = subprocess.run(
    [sys.executable, "-c", blocked + code], cwd=folder, input=text, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return [line.split("\t") for line in done.stdout.splitlines()]


def test_the_example_runs_without_the_package(tiny_run, written):
  run = zoo.load(tiny_run)
  sentences = SENTENCES[:2]
  found = example(written, "\n".join(sentences))
  translations = run.translate(sentences, beam_size=1)
  hypotheses = [h for (h,) in run.hypotheses(sentences, beam_size=1, alpha=0.0)]
  assert [line[2] for line in found] == translations
  assert [ast.literal_eval(line[1]) for line in found] == [h.ids for h in hypotheses]
  scores = [h.logprob for h in run.score(sentences, translations)]
  whole = [i for i, h in enumerate(hypotheses) if run.encode([h.text])[0] == h.ids]  # cut as the model cut them
  np.testing.assert_allclose([float(line[0]) for line in found], [h.logprob for h in hypotheses], rtol=1e-5)
  assert whole
  np.testing.assert_allclose([float(found[i][0]) for i in whole], [scores[i] for i in whole], rtol=1e-5)


def test_the_example_of_a_language_model(language_directory, tmp_path):
  run = drawn(*language_directory, "transformer_lm", max_length=64)
  stablehlo.write(run, tmp_path / "to")
  (ids,) = run.task.tokenizer.encode(["abc"])
  ((score, found, _),) = example(tmp_path / "to", " ".join(map(str, ids)))
  assert ast.literal_eval(found)[:3] == ids and len(ast.literal_eval(found)) == 3 + stablehlo.MORE
  assert float(score) == pytest.approx(run.score(["abc"])[0].logprob, rel=1e-5)


def test_the_folder(written):
  assert {path.name for path in pathlib.Path(written).iterdir()} == {
    "score.stablehlo", "start.stablehlo", "step.stablehlo", "model.safetensors", "programs.json", "tokenizer.model",
    "card.json", "README.md", "SHA256SUMS",
  }  # fmt: skip
  about = json.loads((written / "programs.json").read_text())
  assert about["dimensions"] == {"b": None, "s": None, "t": None}
  assert about["score"] == ["int32[b,s]", "int32[b]", "int32[b,t]", "int32[b]"]
  assert sum(path.stat().st_size for path in written.glob("*.stablehlo")) < 400_000  # parameters are no constants
  done = subprocess.run(["sha256sum", "-c", reading.SUMS], cwd=written, capture_output=True)
  assert done.returncode == 0


def test_what_moves_no_whole_folder(tiny_run, tmp_path):
  with pytest.raises(UserError, match="take float32 parameters"):
    stablehlo.write(zoo.load(tiny_run), tmp_path / "to", "int8")
  assert not [*tmp_path.iterdir()]
