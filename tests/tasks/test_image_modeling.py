"""Image models in use: training, samples, completion, likelihoods, the page, the command; and super-resolution."""

import io
import math
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import attention_zoo as zoo
from attention_zoo import tasks
from attention_zoo.configs.image import factorised_shapes, quickstart, super_resolution_quickstart
from attention_zoo.data import identity
from attention_zoo.errors import UserError
from attention_zoo.tasks import pixels as heads
from attention_zoo.tasks import upscaler as upscaler_lib
from attention_zoo.training import loop
from attention_zoo.training.metrics import read_metrics

SIZE = 4


def small(config, **model):
  config.model.update(d_model=16, d_ff=16, num_heads=2, d_k=4, d_v=4, num_layers=1, **model)
  config.data.update(source="shapes(train=64, dev=10, test=9)", size=SIZE, batch_size=8)
  config.train.update(steps=6, eval_every=6, checkpoint_every=6, log_every=3, dev_samples=2)
  config.optimizer.update(warmup_steps=2)
  config.decode.update(batch_size=8)
  return config


def trained(config, workdir):
  tasks.validate(config)
  loop.train(tasks.make(config, workdir), config, workdir, quiet=True)
  return zoo.load(workdir)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  config = small(quickstart.get_config(), attention="local_2d(tile=(2, 2), flange=(2, 2))")
  return trained(config, tmp_path_factory.mktemp("runs") / "shapes")


@pytest.fixture(scope="module")
def images(run):
  return run.task.pictures("test")


def test_a_run_reports_bits_of_all_channels_and_keeps_its_classes(run):
  (dev,) = [record for record in read_metrics(run.task.workdir) if record["split"] == "dev"]
  channels = [dev[f"bits_{name}"] for name in ("red", "green", "blue")]
  assert dev["bits_per_dim"] == pytest.approx(np.mean(channels), rel=1e-5)
  assert dev["loss"] == pytest.approx(dev["bits_per_dim"] * math.log(2), rel=1e-5)
  assert dev["weight"] == 10 * SIZE * SIZE * 3
  assert run.task.class_names == ("circle", "square", "triangle", "cross")


def test_samples_depend_on_their_seed_and_class_alone(run):
  drawn = run.sample(5, seed=3)
  assert drawn.pixels.shape == (5, SIZE, SIZE, 3) and drawn.pixels.dtype == np.uint8
  assert drawn.labels == ("circle", "square", "triangle", "cross", "circle")
  again = run.sample(2, label=["triangle", 3], seed=5)
  np.testing.assert_array_equal(again.pixels, drawn.pixels[2:4])
  assert (run.sample(1, label="circle", seed=4)[0] != drawn[0]).any()
  cold = run.sample(2, label=1, temperature=0)
  np.testing.assert_array_equal(cold[0], cold[1])


def test_the_sampler_draws_what_the_model_expects(run):
  """At temperature 0 each value is the most probable one under teacher forcing."""
  drawn = run.sample(3, temperature=0)
  batch = {"pixels": drawn.pixels.astype(np.int32), "labels": np.arange(3, dtype=np.int32)}
  outputs = jax.jit(lambda params, batch: run.task.model.apply({"params": params}, batch))(run.params, batch)
  np.testing.assert_array_equal(np.asarray(outputs).reshape(3, SIZE, SIZE, 3, 256).argmax(-1), drawn.pixels)


def test_samples_have_the_models_probabilities():
  """Of a model without parameters: 4,000 draws of one value, at temperatures 1 and 1/2."""
  logits = np.full(256, -np.inf, np.float32)
  logits[[3, 200]] = np.log([0.8, 0.2])
  decoding = heads.PixelDecoding(np.array([0]), lambda pixels, i, cache: (np.tile(logits, (4000, 1)), cache))
  for temperature, wanted in ((1.0, 0.8), (0.5, 0.64 / 0.68)):
    start = np.zeros((4000, 1, 1, 1), np.int32), np.zeros((4000, 1, 1), bool), np.arange(4000, dtype=np.uint32)
    drawn = np.asarray(heads.draw(decoding, "categorical", *start, temperature))
    assert set(drawn.ravel()) == {3, 200}
    assert (drawn == 3).mean() == pytest.approx(wanted, abs=0.03)


def test_a_completion_keeps_the_rows_that_are_given(run, images):
  pixels, _ = images
  done = run.complete(pixels[0], 2, n=3, label="square")
  np.testing.assert_array_equal(done[0], pixels[0])
  for drawn in done.pixels[1:]:
    np.testing.assert_array_equal(drawn[:2], pixels[0][:2])
  assert (done[1][2:] != done[2][2:]).any()
  np.testing.assert_array_equal(run.complete(pixels[0], SIZE, label=0)[1], pixels[0])


def test_bits_of_images_are_those_of_evaluation(run, images):
  bits = run.bits_per_dim(*images)
  assert bits.shape == (9,) and bits.dtype == np.float64
  found = run.evaluate("test")
  assert found.record["bits"]["bits_per_dim"] == pytest.approx(bits.mean(), rel=1e-5)
  assert found.record["scores"] == {"bits per dim": found.record["bits"]["bits_per_dim"]}
  assert [score.name for score in found.scores] == ["bits per dim", "bits red", "bits green", "bits blue"]


def test_the_probabilities_of_a_value_sum_to_one(run, images):
  """All 256 images that differ in the last value that is generated."""
  pixels = np.repeat(images[0][:1], 256, 0)
  pixels[:, -1, -1, -1] = np.arange(256)
  joint = np.exp(-run.bits_per_dim(pixels, [0] * 256) * SIZE * SIZE * 3 * math.log(2))
  # What the values before it have, from the model itself.
  batch = {"pixels": pixels[:1].astype(np.int32), "labels": np.zeros(1, np.int32)}
  outputs = run.task.model.apply({"params": run.params}, batch)
  logprobs = np.asarray(heads.log_likelihoods("categorical", outputs, batch["pixels"]), np.float64)
  assert joint.sum() == pytest.approx(np.exp(logprobs.sum() - logprobs[0, -1, -1, -1]), rel=1e-3)


def test_images_show_and_write_themselves(run, tmp_path):
  drawn = run.sample(5)
  assert "5 images of 4 x 4 pixels" in repr(drawn)
  grid = np.asarray(Image.open(io.BytesIO(drawn._repr_png_())))
  assert grid.ndim == 3 and grid.shape[2] == 3
  drawn.save(tmp_path / "grid.png")
  assert (tmp_path / "grid.png").read_bytes() == drawn.png()
  with pytest.raises(UserError, match="whose name ends in .png"):
    drawn.save(tmp_path / "grid.jpg")
  page = run.page(run.evaluate("dev"), "command")
  assert page.count("data:image/png;base64") == 1 and "bits per dim" in page
  assert "data:image" not in repr(run) and run.describe().parameters == sum(x.size for x in jax.tree.leaves(run.params))


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda run: run.sample(0), "n must be a whole number from 1"),
    (lambda run: run.sample(1, label="hexagon"), "there is no class 'hexagon'; there are circle"),
    (lambda run: run.sample(1, label=4), "label must be a whole number from 0 to 3"),
    (lambda run: run.sample(3, label=[1, 2]), "as many labels as images, got 2 and 3"),
    (lambda run: run.sample(1, temperature=-1), "temperature must be a number from 0"),
    (lambda run: run.complete(np.zeros((5, 5, 3)), 1), "must be an image of 4 x 4 x 3"),
    (lambda run: run.complete(np.zeros((4, 4, 3)), 5), "rows must be a whole number from 0 to 4"),
    (lambda run: run.complete("none.png", 1), "cannot read none.png"),
    (lambda run: run.bits_per_dim([np.zeros((4, 4, 3))]), "give the label of each image"),
    (lambda run: run.programs(), "cannot be exported as programs"),
  ],
)
def test_what_is_wrong_is_told(run, call, message):
  with pytest.raises(UserError, match=message):
    call(run)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(num_classes=3), r"num_classes = 3, but shapes\(.*\) has 4 classes"),
    (dict(num_classes=1), "a single class tells a model nothing"),
    (dict(source="shapes(train=0)"), "at least one image in each split"),
    (dict(train_split="valid"), "has the splits train, dev, test, not 'valid'"),
  ],
)
def test_configs_that_do_not_fit_the_images(tmp_path, fields, message):
  config = small(quickstart.get_config(), attention="dot_product")
  config.data.update(fields)
  with pytest.raises(UserError, match=message):
    tasks.make(config, tmp_path).claim()


def test_a_model_without_classes_takes_no_labels(tmp_path):
  config = factorised_shapes.get_config()
  config.data.update(source="shapes(train=16, dev=2, test=2)", size=SIZE, batch_size=8)
  task = tasks.make(config, tmp_path)
  task.claim()
  run = task.runner(*jax.jit(task.init)(jax.random.key(0)), checkpoint="latest", step=0)
  with pytest.raises(UserError, match="told no classes .*leave the label out"):
    run.sample(1, label="circle")
  assert run.sample(2).labels == ("", "")  # row by row, each step a whole pass


def test_names_of_other_classes_are_told(tmp_path):
  """A folder that somebody else made may hold any list of names."""
  config = small(quickstart.get_config(), attention="dot_product")
  task = tasks.make(config, tmp_path)
  identity.claim(
    tmp_path, train="0" * 64, directory="", settings={}, learn=lambda: b'{"classes": ["a", "b"]}', trained=False
  )
  with pytest.raises(UserError, match="the run has 2 classes, but config.data.num_classes = 4"):
    task.check()
  other = tmp_path / "other"
  identity.claim(other, train="0" * 64, directory="", settings={}, learn=lambda: b'{"classes": 3}', trained=False)
  with pytest.raises(UserError, match="does not hold the names of classes"):
    tasks.make(config, other).check()


# Super-resolution


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory):
  config = small(super_resolution_quickstart.get_config(), attention="local(block_width=12)")
  config.data.update(size=8, low_size=2)  # SSIM needs 7
  return trained(config, tmp_path_factory.mktemp("runs") / "enlarged")


def test_a_small_image_is_enlarged(upscaler, monkeypatch):
  low = np.full((2, 2, 3), 77, np.uint8)
  found = upscaler.upscale(low, n=2, temperature=0.8)
  assert found.pixels.shape == (2, 8, 8, 3)
  monkeypatch.setattr(upscaler_lib, "_COMPARED", 3)
  result = upscaler.evaluate("dev")
  assert result.record["images"] == 3
  assert {"bits per dim", "psnr", "psnr bicubic", "ssim", "ssim bicubic"} == set(result.record["scores"])
  assert set(result.record["scores"]) <= {score.name for score in result.scores}
  assert upscaler.bits_per_dim(upscaler.task.pictures("dev")[0]).mean() == pytest.approx(
    result.record["bits"]["bits_per_dim"], rel=1e-5
  )
  with pytest.raises(UserError, match="this model enlarges images"):
    upscaler.sample(1)
  with pytest.raises(UserError, match="must be an image of 2 x 2 x 3"):
    upscaler.upscale(np.zeros((8, 8, 3)))


def test_sizes_that_do_not_divide_are_told(tmp_path):
  config = small(super_resolution_quickstart.get_config(), attention="dot_product")
  config.data.low_size = 3
  with pytest.raises(UserError, match="size = 4 is no multiple of config.data.low_size = 3"):
    tasks.make(config, tmp_path)


@pytest.mark.slow
def test_the_commands(run, upscaler, tmp_path):
  Image.fromarray(np.zeros((11, 9, 3), np.uint8)).save(tmp_path / "it.png")
  mine, theirs = (f"--workdir={each.task.workdir}" for each in (run, upscaler))
  image, output = f"--image={tmp_path}/it.png", f"--output={tmp_path}/grid.png"
  for flags, message in (
    ([mine, "--label=cross", "--num_samples=3", output], ""),
    ([mine, image, "--rows=2", "--label=cross", output], ""),
    ([theirs, image, output], ""),
    ([mine], "need --output=FILE.png"),
    ([mine, "--top_k=3", output], "--top_k is for other models"),
    ([mine, "--prompt=red", output], "--prompt, --input and --stop are for text"),
    ([mine, "--seconds=3", output], "--seconds is for other models"),
    ([theirs, output], "needs --image=FILE"),
  ):
    command = [sys.executable, "-m", "attention_zoo.sample", *flags]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"XLA_FLAGS": ""})
    assert done.returncode == (2 if message else 0) and message in done.stderr, done.stderr
