"""The lecture's table of model sizes, from the first Transformer to Megatron-LM, with the zoo's own counts; and what
each position sees in ELMo, GPT and BERT, drawn side by side.

  python -m attention_zoo.sizes
  python -m attention_zoo.sizes --figure=figure.svg

In Python the table is attention_zoo.sizes(): this file is run, never imported.
"""

from attention_zoo import cli

FIGURE = cli.define_path("figure", "Where to write the figure (.svg); none by default.")


def main():
  from attention_zoo import api, streams
  from attention_zoo.tasks import sizes

  if FIGURE.value:
    streams.check_output(FIGURE.value)
  print(api.sizes())
  if FIGURE.value:
    streams.write_text(sizes.comparison(), FIGURE.value)
    print(f"written to {FIGURE.value}")


if __name__ == "__main__":
  cli.run(main, required=())
