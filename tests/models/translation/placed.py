"""A model's gradients on one device and on eight, parameters placed by a rule set and rows of the batch shared."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from attention_zoo.training import sharding
from tests.ops.against import assert_close


def assert_one_device_equals_eight(module, config, params, batch, rules, tolerance=1e-5):
  """rules: a name of `sharding.RULES`; where they split parameters, four groups of two devices hold their parts."""
  shape = (1, 4, 2, 1) if rules == "fsdp" else (1, 8, 1, 1)
  mesh = Mesh(np.array(jax.devices()[:8]).reshape(shape), sharding.AXES)
  places = sharding.shardings(sharding.RULES[rules], params, mesh)
  batch = {name: batch[name] for name in module.BATCH}

  @jax.jit
  def gradient(params, batch):
    return jax.grad(lambda params: jnp.square(module.Model(config).apply({"params": params}, batch)).mean())(params)

  alone = gradient(params, batch)
  shared = gradient(jax.device_put(params, places), jax.device_put(batch, sharding.batch_sharding(mesh)))
  assert len(jax.tree.leaves(shared)[0].sharding.device_set) == 8
  jax.tree.map(functools.partial(assert_close, tolerance=tolerance), shared, jax.tree.map(np.asarray, alone))
