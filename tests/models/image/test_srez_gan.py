"""What is special about srez: two players' losses, an L1 term to the small image, one image of each."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from attention_zoo import tasks
from attention_zoo.configs.image import resnet_sr_shapes, srez_gan_shapes
from attention_zoo.data import images
from attention_zoo.errors import UserError
from attention_zoo.models.image import srez_gan
from attention_zoo.tasks import upscaler

L1_WEIGHT = 0.75


def small():
  config = srez_gan_shapes.get_config()
  config.model.update(generator_widths=(6, 5), discriminator_widths=(4, 6))
  config.data.update(source="shapes(train=8, dev=5, test=4)", size=8, low_size=4, batch_size=4)
  config.train.l1_weight = L1_WEIGHT
  config.decode.batch_size = 8
  return config


@pytest.fixture(scope="module")
def task(tmp_path_factory):
  config = small()
  tasks.validate(config)
  task = tasks.make(config, tmp_path_factory.mktemp("srez"))
  task.claim()
  return task


@pytest.fixture(scope="module")
def params(task):
  return jax.jit(task.init)(jax.random.key(0)).params


@pytest.fixture(scope="module")
def run(task, params):
  return task.runner(params, {}, checkpoint="latest", step=0)


@pytest.fixture(scope="module")
def batch(task):
  return {name: jnp.asarray(x) for name, x in next(iter(task.train_batches(0, (0,), 1))).items()}


def test_each_player_gets_the_gradient_of_its_own_loss(task, params, batch):
  """Of the losses written out with probabilities, one player's parameters at a time."""
  apply = lambda params, x, method: task.model.apply({"params": params}, x, method=method)
  real, low = batch["pixels"] / 255, batch["low"] / 255
  noisy = low + task.config.train.low_noise * jax.random.normal(jax.random.key(1), low.shape)

  def discriminator(own):
    chance = lambda x: jax.nn.sigmoid(apply(params | {"discriminator": own}, x, "discriminate"))
    return -(jnp.log(chance(real)) + jnp.log(1 - chance(apply(params, noisy, "enlarge")))).sum()

  def generator(own):
    drawn = apply(params | {"generator": own}, noisy, "enlarge")
    fooled = -jnp.log(jax.nn.sigmoid(apply(params, drawn, "discriminate")))
    squares = [drawn[:, y::2, x::2] for y in (0, 1) for x in (0, 1)]
    l1 = jnp.abs(sum(squares) / 4 - low).reshape(len(low), -1).mean(-1)
    return ((1 - L1_WEIGHT) * fooled + L1_WEIGHT * l1).sum()

  losses = {"discriminator": discriminator, "generator": generator}
  wanted = jax.jit(lambda params: {name: jax.grad(loss)(params[name]) for name, loss in losses.items()})(params)
  value = lambda params: task.loss(params, {}, {}, batch, jax.random.key(1), 0).value
  found = jax.jit(jax.grad(value))(params)
  for name, tree in wanted.items():
    assert sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(tree)) > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found[name], tree)


@pytest.mark.parametrize(
  "fields", [{}, dict(size=32, low_size=8, generator_widths=(3, 5, 4), discriminator_widths=(4, 5), num_blocks=2)]
)
def test_parameters_are_counted(fields):
  c = dataclasses.replace(srez_gan.small(), **fields)
  batch = {"pixels": jnp.zeros((1, c.size, c.size, 3), int), "low": jnp.zeros((1, c.low_size, c.low_size, 3), int)}
  shapes = jax.eval_shape(srez_gan.Model(c).init, jax.random.key(0), batch)
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == srez_gan.parameter_count(c)


def test_an_image_is_enlarged_as_in_training(run, params, task):
  pixels = task.pictures("dev")[0]
  low = images.shrink(pixels, 4)
  found = run.upscale(low[2])
  assert found.pixels.shape == (1, 8, 8, 3) and found.pixels.dtype == np.uint8
  enlarge = jax.jit(lambda params, low: task.model.apply({"params": params}, low, method="enlarge"))
  wanted = enlarge(params, low / np.float32(255))
  assert np.abs(np.asarray(wanted) * 255 - run.enlarged("dev", 5)[1]).max() <= 0.501
  np.testing.assert_array_equal(found[0], run.enlarged("dev", 5)[1][2])


def test_an_evaluation_measures_nearness_and_no_likelihood(run, monkeypatch):
  monkeypatch.setattr(upscaler, "_COMPARED", 3)
  result = run.evaluate("dev")
  names = [f"{name}{side}" for name in ("psnr", "ssim") for side in ("", " bicubic")]
  assert [score.name for score in result.scores] == [*names, "discriminator", "generator", "l1"]
  assert result.record["images"] == 3 and result.scores[0].signature == "first 3 images of dev"
  assert set(result.record["scores"]) == set(names)
  generator = result.record["figures"]["generator"]
  assert generator > L1_WEIGHT * result.record["figures"]["l1"]
  assert not hasattr(run, "bits_per_dim") and not hasattr(run, "complete")


def test_what_it_cannot_do_is_told(run, tmp_path):
  Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "low.png")
  given = dict(output=tmp_path / "out.png", image=tmp_path / "low.png")
  run.save_samples(**given)
  assert given["output"].read_bytes().startswith(b"\x89PNG")
  for name, value in dict(num_samples=2, seed=5, temperature=0.5).items():
    with pytest.raises(UserError, match=f"--{name} is for other models: this one draws nothing"):
      run.save_samples(**given, **{name: value})
  with pytest.raises(UserError, match="this model enlarges images"):
    run.sample(1)
  with pytest.raises(UserError, match="needs --image=FILE"):
    run.save_samples(given["output"])


def test_a_model_of_another_task_is_told(tmp_path):
  config, other = small(), resnet_sr_shapes.get_config()
  config.model = other.model
  config.data.update(size=16)
  with pytest.raises(UserError, match="'resnet_sr' is no pair of generator and discriminator"):
    tasks.make(config, tmp_path)
  other.model = small().model
  other.data.update(size=8, low_size=4)
  with pytest.raises(UserError, match="'srez_gan' has the head 'players', which is not one of"):
    tasks.make(other, tmp_path)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(size=8), r"generator_widths = \(4, 5\): .* does not lead from 2 x 2 pixels to 8 x 8"),
    (dict(discriminator_widths=(4, 4, 4)), r"discriminator_widths = \(4, 4, 4\): .* 4 rows cannot be halved so often"),
    (dict(generator_widths=()), r"model.generator_widths must hold whole numbers of at least 1, got \(\)"),
    (dict(num_classes=2), "takes no labels: set config.data.num_classes to 0, not 2"),
  ],
)
def test_bad_sizes_are_told(fields, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(srez_gan.small(), **fields)
