"""Averages checkpoints of a run, as the paper did (section 6.1): base the last 5, big the last 20.

  python -m attention_zoo.average --workdir=runs/quickstart --last=5
  python -m attention_zoo.average --workdir=runs/quickstart --steps=800,900,1000

Writes WORKDIR/average and prints the dev loss of the newest checkpoint and of the average.
"""

from absl import flags

from attention_zoo import cli

WORKDIR = cli.define_workdir()
LAST = flags.DEFINE_integer("last", 5, "Average this many of the newest checkpoints.", lower_bound=1)
DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the text lies now; the config's data.dir by default.")
STEPS = flags.DEFINE_list("steps", None, "Average the checkpoints of these steps instead.")


def main():
  from attention_zoo import api
  from attention_zoo.training.average import average

  steps = [cli.whole(step, "steps") for step in STEPS.value] if STEPS.value else None
  parents = average(WORKDIR.value, steps=steps, last=LAST.value)
  print(f"averaged steps {', '.join(map(str, parents))} into {WORKDIR.value}/average")
  for name in ("latest", "average"):
    run = api.load(WORKDIR.value, name, DATA_DIR.value)
    print(f"dev loss of {name:8s} {run.dev_loss():.4f} nats/{run.task.unit.removesuffix('s')}")


if __name__ == "__main__":
  cli.run(main)
