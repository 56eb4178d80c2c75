"""Translates a file, or standard input, one sentence a line. Text is UTF-8; names that end with .gz mean zipped files.

  echo "The concert takes place in Moscow in May 2033." | python -m attention_zoo.translate --workdir=runs/quickstart
  python -m attention_zoo.translate --workdir=DIR --input=news.en.gz --output=news.de --beam_size=4 --alpha=0.6
  python -m attention_zoo.translate --workdir=DIR --input=news.en --n_best=4   # LINE ||| TRANSLATION ||| SCORE
  python -m attention_zoo.translate --workdir=A,B --input=news.en              # an ensemble of runs with one vocabulary
  python -m attention_zoo.translate --workdir=DIR --input=news.jsonl --field=text --output=out.jsonl --json --n_best=4

Every line in gives a line out, in order; an empty line gives an empty line. JSON lines come in as objects with the
sentence under --field ("source" by default), and --json gives them back with `translations`, each with text,
score, logprob, tokens and alignment (for each token the index of the source token that it looked at most; an
ensemble's first run looks).

--prefixes names a file with a line for each line, with which its translations begin. --force_words names one with words
or phrases between tabs that they hold; where they find no room, a warning says so, and --json gives them as `missing`.
"""

from absl import flags

from attention_zoo import cli

WORKDIR = cli.define_workdir()
CHECKPOINT = cli.define_checkpoint()
INPUT = cli.define_path("input", "File to translate; standard input by default.")
FIELD = flags.DEFINE_string("field", None, "The input is JSON lines with the sentence in this field (.jsonl: source).")
OUTPUT = cli.define_path("output", "Where to write; standard output by default.")
JSON = flags.DEFINE_boolean("json", False, "Write JSON lines with scores, tokens and alignments.")
BEAM_SIZE = flags.DEFINE_integer("beam_size", None, "The config's by default; 1 is greedy.", lower_bound=1)
ALPHA = flags.DEFINE_float("alpha", None, "Exponent of the length penalty; the config's by default.")
PREFIXES = cli.define_path("prefixes", "File with the beginning of each translation, one a line, empty for none.")
FORCE_WORDS = cli.define_path("force_words", "File with words that each translation holds, a line each, tabs between.")
N_BEST = flags.DEFINE_integer("n_best", 1, "Print this many translations a line, best first.", lower_bound=1)


def main():
  from attention_zoo import api, progress, streams
  from attention_zoo.tasks import translation_lines

  streams.check_output(OUTPUT.value)
  records, field = streams.read_records(INPUT.value, FIELD.value), FIELD.value or "source"
  prefixes = streams.read_lines(PREFIXES.value) if PREFIXES.value else None
  words = [w.split("\t") if w else [] for w in streams.read_lines(FORCE_WORDS.value)] if FORCE_WORDS.value else None
  runs = [api.load(path, CHECKPOINT.value) for path in cli.paths(WORKDIR.value)]
  run = runs[0] if len(runs) == 1 else api.ensemble(runs)
  with progress.bar("translating") as report:
    found = run.hypotheses(
      [record[field] for record in records], beam_size=BEAM_SIZE.value, alpha=ALPHA.value, n_best=N_BEST.value,
      prefixes=prefixes, force_words=words, report=report,
    )  # fmt: skip
  if JSON.value:
    lines = translation_lines.json_lines(run, records, field, found)
  elif N_BEST.value == 1:
    lines = translation_lines.best(found)
  else:
    lines = translation_lines.n_best(found)
  streams.write_lines(lines, OUTPUT.value)


if __name__ == "__main__":
  cli.run(main)
