"""Where documents come from, for language models: the phrasebook, toy tasks, text files, JSON lines, or TensorFlow
Datasets.

A config names a source with its options: source="text(documents='line')". Like those of `data/sources.py`, it streams a
split that is asked for by its role or its name.
"""

import hashlib
import inspect
import json
from collections.abc import Iterator
from typing import Protocol

from attention_zoo import files, grammar
from attention_zoo.data import sources, textfiles
from attention_zoo.data.splits import ROLES, resolve
from attention_zoo.errors import UserError

_LONGEST = 1 << 30  # bytes of a file that is one document


class Documents(Protocol):
  def documents(self, split: str) -> Iterator[str]:
    """Streams the documents of the split of this role or name. UserError on bad input."""

  def fingerprint(self, split: str) -> str:
    """A hexadecimal digest that changes when the content of the split does."""


def make_documents(data, directory: str, known=None) -> Documents:
  """The source that the config group `data` names. directory: where config.data.dir is. known: name -> function, by
  default SOURCES. Raises UserError."""
  roles = {role: data[f"{role}_split"] for role in ROLES}
  try:
    function, options = grammar.bind(data.source, known or SOURCES, "source", num_given=2)
    return function(roles, directory, **options)
  except ValueError as error:
    if isinstance(error, UserError):
      raise
    raise UserError(f"config.data.source: {error}") from error


def phrasebook(roles, directory, language: str = "en", together: int = 0):
  """The sentences of one language of the embedded phrasebook, each a document.

  together: so many of one frame are a document, a line each; 0: each sentence is one.
  """
  from attention_zoo.data.phrasebook import Phrasebook
  from attention_zoo.data.phrases import LANGUAGES

  if language not in LANGUAGES:
    raise ValueError(f"the phrasebook has no {language!r}; it has {', '.join(LANGUAGES)}")
  if together < 0:
    raise ValueError(f"together must be at least 0, not {together}")
  other = next(name for name in LANGUAGES if name != language)
  book = Phrasebook((language, other), roles)
  return _Together(book, roles, together) if together else _Side(book)


class _Side:
  """The first language of a source of pairs."""

  def __init__(self, pairs):
    self._pairs = pairs

  def documents(self, split):
    return (pair[0] for pair in self._pairs.pairs(split))

  def fingerprint(self, split):
    return self._pairs.fingerprint(split)


class _Together(_Side):
  """Documents of so many sentences of one frame; what is left over at the end is left out."""

  def __init__(self, book, roles, together):
    super().__init__(book)
    self._roles, self._together = roles, together

  def documents(self, split):
    from attention_zoo.data.phrasebook import framed

    waiting = {}
    name = resolve(split, self._roles)
    for sentence, _, _, frame in framed(*self._pairs.languages).get(name, ()):
      lines = waiting.setdefault(frame, [])
      lines.append(sentence)
      if len(lines) == self._together:
        yield "\n".join(waiting.pop(frame))

  def fingerprint(self, split):
    return hashlib.sha256(f"{self._together} {super().fingerprint(split)}".encode()).hexdigest()


def toy(roles, directory, **options):
  """The pairs of `data/sources.toy`, each a document: "c a b = b a c". The options are the same."""
  return _Joined(sources.toy(roles, directory, ("source", "target"), **options), " = ")


# Its options, for whoever reads them off it (`grammar.bind`).
toy.__signature__ = inspect.Signature(
  [parameter for name, parameter in inspect.signature(sources.toy).parameters.items() if name != "languages"]
)


class _Joined:
  """Both sides of each pair of a source, with a text between them."""

  def __init__(self, pairs, between):
    self._pairs, self._between = pairs, between

  def documents(self, split):
    return map(self._between.join, self._pairs.pairs(split))

  def fingerprint(self, split):
    return self._pairs.fingerprint(split)


def text(roles, directory, documents: str = "file", held_out: float = 0.1):
  """Text files, plain or .gz. documents: what is one: "file", "line" or "paragraph" (blank lines stand between).

  directory: a folder with SPLIT.txt, or a folder SPLIT of .txt files, for each split; or a single file, of which the
  last part, `held_out` of its characters, is the split "dev" and the rest "train".
  """
  if documents not in ("file", "line", "paragraph"):
    raise ValueError(f"documents must be 'file', 'line' or 'paragraph', not {documents!r}")
  if not 0 < held_out < 1:
    raise ValueError(f"held_out must be above 0 and below 1, not {held_out}")
  return _Texts(roles, directory, documents, held_out)


class Files:
  """The files of each split below a directory."""

  def __init__(self, roles, directory, endings):
    if not directory:
      raise UserError("config.data.dir must name the text: a file, or a folder with a file for each split.")
    self._roles, self._path, self._endings = roles, files.expand(directory), endings
    if not files.exists(directory):
      raise UserError(f"config.data.dir={directory} does not exist.")

  def _files(self, split: str) -> list:
    name = resolve(split, self._roles)
    for ending in self._endings:
      for path in (self._path / f"{name}{ending}", self._path / f"{name}{ending}.gz"):
        if path.is_file():
          return [path]
    folder = self._path / name
    if folder.is_dir():
      found = sorted(
        path for path in folder.iterdir() if path.name.removesuffix(".gz").endswith(self._endings)
      )
      if found:
        return found
    raise UserError(
      f"config.data.dir={self._path} has neither {name}{self._endings[0]} (or .gz) nor a folder {name} of such files."
    )

  def fingerprint(self, split: str) -> str:
    found = hashlib.sha256(repr(self._options()).encode())
    for path in self._files(split):
      found.update(textfiles.digest(path))
    return found.hexdigest()


class _Texts(Files):
  def __init__(self, roles, directory, documents, held_out):
    super().__init__(roles, directory, (".txt",))
    self._documents, self._held_out = documents, held_out

  def _options(self):
    return (self._documents, self._held_out)

  def _files(self, split):
    return [self._path] if self._path.is_file() else super()._files(split)

  def fingerprint(self, split):
    part = resolve(split, self._roles) if self._path.is_file() else ""
    return hashlib.sha256((part + super().fingerprint(split)).encode()).hexdigest()

  def documents(self, split: str) -> Iterator[str]:
    for path in self._files(split):
      if self._path.is_file():
        yield from self._cut(self._part(path, resolve(split, self._roles)))
      elif self._documents == "line":
        yield from (line for line in textfiles.lines(path) if line)
      else:
        yield from self._cut(_whole(path))

  def _part(self, path, name) -> str:
    whole = _whole(path)
    if name not in ("train", "dev"):
      raise UserError(f"config.data.dir={path} is one file, which has the splits train and dev, not {name!r}.")
    cut = round(len(whole) * (1 - self._held_out))
    part = whole[:cut] if name == "train" else whole[cut:]
    if not part:
      raise UserError(f"{path} has {len(whole)} characters, too few for the splits train and dev.")
    return part

  def _cut(self, whole: str) -> list[str]:
    if self._documents == "file":
      return [whole]
    parts = whole.split("\n" if self._documents == "line" else "\n\n")
    return [part.strip("\n") for part in parts if part.strip("\n")]


def _whole(path) -> str:
  """The text of a file. Raises UserError for an empty one, a far too large one, and invalid UTF-8."""
  with textfiles.open_text(path) as file:
    content = file.read(_LONGEST + 1)
  if not content:
    raise UserError(f"{path} is empty.")
  if len(content) > _LONGEST:
    raise UserError(f"{path} is larger than {_LONGEST:,} bytes: cut it into several files, or set documents='line'.")
  try:
    return content.decode()
  except UnicodeDecodeError as error:
    raise UserError(f"{path}: invalid UTF-8 ({error.reason} at byte {error.start})") from error


def json_lines(roles, directory, field: str = "text"):
  """SPLIT.jsonl files, plain or .gz, or folders of them: a JSON object a line, whose `field` is a document."""
  return _JsonLines(roles, directory, field)


class _JsonLines(Files):
  def __init__(self, roles, directory, field):
    super().__init__(roles, directory, (".jsonl",))
    self._field = field

  def _options(self):
    return (self._field,)

  def documents(self, split: str) -> Iterator[str]:
    for path in self._files(split):
      for number, line in enumerate(textfiles.lines(path), 1):
        try:
          document = json.loads(line)[self._field]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
          raise UserError(f"{path}, line {number}: no JSON object with the field {self._field!r} ({error})") from error
        if not isinstance(document, str):
          raise UserError(f"{path}, line {number}: the field {self._field!r} is no text")
        if document:
          yield document


def tfds(roles, directory, name: str, field: str = "text"):
  """A data set of TensorFlow Datasets, prepared as array_record: tfds(name='lm1b'). field: of its features."""
  return _Side(sources.TensorFlowDatasets(name, directory, (field,), roles))


SOURCES = {function.__name__: function for function in (phrasebook, toy, text, json_lines, tfds)}
