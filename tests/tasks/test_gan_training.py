"""Adversarial networks in training: interrupted against uninterrupted, one device against eight, bad sizes."""

import jax
import numpy as np
import pytest

from attention_zoo import tasks
from attention_zoo.configs.vision import sagan_markers
from attention_zoo.errors import UserError
from attention_zoo.training import loop, sharding
from tests.training import toy_task


def small(**train):
  config = sagan_markers.get_config()
  config.model.update(features=4, d_noise=4, attention_size=0)
  config.data.update(source="markers(train=16, dev=2, test=2)", size=8, num_classes=2, batch_size=8)
  config.decode.batch_size = 8
  config.train.update(log_every=1, eval_every=100, checkpoint_every=2, dev_samples=0)
  config.train.update(train)
  tasks.validate(config)
  return config


def trained(workdir, steps):
  config = small(steps=steps)
  return loop.train(tasks.make(config, workdir), config, workdir, quiet=True)


def test_interrupted_and_resumed_is_bit_identical(tmp_path):
  """Of the vectors of the power iteration too."""
  whole = trained(tmp_path / "whole", 4)
  trained(tmp_path / "parts", 2)
  parts = trained(tmp_path / "parts", 4)
  for of in ("params", "variables"):
    assert toy_task.digest(getattr(parts, of)) == toy_task.digest(getattr(whole, of)), of


def test_one_device_equals_eight(tmp_path):
  config = small()
  task = tasks.make(config, tmp_path)
  task.claim()
  initial = jax.device_get(jax.jit(task.init)(jax.random.key(0)))
  batch = next(iter(task.train_batches(0, (0,), 1)))

  def value(params, batch):
    loss = task.loss(params, initial.variables, {}, batch, jax.random.key(1), 0)
    return loss.value, (loss.sums, loss.variables)

  found = []
  for devices in (1, 8):
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:devices])
    with jax.set_mesh(mesh):
      step = jax.jit(jax.grad(value, has_aux=True))
      found.append(jax.device_get(step(initial.params, sharding.put_batch(batch, mesh))))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(np.abs(a).max(), 1)), *found)


def test_sizes_that_do_not_go_together_are_told(tmp_path, monkeypatch):
  task = tasks.make(small(), tmp_path)
  monkeypatch.setattr(type(task.model), "setup", lambda self: (_ for _ in ()).throw(ValueError("no such size")))
  with pytest.raises(UserError, match="config.model: no such size"):
    task.init(jax.random.key(0))
