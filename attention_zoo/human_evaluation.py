"""The published human evaluation of super-resolution: how often people took an enlarged image for the real photograph.

  python -m attention_zoo.human_evaluation                                   # the table
  python -m attention_zoo.human_evaluation --workdirs=runs/a,runs/b          # with PSNR and SSIM of these runs beside
  python -m attention_zoo.human_evaluation --workdirs=runs/a,runs/b --page=page.html --trials=20 --seconds=3

The page repeats the evaluation with images of the runs' dev splits: it shows a real and an enlarged one beside each
other for a few seconds, asks which is real, and counts. It needs no network and sends nothing; answers can be saved.
"""

import sys

from absl import flags

from attention_zoo import cli

WORKDIRS = flags.DEFINE_string("workdirs", None, "Runs of super-resolution, with commas between them.")
PAGE = cli.define_path("page", "Where to write the page, an HTML file; none by default.")
TRIALS = flags.DEFINE_integer("trials", 20, "Of the page: pairs of each run.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 3.0, "Of the page: for how long a pair is seen.", lower_bound=0.1)
SEED = flags.DEFINE_integer("seed", 0, "Of the page: of the order and the places of its images.", lower_bound=0)


def main():
  from attention_zoo import api, progress, streams
  from attention_zoo.errors import UserError
  from attention_zoo.tasks import human

  if PAGE.value:
    if not WORKDIRS.value:
      raise UserError("--page shows the images of runs: it needs --workdirs=A,B")
    streams.check_output(PAGE.value)
  runs = [api.load(workdir) for workdir in cli.paths(WORKDIRS.value)] if WORKDIRS.value else []
  if PAGE.value:
    human.checked_trials(runs, TRIALS.value)
  print(progress.table(human.TITLE, human.table(runs)))
  if PAGE.value:
    command = " ".join(["python -m attention_zoo.human_evaluation", *sys.argv[1:]])
    options = dict(trials=TRIALS.value, seconds=SECONDS.value, seed=SEED.value)
    streams.write_text(human.page(runs, command=command, **options), PAGE.value)
    print(f"written to {PAGE.value}")


if __name__ == "__main__":
  cli.run(main, required=())
