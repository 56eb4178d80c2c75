"""Writes a trained run as one folder that others can open, without the package's work directory.

  python -m attention_zoo.export --workdir=runs/quickstart --to=phrasebook-en-de
  python -m attention_zoo.export --workdir=DIR --to=FOLDER --dtype=bfloat16          # half the size; int8: a quarter
  python -m attention_zoo.export --workdir=DIR --to=FOLDER --format=ctranslate2 --dtype=int8
  python -m attention_zoo.export --workdir=DIR --to=FOLDER --format=huggingface

--format=
  zoo            for `attention_zoo.load` and every command here: safetensors, vocabulary, config, a card, checksums
  safetensors    the parameters alone, and names.json with the shape, axes and type of each
  ctranslate2    CTranslate2's folder of a transformer (pip install ctranslate2), quantized with --dtype=int8
  huggingface    transformers' folder: MarianMT of a post-LN transformer, GPT-2 of a transformer_lm of that shape, BERT,
                 RoBERTa, XLNet
  stablehlo      scoring and decoding step by step of any model, for JAX without this package (jax.export)
"""

import importlib

from absl import flags

from attention_zoo import cli

MODULES = {
  "zoo": "folder", "safetensors": "plain", "ctranslate2": "ctranslate2", "huggingface": "huggingface",
  "stablehlo": "stablehlo",
}  # fmt: skip
WORKDIR = cli.define_workdir()
CHECKPOINT = cli.define_checkpoint()
TO = cli.define_path("to", "The folder to write; it must not exist.")
FORMAT = flags.DEFINE_enum("format", "zoo", [*MODULES], "Whose folder to write.")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "int8"], "How the parameters are stored.")


def main():
  from attention_zoo import api, files

  module = importlib.import_module(f"attention_zoo.exchange.{MODULES[FORMAT.value]}")
  files.check_new(TO.value)  # before a large run is read
  getattr(module, "check", lambda dtype: None)(DTYPE.value)
  run = api.load(WORKDIR.value, CHECKPOINT.value)
  module.write(run, TO.value, DTYPE.value)
  print(f"{WORKDIR.value}, checkpoint {run.checkpoint} (step {run.step}): written to {TO.value} for {FORMAT.value}")


if __name__ == "__main__":
  cli.run(main, required=("workdir", "to"))
