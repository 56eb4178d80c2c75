"""Samples from a trained language model: what could follow a prompt.

  python -m attention_zoo.sample --workdir=runs/shakespeare --prompt="ROMEO:" --max_tokens=300 --temperature=0.8
  python -m attention_zoo.sample --workdir=DIR --num_samples=3 --top_p=0.9 --seed=7
  python -m attention_zoo.sample --workdir=DIR --input=prompts.txt --output=samples.txt       # a prompt a line

On a terminal a single sample appears as it is drawn. Several are told apart by a line of dashes. The same seed gives
the same samples.
"""

import sys

from absl import flags

from attention_zoo import cli

WORKDIR = cli.define_workdir()
CHECKPOINT = cli.define_checkpoint()
PROMPT = flags.DEFINE_string("prompt", None, "What the samples begin with; nothing by default. \\n is a line end.")
INPUT = flags.DEFINE_string("input", None, "File of prompts, one a line, instead of --prompt.")
OUTPUT = flags.DEFINE_string("output", None, "Where to write; standard output by default.")
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1, "Of each prompt.", lower_bound=1)
flags.DEFINE_integer("max_tokens", None, "Of a sample; the config's by default.", lower_bound=1)
flags.DEFINE_float("temperature", None, "0 always takes the most probable token; below 1 is bolder.")
flags.DEFINE_integer("top_k", None, "Draw from the k most probable tokens only; 0: from all.")
flags.DEFINE_float("top_p", None, "Draw from the most probable tokens that together have this probability.")
flags.DEFINE_float("min_p", None, "Draw from tokens with at least this part of the largest probability.")
flags.DEFINE_float("repetition_penalty", None, "Above 1: tokens that were there are less probable.")
flags.DEFINE_multi_string("stop", [], "A text that ends a sample; may be given several times.")
flags.DEFINE_integer("seed", 0, "Sample i is drawn with seed + i.", lower_bound=0)


def main():
  from attention_zoo import api, streams
  from attention_zoo.errors import UserError

  if PROMPT.value is not None and INPUT.value is not None:
    raise UserError("--prompt and --input exclude each other")
  prompts = [(PROMPT.value or "").replace("\\n", "\n")] if INPUT.value is None else streams.read_lines(INPUT.value)
  streams.check_output(OUTPUT.value)
  run = api.load(WORKDIR.value, CHECKPOINT.value)
  if not hasattr(run, "sample"):
    raise UserError(f"{WORKDIR.value} is a run of the task {run.config.task!r}, which has nothing to sample")
  names = "num_samples max_tokens temperature top_k top_p min_p repetition_penalty stop seed".split()
  options = {name: flags.FLAGS[name].value for name in names}
  if not OUTPUT.value and len(prompts) == NUM_SAMPLES.value == 1 and sys.stdout.isatty():
    screen = streams.Typed(prompts[0])
    return screen.end(run.sample(prompts[0], **options, watch=lambda texts: screen.show(texts[0]))[0].text)
  texts = [prompt + sample.text for prompt in prompts for sample in run.sample(prompt, **options)]
  streams.write_text(f"\n{'-' * 40}\n".join(texts) + "\n", OUTPUT.value)


if __name__ == "__main__":
  cli.run(main)
