"""Averages checkpoints of a run, as the paper did (section 6.1): base the last 5, big the last 20.

  python -m attention_zoo.average --workdir=runs/quickstart --last=5
  python -m attention_zoo.average --workdir=runs/quickstart --steps=800,900,1000

Writes WORKDIR/average and prints the dev loss of the newest of them and of the average. Where the average is the worse,
or training goes on, whatever loads the run takes the newest checkpoint unless it is told otherwise.
"""

import sys

from absl import flags
from etils import epath

from attention_zoo import cli

WORKDIR = cli.define_workdir()
LAST = flags.DEFINE_integer("last", 5, "Average this many of the newest checkpoints.", lower_bound=1)
DATA_DIR = cli.define_path("data_dir", "Where the text lies now; the config's data.dir by default.")
STEPS = flags.DEFINE_list("steps", None, "Average the checkpoints of these steps instead.")


def main():
  from attention_zoo import tasks
  from attention_zoo.errors import UserError
  from attention_zoo.training import loading, untrusted
  from attention_zoo.training.average import average
  from attention_zoo.training.workdir import read_config, read_text

  def dev_loss(params, variables):
    try:
      return task.runner(params, variables, checkpoint="", step=0).dev_loss()
    except UserError as error:
      print(f"the dev loss cannot be computed: {error}", file=sys.stderr)

  config = read_config(WORKDIR.value)
  run = {"config": config.to_dict()} | read_text(WORKDIR.value)  # as it was written: without fields that came later
  tasks.validate(config)
  untrusted.check_digest(WORKDIR.value)  # but not its links: parts of a run may lie on other disks
  untrusted.check_ranges(config)
  if DATA_DIR.value is not None:
    config.data.dir = DATA_DIR.value
  task = tasks.make(config, WORKDIR.value)
  steps = [cli.whole(step, "steps") for step in STEPS.value] if STEPS.value else None
  steps = average(WORKDIR.value, steps=steps, last=LAST.value, run=run, dev_loss=dev_loss)
  directory = f"{WORKDIR.value}/average"
  print(f"averaged steps {', '.join(map(str, steps))} into {directory}")
  if loss := loading.read_record(epath.Path(directory)).get("dev_loss"):
    for name, value in ((f"step {steps[-1]}", loss["newest"]), ("the average", loss["average"])):
      print(f"dev loss of {name:12s} {value:.4f} nats/{task.unit.removesuffix('s')}")
    if not loss["average"] <= loss["newest"]:
      print("averaging made it worse: what is not told otherwise takes the newest checkpoint")


if __name__ == "__main__":
  cli.run(main)
