"""Perplexity, BLEU and chrF of a run on a split, printed as a table and kept in WORKDIR/eval/.

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
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "average, latest or a step; default: average unless the latest is newer or better.")
SPLIT = flags.DEFINE_string("split", "test", "train, dev, test, or the name of a split of the data.")
DATA_DIR = cli.define_path("data_dir", "Where the text lies now, or other test sets; default: the config's data.dir.")
BEAM_SIZE = flags.DEFINE_integer("beam_size", None, "The config's by default; 1 is greedy.", lower_bound=1)
ALPHA = flags.DEFINE_float("alpha", None, "Exponent of the length penalty; the config's by default.")
REPORT = flags.DEFINE_boolean("report", False, "Also write WORKDIR/report.html: curve, scores, samples, attention maps.")


def main():
  from attention_zoo import api, files, progress, streams
  from attention_zoo.errors import UserError
  from attention_zoo.tasks.report import translation_report
  from attention_zoo.tasks.translation_scores import table_rows

  run = api.load(WORKDIR.value, CHECKPOINT.value, DATA_DIR.value)
  given = {"beam_size": BEAM_SIZE.value, "alpha": ALPHA.value}
  decode = {name: run.config.decode[name] if value is None else value for name, value in given.items()}
  # What differs from the config has a file of its own.
  other = "".join(f"-{name}_{value}" for name, value in decode.items() if value != run.config.decode[name])
  if DATA_DIR.value:
    other += "-" + DATA_DIR.value.strip("/").replace("/", "_")
  path = f"{WORKDIR.value}/eval/{SPLIT.value}-{run.checkpoint}{other}.json"
  written = [path, f"{WORKDIR.value}/report.html"][: 1 + REPORT.value]
  for name in written:
    streams.check_output(name)
  with progress.bar("decoding") as report:
    result = run.evaluate(SPLIT.value, **given, report=report)
  record = {"checkpoint": run.checkpoint, "step": run.step, "parents": run.parents, "split": SPLIT.value} | decode | result
  files.write_text(path, json.dumps(record, indent=1, ensure_ascii=False))
  if REPORT.value:
    command = shlex.join(["python", "-m", "attention_zoo.evaluate", *sys.argv[1:]])
    files.write_text(written[1], translation_report(run, result, command=command))
  steps = ", ".join(map(str, run.parents))
  title = f"{SPLIT.value}, checkpoint {run.checkpoint} ({steps}), {len(result['sources'])} sentences"
  try:
    streams.write_lines([*progress.table(title, table_rows(result)).splitlines(), f"written to {' and '.join(written)}"])
  except UserError as error:
    raise UserError(f"{error}; the result is in {path}") from error


if __name__ == "__main__":
  cli.run(main)
