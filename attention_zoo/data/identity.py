"""What a run was learnt from: its vocabulary and its training text, written down in WORKDIR/text.json with checksums.

text.json holds `train`, the digest of the training text; `dir`, where it lay; `tokenizer`, the SHA-256 of
tokenizer.model; `settings`, how that was learnt, or `OWN`; and `checksum`, the SHA-256 of all of these. Training
alone writes them (`claim`); whoever reads a run is held to them (`tokenizer`).
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable

from attention_zoo import files
from attention_zoo.data import byte_bpe, characters, events, joint_pieces, wordpiece, words
from attention_zoo.data.tokenizer import Tokenizer, read_model
from attention_zoo.errors import UserError

logger = logging.getLogger(__name__)

TEXT, MODEL = "text.json", "tokenizer.model"
OWN = {"own": True}  # settings of a vocabulary that somebody put there


def read(workdir) -> dict | None:
  """What text.json says, None where there is none. Raises UserError for one that is not as it was written."""
  path = files.expand(workdir) / TEXT
  if not path.exists():
    return None
  said = files.read_json(path)
  known = {"train": str, "dir": str, "tokenizer": str, "settings": dict, "checksum": str}
  whole = isinstance(said, dict) and {name: type(value) for name, value in said.items()} == known
  if not whole or said.pop("checksum") != _checksum(said):
    raise UserError(f"{path} is not as it was written (its checksum differs): bring back a copy of the original.")
  return said


def published(workdir) -> str:
  """The text of text.json without where the training text lay; "" where there is none."""
  said = read(workdir)
  return _json(said | {"dir": ""}) if said else ""


def find_text(workdir, directory: str) -> str:
  """Where data.dir is: a relative path in the current directory, or else where training found it."""
  if (
    not directory or not files.is_local(directory) or files.expand(directory).is_absolute() or os.path.exists(directory)
  ):
    return directory
  return ((read(workdir) or {}).get("dir")) or directory


def vocabulary(workdir) -> bytes:
  """The content of the run's tokenizer.model: of a run on images the names of its classes. Raises UserError where it is
  missing, or not the one that the run was begun with."""
  said = read(workdir)
  if said is None:
    raise UserError(
      f"{workdir} has no {TEXT}, and so no vocabulary: training writes it. "
      "If it was lost, bring back a copy of the original."
    )
  return read_model(files.expand(workdir) / MODEL, said["tokenizer"])


def tokenizer(workdir) -> Tokenizer:
  """The run's vocabulary of pieces of text. Raises UserError as `vocabulary` does."""
  path = files.expand(workdir) / MODEL
  return parse(vocabulary(workdir), path) or Tokenizer(path, read(workdir)["tokenizer"])


def parse(model: bytes, path):
  """The vocabulary of a tokenizer.model that is JSON; None for one of SentencePiece. Raises UserError for a damaged
  one."""
  kinds = (joint_pieces, byte_bpe, wordpiece, words, events, characters)
  return next(filter(None, (kind.parse(model, path) for kind in kinds)), None)


def claim(workdir, *, train: str, directory: str, settings: dict, learn: Callable[[], bytes], trained: bool):
  """Makes the vocabulary and the text of a run that is about to train its own, or holds the run to those it began with.

  train: the digest of the training text; directory: where it lies. settings: of `learn`, which learns a vocabulary from
  that text, each time the same bytes: several processes of a run may do so at once. trained: the run has a checkpoint.
  A run without a checkpoint learns its vocabulary anew when the text or the settings have changed, one with checkpoints
  only to replace the same one that was lost. A vocabulary without text.json in a new workdir is somebody's own, and
  is taken.
  Raises UserError for another text under checkpoints, and where what was lost cannot be replaced.
  """
  path, said = files.expand(workdir) / MODEL, read(workdir)
  if trained and said and said["train"] != train:
    raise UserError(
      f"the training text (config.data.dir = {directory!r}) is not the one that the run in {workdir} was begun with: "
      "bring that back, or choose another workdir"
    )
  if trained and said is None:
    raise UserError(
      f"{workdir} has checkpoints, but no {TEXT}: bring back a copy of the original, or choose another workdir"
    )
  if said and _holds(path, said["tokenizer"]):
    if trained or (said["settings"], said["train"]) == (settings, train):
      return
  own = path.exists() if said is None else said["settings"] == OWN
  if own and not trained:
    model, settings = read_model(path), OWN
  else:
    model = learn()
    if trained and _sha256(model) != said["tokenizer"]:
      raise UserError(
        f"{path} is missing or damaged, and learning it again gives another: bring back a copy of the original."
      )
    if trained:
      logger.warning("%s was missing or damaged; it has been learnt again, the same to the bit", path)
    files.write_bytes(path, model)
  if not trained:
    said = {"train": train, "dir": directory, "tokenizer": _sha256(model), "settings": settings}
    files.write_text(path.with_name(TEXT), _json(said))


def _holds(path, sha256: str) -> bool:
  try:
    read_model(path, sha256)
  except UserError:
    return False
  return True


def _json(said: dict) -> str:
  return json.dumps(said | {"checksum": _checksum(said)}, indent=1) + "\n"


def _checksum(said: dict) -> str:
  return _sha256(json.dumps(said, sort_keys=True).encode())


def _sha256(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()
