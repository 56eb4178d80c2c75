"""Runs and people: our scores in the published table, and whose images the page has."""

import base64
import io
import json
import re
import types

import jax
import numpy as np
import pytest
from PIL import Image

from attention_zoo import api, human_evaluation, tasks
from attention_zoo.configs.image import factorised_shapes, srez_gan_shapes, super_resolution_quickstart
from attention_zoo.errors import UserError
from attention_zoo.evaluation.human import TABLE
from attention_zoo.protocols import Score
from attention_zoo.tasks import human


def made(config, workdir, params=None, dev=7):
  """A run of a task with these parameters, or its first ones."""
  config.data.update(source=f"shapes(train=8, dev={dev}, test=4)", size=8, batch_size=4)
  config.decode.batch_size = 8
  tasks.validate(config)
  task = tasks.make(config, workdir)
  task.claim()
  params = jax.jit(task.init)(jax.random.key(0)).params if params is None else params
  return task.runner(params, {}, checkpoint="latest", step=0)


def srez():
  config = srez_gan_shapes.get_config()
  config.model.update(generator_widths=(4, 5), discriminator_widths=(4,))
  config.data.low_size = 4
  return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  return made(srez(), tmp_path_factory.mktemp("runs") / "srez")


def test_a_run_stands_beside_its_system(run, tmp_path, monkeypatch):
  config = super_resolution_quickstart.get_config()
  config.model.attention = "dot_product"
  other = made(config, tmp_path / "full", params={})
  scores = [Score("psnr", 12.345, "x"), Score("ssim", 0.5, "x")]
  monkeypatch.setattr(type(other), "nearness", lambda self, split: scores)
  rows = human.table([run, other])
  assert [row[:2] for row in rows] == [*((row.name, row.shown) for row in TABLE), ("image_transformer_sr", "-")]
  notes = {name: note for name, _, note in rows if note}
  assert set(notes) == {"srez GAN", "image_transformer_sr"}
  assert re.search(r"srez: psnr \d+\.\d\d, psnr bicubic .*, ssim .* \(shapes.*, 4 x 4 to 8 x 8\)", notes["srez GAN"])
  assert "full: psnr 12.35, ssim 0.50 (" in notes["image_transformer_sr"]


def test_the_page_has_the_dev_images_and_what_the_run_makes_of_them(run):
  page = human.page([run, run], trials=3, seconds=2.5, seed=0)
  data = json.loads(re.search('id="data">(.*?)</script>', page, re.S)[1])
  _, drawn, real = run.enlarged("dev", 7)
  assert data["seconds"] == 2.5 and [each["printed"] for each in data["systems"]] == ["8.5 %"] * 2
  images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))) for code in data["images"]]
  assert sorted((system, image) for system, image, *_ in data["trials"]) == [(i // 3, i) for i in range(6)]
  for _, image, left, right, code in data["trials"]:
    pair = (real[image], drawn[image])[:: 1 if code.bit_count() % 2 else -1]
    np.testing.assert_array_equal([images[left], images[right]], pair)


def test_what_cannot_be_shown_is_told(run, tmp_path):
  with pytest.raises(UserError, match="the dev split has 7 images, fewer than 4 for each of 2 runs: take --trials=3"):
    human.page([run, run], trials=4, seconds=1, seed=0)
  other = made(factorised_shapes.get_config(), tmp_path / "factorised", params={})
  for verb in (human.table, lambda runs: human.page(runs, trials=1, seconds=1, seed=0)):
    with pytest.raises(UserError, match="factorised is a run of the task 'image_modeling', which enlarges no images"):
      verb([other])


def test_too_few_images_are_told_before_one_is_enlarged(run, tmp_path, monkeypatch):
  runs = {"a": run, "b": made(srez(), tmp_path / "few", params={}, dev=5)}
  monkeypatch.setattr(type(run), "enlarged", lambda *_, **options: pytest.fail("images were enlarged"))
  monkeypatch.setattr(api, "load", runs.get)
  values = dict(WORKDIRS="a,b", PAGE=str(tmp_path / "page.html"), TRIALS=3)
  for name, value in values.items():
    monkeypatch.setattr(human_evaluation, name, types.SimpleNamespace(value=value))
  for verb in (human_evaluation.main, lambda: human.page([*runs.values()], trials=3, seconds=1, seed=0)):
    with pytest.raises(UserError, match="few: the dev split has 5 images, fewer than 3 for each of 2 runs"):
      verb()
