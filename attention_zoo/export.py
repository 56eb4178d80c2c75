"""Writes a trained run as one folder that others can open, without the package's work directory.

  python -m attention_zoo.export --workdir=runs/quickstart --to=phrasebook-en-de
  python -m attention_zoo.export --workdir=DIR --to=FOLDER --dtype=bfloat16       # half the size; int8: a quarter

--format=zoo (default): for `attention_zoo.load` and every command here, with a card and checksums.
"""

from absl import flags

from attention_zoo import cli

WORKDIR = cli.define_workdir()
CHECKPOINT = cli.define_checkpoint()
TO = cli.define_path("to", "The folder to write; it must not exist.")
FORMAT = flags.DEFINE_enum("format", "zoo", ["zoo"], "What to write.")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "int8"], "How the parameters are stored.")


def main():
  from attention_zoo import api
  from attention_zoo.exchange import folder

  run = api.load(WORKDIR.value, CHECKPOINT.value)
  about = folder.write(run, TO.value, DTYPE.value)
  print(f"{about['parameters']:,} parameters of {WORKDIR.value}, checkpoint {run.checkpoint}: written to {TO.value}")


if __name__ == "__main__":
  cli.run(main, required=("workdir", "to"))
