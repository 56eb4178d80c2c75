"""One run that moves from 8 devices to 4, to 1 and back to 8, on packed data."""

import functools
import hashlib

import jax
import numpy as np
import pytest

from attention_zoo import tasks
from attention_zoo.training import checkpoints, loading, loop, sharding
from tests.small_run import small_config


def train(workdir, number_files, steps, devices=8, **mesh):
  """Trains on to `steps` on the first devices; returns {step: digest of its whole batch}."""
  config = small_config(number_files)
  config.train.update(steps=steps, checkpoint_every=6, eval_every=100)
  config.model.update(dropout=0.1, matmul_dtype="float32")
  config.optimizer.learning_rate = 0.1
  config.mesh.update(mesh)
  digests = []
  put_batch = sharding.put_batch

  def recorded(batch, mesh, *args):
    if args:  # Training says in how many parts to accumulate; evaluation does not.
      digests.append(hashlib.sha256(b"".join(batch[name].tobytes() for name in sorted(batch))).hexdigest())
    return put_batch(batch, mesh, *args)

  start = max(checkpoints.steps(workdir), default=0)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:devices])
    )
    patch.setattr(sharding, "put_batch", recorded)
    loop.train(tasks.make(config, workdir), config, workdir, quiet=True)
  return dict(enumerate(digests, start))


@pytest.mark.slow
def test_8_to_4_to_1_to_8_devices(number_files, tmp_path):
  want = train(tmp_path / "still", number_files, 24)
  got = train(tmp_path / "moved", number_files, 6)
  got |= train(tmp_path / "moved", number_files, 12, devices=4, rules="fsdp", fsdp=2)
  got |= train(tmp_path / "moved", number_files, 18, devices=1)
  got |= train(tmp_path / "moved", number_files, 24, rules="fsdp+tensor_parallel", fsdp=2, tensor=2)
  assert sorted(got) == list(range(24)) and got == want
  # Only the order of sums differs, which Adam's division by small second moments magnifies.
  params = [loading.load_params(tmp_path / name, 24) for name in ("moved", "still")]
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-6), *params)
