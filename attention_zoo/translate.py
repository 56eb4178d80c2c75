"""Translates a file, or standard input, one sentence a line.

  echo "The concert takes place in Moscow in May 2033." | python -m attention_zoo.translate --workdir=runs/quickstart
  python -m attention_zoo.translate --workdir=DIR --input=news.en --output=news.de --beam_size=4 --alpha=0.6
  python -m attention_zoo.translate --workdir=DIR --input=news.en --n_best=4      # LINE ||| TRANSLATION ||| SCORE

Every line in gives a line out, in order; an empty line gives an empty line.
"""

import sys

from absl import flags

from attention_zoo import cli

WORKDIR = cli.define_workdir()
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "average, latest or a step; default: average unless the latest is newer or better.")
INPUT = flags.DEFINE_string("input", None, "File to translate; standard input by default.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write; standard output by default.")
BEAM_SIZE = flags.DEFINE_integer("beam_size", None, "The config's by default; 1 is greedy.", lower_bound=1)
ALPHA = flags.DEFINE_float("alpha", None, "Exponent of the length penalty; the config's by default.")
N_BEST = flags.DEFINE_integer("n_best", 1, "Print this many translations a line, best first.", lower_bound=1)


def main():
  from attention_zoo import api, progress

  lines = cli.read_lines(INPUT.value)
  run = api.load(WORKDIR.value, CHECKPOINT.value)
  for number in run.too_long(lines):
    print(f"line {number + 1} is longer than {run.config.data.max_length} pieces and cut there", file=sys.stderr)
  with progress.bar("translating", total=len(lines)) as report:
    found = run.hypotheses(
      lines, beam_size=BEAM_SIZE.value, alpha=ALPHA.value, n_best=N_BEST.value, report=report
    )  # fmt: skip
  if N_BEST.value == 1:
    out = [hypotheses[0].text for hypotheses in found]
  else:
    out = [f"{i} ||| {h.text} ||| {h.score:.4f}" for i, hypotheses in enumerate(found) for h in hypotheses]
  cli.write_lines(out, OUTPUT.value)


if __name__ == "__main__":
  cli.run(main)
