"""How good a run is on a split, printed as a table and kept in WORKDIR/eval/: for translation perplexity, BLEU and chrF.

  python -m attention_zoo.evaluate --workdir=runs/quickstart --checkpoint=average --split=test

BLEU is given in three dialects, each with its signature: on the same output they can differ by a point or more. Words are cut
as sacreBLEU does it for the target language (config.data.languages).
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
BEAM_SIZE = flags.DEFINE_integer("beam_size", None, "The config's by default; 1 is greedy.", lower_bound=1)
ALPHA = flags.DEFINE_float("alpha", None, "Exponent of the length penalty; the config's by default.")
REPORT = flags.DEFINE_boolean("report", False, "Also write WORKDIR/report.html: curve, scores, samples, attention maps.")


def main():
  from attention_zoo import api, files, progress, streams
  from attention_zoo.errors import UserError

  run = api.load(WORKDIR.value, CHECKPOINT.value, DATA_DIR.value)
  given = {"beam_size": BEAM_SIZE.value, "alpha": ALPHA.value}
  given = {name: value for name, value in given.items() if value is not None}
  if unknown := [name for name in given if name not in run.config.decode]:
    raise UserError(f"--{unknown[0]}: the task {run.config.task!r} has no such option")
  # What differs from the config has a file of its own.
  other = "".join(f"-{name}_{value}" for name, value in given.items() if value != run.config.decode[name])
  if DATA_DIR.value:
    other += "-" + DATA_DIR.value.strip("/").replace("/", "_")
  path = f"{WORKDIR.value}/eval/{SPLIT.value}-{run.checkpoint}{other}.json"
  written = [path, f"{WORKDIR.value}/report.html"][: 1 + REPORT.value]
  for name in written:
    streams.check_output(name)
  with progress.bar("decoding") as report:
    result = run.evaluate(SPLIT.value, **given, report=report)
  taken = {"checkpoint": run.checkpoint, "step": run.step, "parents": run.parents, "split": SPLIT.value}
  record = taken | run.config.decode.to_dict() | given | result.record
  files.write_text(path, json.dumps(record, indent=1, ensure_ascii=False))
  if REPORT.value:
    command = shlex.join(["python", "-m", "attention_zoo.evaluate", *sys.argv[1:]])
    files.write_text(written[1], run.page(result, command))
  title = f"{SPLIT.value}, checkpoint {run.checkpoint} ({', '.join(map(str, run.parents))})"
  table = [(s.name, f"{s.value:.2f}" if s.signature else f"{s.value:.4f}", s.signature) for s in result.scores]
  try:
    streams.write_lines([*progress.table(title, table).splitlines(), f"written to {' and '.join(written)}"])
  except UserError as error:
    raise UserError(f"{error}; the result is in {path}") from error


if __name__ == "__main__":
  cli.run(main)
