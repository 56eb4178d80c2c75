"""How good a run is on a split: its task's scores,
printed as a table and kept with what they were computed from in WORKDIR/eval/.

  python -m attention_zoo.evaluate --workdir=runs/quickstart --checkpoint=average --split=test
  python -m attention_zoo.evaluate --workdir=runs/quickstart --decode.beam_size=1 --report

A score that can be computed in several ways has its signature beside it. --decode.NAME=VALUE puts another value in the
place of config.decode.NAME; the result then has a file of its own. With --report comes a page, WORKDIR/report.html,
when the table and the JSON are out: where it cannot be made, they stand, and the exit code is 2.
"""

import json
import shlex
import sys

from absl import flags

from attention_zoo import cli

WORKDIR = cli.define_workdir()
CHECKPOINT = cli.define_checkpoint()
SPLIT = flags.DEFINE_string("split", "test", "train, dev, test, or the name of a split of the data.")
DATA_DIR = cli.define_path("data_dir", "Where the text lies now, or other test sets; default: the config's data.dir.")
DECODE = cli.define_fields("decode", "--decode.NAME=VALUE overrides config.decode.NAME of the run; may be repeated.")
REPORT = flags.DEFINE_boolean("report", False, "Also write WORKDIR/report.html: scores, curves, samples, attention.")


def main():
  from attention_zoo import api, files, progress, streams, tasks
  from attention_zoo.errors import UserError
  from attention_zoo.training import arrays

  run = api.load(WORKDIR.value, CHECKPOINT.value, DATA_DIR.value)
  changed = tasks.set_fields(run.config, "decode", DECODE.value)
  # What differs from the config has a file of its own.
  other = "".join(f"-{name}_{value}" for name, value in changed.items())
  other += f"-{DATA_DIR.value.strip('/')}" if DATA_DIR.value else ""
  path = f"{WORKDIR.value}/eval/{SPLIT.value}-{run.checkpoint}{other.replace('/', '_')}.json"
  page = f"{WORKDIR.value}/report.html"
  for name in [path, page][: 1 + REPORT.value]:
    streams.check_output(name)
  with progress.bar("evaluating") as report:
    result = run.evaluate(SPLIT.value, report=report)
  record = {"checkpoint": run.checkpoint, "step": run.step, "parents": run.parents, "split": SPLIT.value}
  record |= {"parameters": arrays.digest(run.params, run.variables)} | run.config.decode.to_dict() | result.record
  files.write_text(path, json.dumps(record, indent=1, ensure_ascii=False))
  title = f"{SPLIT.value}, checkpoint {run.checkpoint} ({', '.join(map(str, run.parents))})"
  table = progress.table(title, [(score.name, score.shown, score.signature) for score in result.scores])
  try:
    streams.write_lines([*table.splitlines(), f"written to {path}"])
  except UserError as error:
    raise UserError(f"{error}; the result is in {path}") from error
  if REPORT.value:
    command = shlex.join(["python", "-m", "attention_zoo.evaluate", *sys.argv[1:]])
    files.write_text(page, run.page(result, command))
    streams.write_lines([f"written to {page}"])


if __name__ == "__main__":
  cli.run(main)
