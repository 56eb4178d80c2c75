"""Makes a model of transformers one of this package: MarianMT (OPUS-MT's models), GPT-2, BERT, RoBERTa and XLNet.

  python -m attention_zoo.import_model --from=opus-mt-en-de --workdir=runs/opus-mt-en-de
  echo "Good morning." | python -m attention_zoo.translate --workdir=runs/opus-mt-en-de

--from is a folder: config.json, model.safetensors (or its parts and their index) and the vocabulary (source.spm,
target.spm and vocab.json; vocab.json and merges.txt, vocab.txt, spiece.model, or tokenizer.json); in Hugging Face's
cache that is ~/.cache/huggingface/hub/models--NAME/snapshots/REVISION. The result is a folder as
`python -m attention_zoo.export` writes it: `attention_zoo.load` and all commands open it, export makes other formats of
it, and config.train.init_from takes it. Tasks on encoders take its vocabulary too; others after its tokenizer.model was
copied into the new workdir.

Not read: pickles (pytorch_model.bin, fairseq's .pt), which can run any program when they are opened, and TensorFlow's
checkpoints (tensor2tensor), which need TensorFlow. Make safetensors of them with the framework they are from:

  python -c 'import transformers as t; t.AutoModelForSeq2SeqLM.from_pretrained("FOLDER").save_pretrained("NEW")'
"""

import pathlib
import tempfile

from absl import flags

from attention_zoo import cli

FROM = cli.define_path("from", "The folder of transformers.")
WORKDIR = cli.define_path("workdir", "The folder to write; it must not exist.")
LANGUAGES = flags.DEFINE_list("languages", None, "SOURCE,TARGET, where tokenizer_config.json does not say them.")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "int8"], "How the parameters are stored.")


def main():
  from attention_zoo import api, files, tasks
  from attention_zoo.errors import UserError
  from attention_zoo.exchange import folder, importing
  from attention_zoo.training import untrusted
  from attention_zoo.training.workdir import read_config

  files.check_new(WORKDIR.value)  # before a large model is read
  languages = tuple(LANGUAGES.value or ())
  if languages and (len(languages) != 2 or languages[0] == languages[1]):
    raise UserError("--languages must be two that differ: --languages=en,de")
  found = importing.read(FROM.value, languages)
  with tempfile.TemporaryDirectory() as directory:
    importing.stage(found, pathlib.Path(directory))
    config = read_config(directory)
    tasks.validate(config)
    untrusted.check_folder(directory)
    untrusted.check_ranges(config)
    run = tasks.make(config, directory).runner(found.params, {}, checkpoint="latest", step="0")
    run.parents = [0]
    folder.write(run, WORKDIR.value, DTYPE.value, found.origin)
  print(f"{FROM.value}: written to {WORKDIR.value}, {api.load(WORKDIR.value)}")


if __name__ == "__main__":
  cli.run(main, required=("from", "workdir"))
