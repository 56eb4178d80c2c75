"""What every model of the zoo offers, what its parameters are called, and that it is imported when it is first used."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo import models
from attention_zoo.errors import UserError
from attention_zoo.training import sharding
from attention_zoo.training.config import fields_of


@pytest.mark.parametrize("name", models.MODELS)
def test_a_model_offers_what_the_house_asks_for(name):
  module = models.find(name)
  config = module.small()
  assert isinstance(config, module.Config) and dataclasses.is_dataclass(config)
  with pytest.raises(dataclasses.FrozenInstanceError):
    config.vocab_size = 3
  assert module.parameter_count(config) < 10_000
  assert module.Model(config).config is config
  assert "|" in module.__doc__  # the table of deviations


@pytest.fixture(scope="module", params=models.MODELS)
def made(request):
  """(module, config, batch, parameters, drawn without compiling the initialisation)."""
  module = models.find(request.param)
  config = module.small()
  shapes = models.batch_shapes(module, config, rows=2, length=4)
  batch = {name: jnp.resize(jnp.array([1, 2, 3, 4, 5, 6, 1, 2], jnp.int32), shape) for name, shape in shapes.items()}
  batch |= {name: jnp.ones((2, 4), jnp.int32) for name in module.BATCH if "segments" in name}
  shapes = jax.eval_shape(module.Model(config).init, jax.random.key(0), batch)["params"]
  rng = np.random.default_rng(0)
  # Above 0 on the whole: else all rectified units of so small a model may be shut.
  params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.1, 0.3, leaf.shape), leaf.dtype), shapes)
  return module, config, batch, params


def test_parameters_are_counted_and_float32(made):
  module, config, _, params = made
  leaves = jax.tree.leaves(params)
  assert sum(leaf.size for leaf in leaves) == module.parameter_count(config)
  assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}


@pytest.mark.parametrize("rules", sharding.RULES)
def test_parameters_are_placed_by_their_names(made, rules):
  _, _, _, params = made
  # The letters are asked for, not the sizes.
  mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(1, 8, 1, 1), sharding.AXES)
  places = sharding.shardings(sharding.RULES[rules], params, mesh)
  used = {axis for place in jax.tree.leaves(places) for axis in place.spec}
  assert used - {None} == set(sharding.RULES[rules].values())


def test_gradients_are_finite_and_reach_every_parameter(made):
  """In training: the noise of a gate does nothing else. Not at the first values, some of which are zeros that keep
  gradients from what lies before them."""
  module, config, batch, params = made

  def loss(params):
    found, sown = module.Model(config).apply(
      {"params": params}, batch, train=True, rngs={"dropout": jax.random.key(1)}, mutable=["losses"]
    )
    # Whatever an output's mean and deviation are: those of a normalised one are always the same.
    outputs = jax.tree.leaves(found)
    return sum((x * jnp.cos(jnp.arange(x.size)).reshape(x.shape)).sum() for x in outputs) + sum(jax.tree.leaves(sown))

  gradients = jax.jit(jax.grad(loss))(params)
  for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
    assert np.isfinite(gradient).all() and gradient.any(), jax.tree_util.keystr(path)


def test_a_config_may_name_every_field(made):
  module, config, _, _ = made
  fields = fields_of(module.Config)
  assert set(fields) == {"name", *(field.name for field in dataclasses.fields(config))}
  for name, field in fields.items():
    if name != "name":
      assert field.type in (int, float, str, bool, tuple), name


def test_a_name_that_is_none_is_told():
  with pytest.raises(
    UserError, match=r"config.model.name = 'transformr' is not one of transformer, .*did you mean 'transformer'"
  ):
    models.find("transformr")


def test_a_model_for_other_batches_is_told():
  assert models.find("transformer_lm", ("inputs", "targets", "segments", "positions"))
  with pytest.raises(
    UserError, match="config.model.name = 'transformer_lm' is no model for this task.* no segments, positions"
  ):
    models.find("transformer_lm", ("source", "inputs"))


def test_models_are_imported_when_they_are_used():
  code = "import sys; from attention_zoo import models; assert 'flax' not in sys.modules and 'jax' not in sys.modules"
  subprocess.run([sys.executable, "-c", code], check=True)
