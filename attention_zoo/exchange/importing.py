"""Folders of transformers as runs of this package: which reader is whose, and what a run's directory needs beside
parameters."""

import json

from attention_zoo import files
from attention_zoo.data import identity
from attention_zoo.errors import UserError
from attention_zoo.exchange import from_bert, from_gpt2, from_marian, from_xlnet, reading

READERS = {
  "marian": from_marian.read, "gpt2": from_gpt2.read, "bert": from_bert.read, "roberta": from_bert.read,
  "xlnet": from_xlnet.read,
}  # fmt: skip


def read(path, languages=None) -> reading.Imported:
  """The model in a folder. languages: (source, target) of a translation model, where the folder's own will not do.

  Raises UserError for what is not such a folder, and for a model that is computed in another way.
  """
  try:
    folder = reading.Folder(path)
  except OSError as error:
    raise UserError(f"cannot read {path}: {error.strerror or error}") from error
  kind = folder.config.get("model_type")
  if not isinstance(kind, str) or kind not in READERS:
    raise UserError(f"{path}/config.json: model_type = {kind!r:.60} is not one of {', '.join(READERS)}")
  if languages and kind != "marian":
    raise UserError(f"--languages: a {kind} has no source and target")
  return READERS[kind](folder, *[languages] if languages else [])


def stage(found: reading.Imported, directory) -> None:
  """Writes config.json, tokenizer.model and text.json, as they stand in a run's directory."""
  files.write_text(directory / "config.json", json.dumps(found.config, indent=2, sort_keys=True) + "\n")
  # Of the text it was trained on nothing is known.
  identity.claim(directory, train="", directory="", settings=identity.OWN, learn=lambda: found.tokenizer, trained=False)
