"""Trains the model that a config file describes; run again with the same command, it resumes.

  python -m attention_zoo.train --config=configs/quickstart.py --workdir=runs/quickstart
  python -m attention_zoo.train --config=configs/multi30k_tiny.py --config.data.dir=DIR --workdir=runs/multi30k

Any field of the config can be set: --config.train.steps=2000 --config.model.dropout=0.2 ...
Several processes find each other under Slurm, Open MPI and on Cloud TPU; elsewhere start each with --coordinator,
--num_processes and --process_id.
Exit codes: 0 done; 2 a wrong flag, config or input, or no room to write; 3 stopped, the loss was not finite too often;
75 saved after SIGTERM or a preemption notice; 130 saved after Ctrl-C, 129 after a closed terminal;
each goes on when run again. A second Ctrl-C ends at once, without saving.
"""

from absl import flags, logging

from attention_zoo import cli

CONFIG = cli.define_config()
WORKDIR = cli.define_workdir()
COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "HOST:PORT of process 0, to join several processes that no launcher has started together."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --coordinator: how many there are.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "With --coordinator: which of them this is, from 0.", lower_bound=0
)
TRACKER = flags.DEFINE_multi_string(
  "tracker",
  [],
  "MODULE:FUNCTION called with (step, split, values) for every record, to send it elsewhere; may be repeated.",
)


def main():
  from attention_zoo import hardware, tasks
  from attention_zoo.training import distributed, loop, stopping, trackers

  tasks.validate(CONFIG.value)
  functions = [trackers.load(name) for name in TRACKER.value]
  with stopping.listen():
    distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    if CONFIG.value.model.get("matmul_dtype") == "bfloat16" and not hardware.multiplies_bfloat16():
      logging.warning(
        "this CPU has no units for bfloat16: --config.model.dtype=float32 --config.model.matmul_dtype=float32 is faster"
      )
    loop.train(tasks.make(CONFIG.value, WORKDIR.value), CONFIG.value, WORKDIR.value, trackers=functions)


if __name__ == "__main__":
  cli.run(main, required=("config", "workdir"))
