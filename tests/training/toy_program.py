"""Trains the toy task as a program, so that it can be killed: python toy_program.py --workdir=DIR
[--train.steps=20 ...]

--devices=N: simulated devices. --kill=STEP:SIGNAL: the process sends itself a signal when it fetches that
batch. --presses=N: that often, with a slow batch behind. --process=0|1 --port=P: one of two processes.
--interleaved=1: their devices take turns, as on a torus of TPUs. --limit=BYTES: no file may grow larger.
Prints a digest of the final parameters; exits as the entry points do.
"""

import functools
import itertools
import os
import pathlib
import resource
import signal
import sys


def main():
  # As tests/conftest.py has it, before JAX is imported: quick compiles, strict broadcasting.
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
  os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
  sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
  import jax
  import toy_task

  from attention_zoo import cli
  from attention_zoo.training import distributed, sharding
  from attention_zoo.training.loop import train

  flags = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
  workdir = flags.pop("workdir")
  process = flags.pop("process", None)
  port = flags.pop("port", None)
  kill, presses = flags.pop("kill", None), int(flags.pop("presses", "1"))
  devices = flags.pop("devices", "1")
  jax.config.update("jax_num_cpu_devices", int(devices))
  if "limit" in flags:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(flags.pop("limit")),) * 2)
  if process is not None:
    distributed.initialize(f"localhost:{port}", 2, int(process), timeout=240, heartbeat=20)
  if "interleaved" in flags:
    del flags["interleaved"]
    devices = list(itertools.chain(*zip(*(jax.devices()[i : i + 4] for i in (0, 4)), strict=True)))
    sharding.make_mesh = functools.partial(sharding.make_mesh, devices=devices)
  changes = {name: value if name == "mesh.rules" else int(value) for name, value in flags.items()}
  config = toy_task.make_config(**changes)
  task = toy_task.Killer(config)
  if kill:
    step, name = kill.split(":")
    task.kill_at, task.kill_with, task.presses = int(step), getattr(signal, name), presses
  state = cli.guard(lambda: train(task, config, workdir))
  leaves = jax.tree.map(lambda x: x.addressable_data(0), state.params)
  print(f"digest {toy_task.digest(leaves)}")


if __name__ == "__main__":
  main()
