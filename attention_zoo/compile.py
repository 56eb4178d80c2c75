"""Compiles a config's training step for a TPU slice that is not there, or what is: does it fit, what does it send.

  pip install "jax[tpu]"        # brings libtpu, which needs no TPU to compile
  python -m attention_zoo.compile --config=configs/transformer_base.py --topology=v5e:2x4
  python -m attention_zoo.compile --config=configs/transformer_big.py --topology=v5e:16x16 \\
      --config.data.batch_tokens=65536
  python -m attention_zoo.compile --config=configs/transformer_base.py --topology=v5e:2x4 --num_slices=2 \\
      --config.mesh.replica=2
  python -m attention_zoo.compile --config=configs/transformer_big.py --topology=local     # this machine's GPUs

Prints HBM of a chip (parameters, optimizer, activations, peak), collectives with their bytes, arithmetic, and how
fast a step can be at best: bounds from published chip figures, not measurements. It needs no data: both sides of a
row count as config.data.row_length long. Exit code 1 when it does not fit, with the largest buffers. XLA compiles for
a GPU only where there is one: --topology=local, which knows memory and collectives but no speeds. It may take minutes:
what it is doing, since when, and about how long that takes stand on standard error.
"""

from absl import flags

from attention_zoo import cli
from attention_zoo.errors import UserError

CONFIG = cli.define_config()
TOPOLOGY = flags.DEFINE_string(
  "topology", None, "For example v5e:2x4, v5e:16x16, v5p:4x4x4, v6e:8x8; local: the devices here."
)
NUM_SLICES = flags.DEFINE_integer("num_slices", 1, "Slices joined by the data-centre network.", lower_bound=1)


def main():
  import jax

  from attention_zoo import progress, tasks
  from attention_zoo.training import aot, compilation

  compilation.leave_word_to_caller()
  config = CONFIG.value
  if TOPOLOGY.value == "local" and NUM_SLICES.value > 1:
    raise UserError("--num_slices is of a --topology that is not here: leave it out with --topology=local")
  tasks.validate(config)
  if TOPOLOGY.value == "local":
    devices, chip = aot.local_devices()
  else:
    jax.config.update("jax_platforms", "cpu")
    devices, kind = aot.topology_devices(TOPOLOGY.value, NUM_SLICES.value)
    chip = aot.CHIPS[kind]
  step = aot.compile_step(tasks.make(config, "."), config, devices, chip, progress.phase)
  found = aot.report(step, chip)
  print(progress.table(f"{NUM_SLICES.value} x {TOPOLOGY.value}, rules {config.mesh.rules}", aot.rows(found)))
  if found["fits"]:
    return 0
  print("does not fit; the largest buffers of one chip:")
  for name, size in aot.largest_buffers(step):
    print(f"  {size / 2**20:10,.1f} MiB  {name}")
  return 1


if __name__ == "__main__":
  cli.run(main, required=("config", "topology"))
