"""Samples from a trained model: what could follow a prompt or a motif, images, the rest of an image.

  python -m attention_zoo.sample --workdir=runs/shakespeare --prompt="ROMEO:" --max_tokens=300 --temperature=0.8
  python -m attention_zoo.sample --workdir=DIR --num_samples=3 --top_p=0.9 --seed=7
  python -m attention_zoo.sample --workdir=DIR --input=prompts.txt --output=samples.txt       # a prompt a line
  python -m attention_zoo.sample --workdir=DIR --prime=motif.mid --seconds=30 --output=out.mid  # music; and .png, .wav
  python -m attention_zoo.sample --workdir=DIR --label=circle --num_samples=16 --output=grid.png          # images
  python -m attention_zoo.sample --workdir=DIR --image=it.png --rows=16 [--label=circle] --output=grid.png   # the rest

On a terminal a single sample appears as it is drawn. Several are told apart by a line of dashes. The same seed gives
the same samples. With --image a model of super-resolution enlarges it. A model that is told classes needs the label.
"""

import sys

from absl import flags

from attention_zoo import cli

WORKDIR = cli.define_workdir()
CHECKPOINT = cli.define_checkpoint()
PROMPT = flags.DEFINE_string("prompt", None, "What the samples begin with; nothing by default. \\n is a line end.")
INPUT = flags.DEFINE_string("input", None, "File of prompts, one a line, instead of --prompt.")
cli.define_path("prime", "Of a model of music: the MIDI file that is continued; nothing by default.")
flags.DEFINE_float("seconds", None, "Of music: how long what is added lasts at most.", lower_bound=0.1)
flags.DEFINE_string("label", None, "Of images: the class; by default each in turn.")
cli.define_path("image", "Of images: the file that is completed, or enlarged.")
flags.DEFINE_integer("rows", None, "Of --image: its upper rows that stay; half of them by default.", lower_bound=0)
OUTPUT = flags.DEFINE_string("output", None, "Where to write; standard output by default.")
cli.define_sampling()


def main():
  from attention_zoo import api, streams
  from attention_zoo.errors import UserError

  if PROMPT.value is not None and INPUT.value is not None:
    raise UserError("--prompt and --input exclude each other")
  prompts = [(PROMPT.value or "").replace("\\n", "\n")] if INPUT.value is None else streams.read_lines(INPUT.value)
  streams.check_output(OUTPUT.value)
  run, options = api.load(WORKDIR.value, CHECKPOINT.value), cli.sampling()
  if not hasattr(run, "sample"):
    verbs = ", ".join(f"run.{name}" for name in dir(run))
    raise UserError(f"{WORKDIR.value}: the task {run.config.task!r} has nothing to sample; zoo.load gives {verbs}")
  special = cli.given(("prime", "seconds", "label", "image", "rows"), getattr(run, "SAMPLE_OPTIONS", ()), run)
  if hasattr(run, "save_samples"):
    if PROMPT.value or INPUT.value or options.pop("stop"):
      raise UserError(f"--prompt, --input and --stop are for text: see --help for the task {run.config.task!r}")
    run.save_samples(OUTPUT.value, **special, **options)
    return
  if not OUTPUT.value and len(prompts) == options["num_samples"] == 1 and sys.stdout.isatty():
    screen = streams.Typed(prompts[0])
    screen.end(run.sample(prompts[0], **options, watch=lambda texts: screen.show(texts[0]))[0].text)
    return
  texts = [prompt + sample.text for prompt in prompts for sample in run.sample(prompt, **options)]
  streams.write_text(f"\n{'-' * 40}\n".join(texts) + "\n", OUTPUT.value)


if __name__ == "__main__":
  cli.run(main)
