"""Where sentence pairs come from: the phrasebook, toy tasks, parallel text files, or TensorFlow Datasets.

A source streams the pairs of a split. A split is asked for by its role ("train", "dev", "test"; which split
plays it is in the config) or by its own name.
"""

import hashlib
import itertools
import shlex
from collections.abc import Iterator
from typing import Protocol

from attention_zoo import files, grammar
from attention_zoo.data import textfiles
from attention_zoo.data.splits import ROLES, resolve
from attention_zoo.errors import UserError


class Source(Protocol):
  languages: tuple[str, str]  # (source, target)
  splits: tuple[str, ...]  # the names that exist

  def pairs(self, split: str) -> Iterator[tuple[str, str]]:
    """Streams the (source, target) sentences of the split of this role or name. UserError on bad input."""

  def fingerprint(self, split: str) -> str:
    """A hexadecimal digest that changes when the content of the split does."""


class Sentences:
  """The sentences of both languages of a split, pair after pair; each iteration reads them anew."""

  def __init__(self, source: Source, split: str):
    self._source, self._split = source, split

  def __iter__(self) -> Iterator[str]:
    return itertools.chain.from_iterable(self._source.pairs(self._split))


def make_source(data, directory: str) -> Source:
  """The source that the config group `data` asks for by its field `source`. directory: where data.dir was found."""
  languages = tuple(data.languages)
  if len(languages) != 2 or languages[0] == languages[1]:
    raise UserError(f'config.data.languages={languages} must be two different languages, for example ("en", "de").')
  roles = {role: data[f"{role}_split"] for role in ROLES}
  try:
    function, options = grammar.bind(data.source, SOURCES, "source of sentence pairs", num_given=3)
    return function(roles, directory, languages, **options)
  except ValueError as error:
    if isinstance(error, UserError):
      raise
    raise UserError(f"config.data.source: {error}") from error


def phrasebook(roles, directory, languages):
  """The embedded phrasebook."""
  from attention_zoo.data.phrasebook import Phrasebook

  return Phrasebook(languages, roles)


def toy(
  roles,
  directory,
  languages,
  kind: str = "copy",
  min_length: int = 1,
  max_length: int = 0,
  vocabulary: int = 0,
  train: int = 20_000,
  dev: int = 500,
  test: int = 500,
  seed: int = 0,
):
  """Pairs made by a rule (`data/toy.py`): toy(kind='reverse', max_length=30).

  kind: "copy", "reverse", "sort" or "addition". min_length, max_length: words of a sentence (at most 10 by default),
  or digits of the longer number (3 by default). vocabulary: how many different words there are, 26 by default: the
  letters, and w26, w27, .. behind them. train, dev, test: pairs of each split. config.data.languages may be any two
  different names: they are the names of the two sides.
  """
  from attention_zoo.data.toy import Toy

  lengths = dict(min_length=min_length, max_length=max_length)
  sizes = dict(train=train, dev=dev, test=test)
  return Toy(languages, roles, kind=kind, vocabulary=vocabulary, seed=seed, **lengths, **sizes)


def text(roles, directory, languages):
  """Parallel text files in config.data.dir."""
  return TextFiles(directory, languages, roles)


def tfds(roles, directory, languages, name: str):
  """A data set of TensorFlow Datasets; directory: where it was prepared, "" for TFDS's own."""
  return TensorFlowDatasets(name, directory, languages, roles)


SOURCES = {function.__name__: function for function in (phrasebook, toy, text, tfds)}


class TextFiles:
  """One sentence a line, two parallel files a split: DIR/SPLIT.LANGUAGE, plain or gzipped (.gz).

  Nothing but the line end, and a byte-order mark at the start of a file, is taken off.
  """

  def __init__(self, directory: str, languages: tuple[str, str], roles: dict[str, str]):
    if not directory:
      raise UserError("config.data.dir must name the directory of the text files.")
    self._directory = files.expand(directory)
    if not (files.exists(directory) and self._directory.is_dir()):
      raise UserError(
        f"config.data.dir={directory} is not a directory. Where the text has moved to is told to training by "
        "--config.data.dir, and to what uses a trained run by --data_dir."
      )
    self.languages = tuple(languages)
    self._roles = roles

  @property
  def splits(self) -> tuple[str, ...]:
    names = [path.name.removesuffix(".gz") for path in self._directory.iterdir()]
    stems = [{n.removesuffix(f".{l}") for n in names if n.endswith(f".{l}")} for l in self.languages]
    return tuple(sorted(stems[0] & stems[1]))

  def pairs(self, split: str) -> Iterator[tuple[str, str]]:
    paths = self._paths(split)
    counts = [textfiles.count_lines(path) for path in paths]
    for path, count in zip(paths, counts, strict=True):
      if not count:
        raise UserError(f"{path} is empty.")
    if counts[0] != counts[1]:
      raise UserError(
        f"The files of a split must have one line a sentence, in the same order, but {paths[0]} has "
        f"{counts[0]} lines and {paths[1]} has {counts[1]}."
      )
    return zip(*map(textfiles.lines, paths), strict=True)

  def fingerprint(self, split: str) -> str:
    return hashlib.sha256(b"".join(map(textfiles.digest, self._paths(split)))).hexdigest()

  def _paths(self, split: str) -> list:
    name = resolve(split, self._roles)
    return [self._path(f"{name}.{language}") for language in self.languages]

  def _path(self, name: str):
    for path in (self._directory / name, self._directory / f"{name}.gz"):
      if path.exists():
        return path
    found = ", ".join(self.splits) or "none"
    raise UserError(
      f"There is neither {self._directory / name} nor {name}.gz. "
      f"Splits with files for both {self.languages[0]} and {self.languages[1]} there: {found}."
    )


class TensorFlowDatasets:
  """A translation dataset of TensorFlow Datasets, prepared as array_record and read without TensorFlow.

  name: for example "wmt14_translate/de-en". directory: TFDS's data_dir ("" = its default). Splits may be any
  of TFDS's split expressions, such as "train[:10%]".
  """

  _READ = 1024  # records a read

  def __init__(self, name: str, directory: str, languages, roles: dict[str, str], said="config.data.languages"):
    """languages: fields of its records. said: where the config has them."""
    if not name:
      raise UserError("config.data.source: tfds needs a name, for example tfds(name='wmt14_translate/de-en')")
    import tensorflow_datasets as tfds
    import tensorflow_datasets.translate  # registers the datasets

    self.languages = tuple(languages)
    self._name, self._directory, self._roles = name, directory, roles
    try:
      where = str(files.expand(directory)) if directory else None
      self._builder = tfds.builder(name, data_dir=where, file_format="array_record")
    except ValueError as error:
      reason = str(error).partition("\n")[0]  # further lines list all datasets there are
      hint = f" {self._how_to_prepare()}" if "format" in reason else ""
      raise UserError(f'TFDS cannot open the dataset "{name}" of config.data.source: {reason}{hint}') from error
    missing = [l for l in self.languages if l not in (self._builder.info.features or {})]
    if missing:
      raise UserError(
        f"{name} has no text in {', '.join(missing)}; its features are "
        f"{', '.join(self._builder.info.features)}. Set {said} or another name in config.data.source."
      )

  @property
  def splits(self) -> tuple[str, ...]:
    return tuple(self._builder.info.splits)

  @property
  def features(self):
    """Name -> feature of a record."""
    return self._builder.info.features

  def pairs(self, split: str) -> Iterator[tuple[str, str]]:
    return (tuple(value.decode("utf-8") for value in values) for values in self.values(split))

  def values(self, split: str) -> Iterator[tuple[bytes, ...]]:
    """What each record holds in the fields that are the languages."""
    return self._read(self._checked(split))

  def class_names(self, field: str) -> list[str]:
    """The names of the classes that the numbers of a field stand for; [] where they are just numbers, or text."""
    return list(getattr(self._builder.info.features[field], "names", None) or ())

  def _read(self, split: str) -> Iterator[tuple[bytes, ...]]:
    records = self._builder.as_data_source(split=split)
    for start in range(0, len(records), self._READ):
      for record in records.__getitems__(range(start, min(start + self._READ, len(records)))):
        yield tuple(record[language] for language in self.languages)

  def fingerprint(self, split: str) -> str:
    name = self._checked(split)
    split_info = self._builder.info.splits[name]
    parts = (self._builder.info.full_name, name, split_info.num_examples, split_info.num_bytes)
    return hashlib.sha256(repr((parts, self.languages)).encode()).hexdigest()

  def _checked(self, split: str) -> str:
    name = resolve(split, self._roles)
    if not self.splits:
      where = self._builder.data_dir
      raise UserError(f"{self._name} is not prepared as array_record in {where}. {self._how_to_prepare()}")
    try:
      self._builder.info.splits[name]
    except (KeyError, ValueError) as error:
      raise UserError(f'{self._name} has no split "{name}"; it has {", ".join(self.splits)}.') from error
    return name

  def _how_to_prepare(self) -> str:
    command = ["tfds", "build", self._name, "--file_format=array_record"]
    command += [f"--data_dir={self._directory}"] if self._directory else []
    return (
      f"Prepare it once, on a machine that has TensorFlow (pip install tensorflow), with\n  {shlex.join(command)}"
    )
