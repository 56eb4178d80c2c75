"""Trains the model that a config file describes; run again with the same command, it resumes.

  python -m attention_zoo.train --config=configs/quickstart.py --workdir=runs/quickstart
  python -m attention_zoo.train --config=configs/multi30k_tiny.py --config.data.dir=DIR --workdir=runs/multi30k

Any field of the config can be set: --config.train.steps=2000 --config.model.dropout=0.2 ...
Exit codes: 0 done; 2 a wrong flag, config or input; 3 stopped, the loss was not finite too often; 75 saved
after SIGTERM or a preemption notice, run again to go on.
"""

from attention_zoo import cli

CONFIG = cli.define_config()
WORKDIR = cli.define_workdir()


def main():
  from attention_zoo import tasks
  from attention_zoo.training import config, distributed, loop

  config.validate(CONFIG.value)
  distributed.initialize()
  loop.train(tasks.make(CONFIG.value, WORKDIR.value), CONFIG.value, WORKDIR.value)


if __name__ == "__main__":
  cli.run(main, required=("config", "workdir"))
