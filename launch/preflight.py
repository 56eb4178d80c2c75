"""What training would refuse, found before a machine is paid for: flags, config, model, mesh and batch.

  python -m launch.preflight DEVICES NUM_SLICES --config=FILE --workdir=DIR ...

`launch.cloud_tpu` starts it as a process of its own: it needs JAX, which a laptop that only launches may lack. It
computes nothing, opens no data, and touches no work directory. DEVICES: of all slices; 0 leaves mesh and batch out.
"""

import sys

from attention_zoo import cli, train
from attention_zoo.errors import UserError


def main():
  import jax

  from attention_zoo import tasks
  from attention_zoo.training import sharding, step
  from attention_zoo.training.optimizer import make_optimizer

  config = train.CONFIG.value
  tasks.validate(config)
  jax.config.update("jax_platforms", "cpu")
  task = tasks.make(config, ".")
  if not DEVICES:
    return
  if NUM_SLICES > 1 and config.mesh.replica != NUM_SLICES:
    raise UserError(f"config.mesh.replica must be {NUM_SLICES}, the number of slices, not {config.mesh.replica}")
  jax.config.update("jax_num_cpu_devices", DEVICES)
  mesh = sharding.make_mesh(config.mesh, jax.devices())
  for name, shape in task.batch_shapes().items():
    sharding.check_rows(name, shape.shape, mesh, config.train.accumulate)
  step.abstract_state(task, make_optimizer(config.optimizer), config, mesh)


if __name__ == "__main__":
  DEVICES, NUM_SLICES = map(int, sys.argv[1:3])
  del sys.argv[1:3]
  cli.run(main, required=("config", "workdir"))
