"""Image models and what they are given: rows to complete, files, labels, names of outputs. Nothing is trained."""

import jax
import numpy as np
import pytest
from PIL import Image

from attention_zoo import tasks
from attention_zoo.configs.image import quickstart, super_resolution_quickstart
from attention_zoo.data import images
from attention_zoo.errors import UserError

SIZE = 4


def small(config, **model):
  config.model.update(d_model=8, d_ff=8, num_heads=1, d_k=4, d_v=4, num_layers=1, **model)
  config.data.update(source="shapes(train=8, dev=4, test=4)", size=SIZE, batch_size=8)
  config.decode.update(batch_size=8)
  return config


def begun(config, workdir):
  tasks.validate(config)
  task = tasks.make(config, workdir)
  task.claim()
  return task.runner(*jax.jit(task.init)(jax.random.key(0)), checkpoint="latest", step=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  config = small(quickstart.get_config(), attention="local_2d(tile=(2, 2), flange=(2, 2))")
  return begun(config, tmp_path_factory.mktemp("tiles"))


@pytest.fixture(scope="module")
def image(run):
  return run.task.pictures("test")[0][0]


def test_rows_that_are_kept_are_whole_tiles(run, image):
  """Of half a tile's rows, pixels of the first tile would be drawn before the second one's rows are seen."""
  for rows, fitting in ((1, 2), (3, 4)):
    with pytest.raises(UserError, match=f"rows = {rows}: .* take {fitting}"):
      run.complete(image, rows, label=0)


def test_classes_are_those_that_the_run_was_begun_with(tmp_path):
  """A folder of another name would be another class's number."""
  rng = np.random.default_rng(0)
  for split in ("train", "dev"):
    for name in ("cat", "dog"):
      (tmp_path / split / name).mkdir(parents=True)
      Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)).save(tmp_path / split / name / "0.png")
  config = small(quickstart.get_config(), attention="dot_product")
  config.data.update(source="images", dir=str(tmp_path), num_classes=2)
  tasks.make(config, tmp_path / "run").claim()
  for split in ("train", "dev"):
    (tmp_path / split / "cat").rename(tmp_path / split / "eel")
  with pytest.raises(UserError, match="the images have the classes dog, eel, but the run in .* has cat, dog"):
    tasks.make(config, tmp_path / "run").pictures("dev")


def test_files_are_cut_as_the_runs_are_and_not_where_they_are_scored(run, tmp_path):
  wide = np.zeros((6, 9, 3), np.uint8)
  Image.fromarray(wide).save(tmp_path / "wide.png")
  Image.fromarray(wide[:3, :3]).save(tmp_path / "small.png")
  assert len(run.complete(tmp_path / "wide.png", 2, label=0)) == 2
  with pytest.raises(UserError, match="small.png has 3 x 3 pixels, fewer than 4 x 4"):
    run.complete(tmp_path / "small.png", 2, label=0)
  with pytest.raises(UserError, match="wide.png has 9 x 6 pixels, not 4 x 4"):
    run.bits_per_dim([tmp_path / "wide.png"], [0])
  assert images.file_options("images(enlarge=True, bad='refuse')") == {"enlarge": True}


def test_an_image_that_is_given_has_one_class(run, image):
  with pytest.raises(UserError, match="give the label of each image"):
    run.complete(image, 2)


def test_a_file_is_made_small_as_in_training(tmp_path):
  config = small(super_resolution_quickstart.get_config(), attention="local(block_width=12)")
  config.data.low_size = 2
  upscaler = begun(config, tmp_path / "run")
  pixels = upscaler.task.pictures("dev")[0][:1]
  low = images.shrink(pixels, 2)
  for name, given in (("whole", pixels[0]), ("low", low[0])):
    Image.fromarray(given).save(tmp_path / f"{name}.png")
    np.testing.assert_array_equal(upscaler._low(tmp_path / f"{name}.png"), low[0])
  Image.fromarray(pixels[0, :3, :3]).save(tmp_path / "between.png")
  with pytest.raises(UserError, match="between.png has 3 x 3 pixels, fewer than 4 x 4"):
    upscaler.upscale(tmp_path / "between.png")


def test_options_that_cannot_be_are_told_before_anything_is_drawn(run, monkeypatch):
  monkeypatch.setattr(run, "_draw", lambda *_: pytest.fail("it was drawn"))
  for options, message in (
    (dict(output="grid.png", rows=2), "--rows says .* needs --image=FILE"),
    (dict(output="grid.jpg"), "grid.jpg: .* whose name ends in .png"),
  ):
    with pytest.raises(UserError, match=message):
      run.save_samples(**options)


def test_arguments_that_are_no_images_are_told(run):
  for given, message in (
    ([], "images must hold at least one image"),
    ("it.png", r"not a single string: write \[image\]"),
    (5, "images must be a list of images, not int"),
    ([np.zeros((SIZE, SIZE, 3), bool)], r"images\[0\] must hold whole numbers from 0 to 255, not bool"),
    ([np.zeros((SIZE, SIZE))], r"images\[0\] must be an image of 4 x 4 x 3 values"),
  ):
    with pytest.raises(UserError, match=message):
      run.bits_per_dim(given, 0)
