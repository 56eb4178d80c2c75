"""One page on which several models of music continue the same motif: piano rolls and players, no other files.

  python -m attention_zoo.compare --workdirs=runs/lstm,runs/transformer,runs/music --prime=motif.mid --output=page.html
  python -m attention_zoo.compare --workdirs=A,B --prime=motif.mid --seconds=20 --seed=3 --output=page.html
"""

import sys

from absl import flags

from attention_zoo import cli

WORKDIRS = flags.DEFINE_string("workdirs", None, "The runs, with commas between them.")
PRIME = cli.define_path("prime", "The MIDI file that is continued.")
SECONDS = flags.DEFINE_float("seconds", 20.0, "How long what each adds lasts at most.", lower_bound=0.1)
OUTPUT = cli.define_path("output", "Where to write the page, an HTML file.")
cli.define_sampling()


def main():
  from attention_zoo import api, streams
  from attention_zoo.errors import UserError
  from attention_zoo.tasks.musician import comparison

  streams.check_output(OUTPUT.value)
  options = cli.sampling()
  if options.pop("stop") or options.pop("num_samples") != 1:
    raise UserError("compare takes neither --stop nor --num_samples: one continuation of each model")
  command = " ".join(["python -m attention_zoo.compare", *sys.argv[1:]])
  runs = [api.load(workdir) for workdir in cli.paths(WORKDIRS.value)]
  streams.write_text(comparison(runs, PRIME.value, command, seconds=SECONDS.value, **options), OUTPUT.value)


if __name__ == "__main__":
  cli.run(main, required=("workdirs", "prime", "output"))
