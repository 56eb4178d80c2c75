"""Products that are split over eight devices give the loss and the gradients of one (Megatron-LM)."""

import jax
import numpy as np
import pytest

from attention_zoo.training import sharding
from tests import config_files
from tests.configs.test_configs import random_batch

SIZES = dict(
  d_model=16, d_ff=32, num_heads=8, d_k=4, d_v=4, num_layers=2, max_length=16, memory=8, dropout=0.0,
  attention_dropout=0.0, dtype="float32", matmul_dtype="float32", vocab_size=64, row_length=16, batch_tokens=64,
)  # fmt: skip


@pytest.mark.parametrize("name", ["language/megatron_8_3b", "pretraining/bert_base", "pretraining/xlnet_large"])
def test_eight_ways_are_one(name):
  config = config_files.get_config(name)
  for group in (config.model, config.data):
    group.update({field: size for field, size in SIZES.items() if field in group})
  config.mesh.update(rules="tensor_parallel", tensor=8, data=1)
  task = config_files.make_task(config)
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(task.init, jax.random.key(0)).params
  params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
  batch = random_batch(task)
  rows = len(batch["inputs"])

  def loss(params, batch):
    found = task.loss(params, {}, task.carry(rows), batch, None, None)
    return found.value / found.weight

  wanted = jax.jit(jax.value_and_grad(loss))(params, batch)
  mesh = sharding.make_mesh(config.mesh)
  places = sharding.shardings(sharding.rules_of(config.mesh), shapes, mesh)
  assert any("tensor" in place.spec for place in jax.tree.leaves(places))
  with jax.set_mesh(mesh):
    placed = jax.device_put((params, batch), (places, sharding.batch_sharding(mesh)))
    found = jax.jit(jax.value_and_grad(loss))(*placed)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), found, wanted)
