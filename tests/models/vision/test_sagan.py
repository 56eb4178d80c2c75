"""What is special about SAGAN: attention in both players, spectral norms that follow kernels, two players' losses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo import tasks
from attention_zoo.configs.vision import sagan_markers
from attention_zoo.models.vision import sagan


def config(**fields):
  return dataclasses.replace(sagan.small(), **fields)


def make(tmp_path):
  run = sagan_markers.get_config()
  run.model.update(features=8, d_noise=4, attention_size=8)
  run.data.update(source="markers(train=8, dev=2, test=2)", size=16, num_classes=2, batch_size=4)
  tasks.validate(run)
  return tasks.make(run, tmp_path)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
  return make(tmp_path_factory.mktemp("sagan"))


@pytest.fixture(scope="module")
def initial(task):
  return jax.jit(task.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def batch(task):
  pixels, labels = task.pictures("train")
  return {"pixels": jnp.asarray(pixels[:4], jnp.int32), "labels": jnp.asarray(labels[:4]), "weights": jnp.ones(4, int)}


@pytest.fixture(scope="module")
def play(task, batch):
  """(params, variables) -> (gradients, Loss) of a step of training."""

  def value(params, variables):
    loss = task.loss(params, variables, {}, batch, jax.random.key(1), 0)
    return loss.value, loss

  return jax.jit(jax.grad(value, has_aux=True))


@pytest.mark.parametrize("fields", [{}, dict(num_classes=0), dict(attention_size=0), dict(size=32, attention_size=16)])
def test_parameters_are_counted(fields):
  c = config(**fields)
  batch = {"pixels": jnp.zeros((1, c.size, c.size, 3), int), "labels": jnp.zeros(1, int)}
  shapes = jax.eval_shape(sagan.Model(c).init, jax.random.key(0), batch)
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == sagan.parameter_count(c)
  assert ("attention" in shapes["params"]["generator"]) == bool(c.attention_size)
  assert ("attention" in shapes["params"]["discriminator"]) == bool(c.attention_size)


def test_each_player_gets_the_gradient_of_its_own_loss(task, initial, batch, play):
  """Of the losses as they are in the paper, one player's parameters at a time, from one step of the power iteration on.
  """
  params, variables = initial
  gradients, _ = play(params, variables)
  apply = lambda params, x, method: task.model.apply({"params": params, **variables}, x, batch["labels"], method=method)
  real, noise = batch["pixels"] / 127.5 - 1, task.noise(jax.random.key(1), 4)

  @jax.jit
  def wanted(params):
    drawn = apply(params, noise, "generate")

    def discriminator(own):
      both = params | {"discriminator": own}
      scores = apply(both, real, "discriminate"), apply(both, drawn, "discriminate")
      return (jax.nn.relu(1 - scores[0]) + jax.nn.relu(1 + scores[1])).sum()

    def generator(own):
      return -apply(params, apply(params | {"generator": own}, noise, "generate"), "discriminate").sum()

    return {
      "discriminator": jax.grad(discriminator)(params["discriminator"]),
      "generator": jax.grad(generator)(params["generator"]),
    }

  for name, tree in wanted(params).items():
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    found, own = flat(gradients[name]), flat(tree)
    assert np.linalg.norm(own) > 0.1
    assert np.linalg.norm(found - own) < 1e-3 * np.linalg.norm(own), name


def test_training_moves_the_vectors_of_the_power_iteration_and_evaluation_does_not(task, initial, batch, play):
  _, loss = play(*initial)
  moved = jax.tree.map(lambda a, b: a.size == 1 or bool(np.any(a != b)), initial.variables, loss.variables)
  # A kernel of rank one is at its end after one step, that of the first values.
  assert np.mean(jax.tree.leaves(moved)) > 0.8
  assert jax.tree.structure(loss.variables) == jax.tree.structure(initial.variables)
  still = jax.jit(lambda initial: task.loss(*initial, {}, batch, None, None).variables)(initial)
  jax.tree.map(np.testing.assert_array_equal, still, initial.variables)


def test_far_parts_meet_in_the_attention(initial, task):
  params, variables = initial
  x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 8)), jnp.float32)
  attention = sagan.Attention()
  own = dict(jax.tree.map(jnp.asarray, attention.init(jax.random.key(0), x)["params"]))
  np.testing.assert_array_equal(attention.apply({"params": own}, x), x)  # gamma begins with 0
  own["gamma"] = jnp.float32(1.0)
  gradient = jax.grad(lambda x: attention.apply({"params": own}, x)[0, 0, 0].sum())(x)
  assert np.asarray(gradient)[0].any(-1).all()


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(size=24), "must be 4 times a power of two, at least 8, got 24"),
    (dict(attention_size=16), r"model.attention_size must be 0 or one of \(8,\), got 16"),
    (dict(d_noise=0), "model.d_noise must be at least 1, got 0"),
  ],
)
def test_bad_sizes_are_told(fields, message):
  with pytest.raises(ValueError, match=message):
    config(**fields)
