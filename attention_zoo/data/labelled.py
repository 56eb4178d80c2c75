"""Where labelled text comes from: sentences, alone or in pairs, with a label. Those with a tag for each word are in
`data/tagged.py`.

A config names a source with its options: source="tsv(text='sentence')". Like those of `data/documents.py`, it streams a
split that is asked for by its role or its name. The labels that there may be stand in the config: a model has as many
outputs.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from attention_zoo.data import phrasebook as phrases
from attention_zoo.data import sources, textfiles
from attention_zoo.data.documents import Files, make_documents
from attention_zoo.data.splits import resolve
from attention_zoo.errors import UserError
from attention_zoo.grammar import nearest

OUTSIDE = "O"  # of no entity


class Example(NamedTuple):
  """texts: one or two. label: as it is written. where: the place in its file, for messages."""

  texts: tuple[str, ...]
  label: str
  where: str


class Source(Protocol):
  def examples(self, split: str) -> Iterator[Example]:
    """Streams the split of this role or name. UserError on bad input."""

  def fingerprint(self, split: str) -> str:
    """A hexadecimal digest that changes when the content of the split does."""


def make_labelled(data, directory: str) -> Source:
  """The source of `Example`s that the config group `data` names. Raises UserError."""
  return make_documents(data, directory, LABELLED)


def index_of(label: str, labels: Sequence[str], where: str) -> int:
  """Which of the config's labels this is. Raises UserError for one that is none of them."""
  try:
    return labels.index(label)
  except ValueError:
    raise UserError(
      f"{where}: the label {label!r:.60} is not one of config.data.labels = {', '.join(labels)}{nearest(label, labels)}"
    ) from None


def number_of(label: str, where: str) -> float:
  """The label of a regression. Raises UserError for one that is no finite number."""
  try:
    number = float(label)
  except ValueError:
    number = math.nan
  if not math.isfinite(number):
    raise UserError(f"{where}: the label {label!r:.60} is not a number")
  return number


def tsv(roles, directory, text: str = "text", second: str = "", label: str = "label", columns: tuple = (),
        separator: str = "\t"):  # fmt: skip
  """SPLIT.tsv or SPLIT.txt files, plain or .gz, or folders of them.

  text, second, label: names of columns; second: of the other sentence of a pair. columns: the names, where the first
  line does not hold them; what stands behind the last separator that they need is the last column's. separator=" " with
  columns=("label", "text") reads a label and the words behind it.
  """
  _check_given(text=text, label=label, separator=separator)
  wanted = [name for name in (text, second, label) if name]
  if columns and (missing := [name for name in wanted if name not in columns]):
    raise ValueError(f"columns={columns} has no {', '.join(missing)}")
  return _Columns(roles, directory, (text, second, label), columns, separator)


def _check_given(**options) -> None:
  for name, value in options.items():
    if not value:
      raise ValueError(f"{name} must not be empty")


class _Labelled(Files):
  """Files with records. fields: names of the text, of the second one or "", and of the label."""

  def __init__(self, roles, directory, endings, fields):
    super().__init__(roles, directory, endings)
    self._fields = fields

  def examples(self, split) -> Iterator[Example]:
    *texts, label = self._fields
    texts = [name for name in texts if name]
    for record, where in self._records(split):
      for name in (*texts, label):
        if record.get(name) is None:
          raise UserError(f"{where} has no {name!r}; there are {', '.join(map(repr, record))}")
      yield _checked([record[name] for name in texts], record[label], where, self._fields)


def _checked(texts, label, where, names) -> Example:
  for text, name in zip(texts, names, strict=False):
    if not text.strip():
      raise UserError(f"{where}: the {name} is empty")
  if not label:
    raise UserError(f"{where}: the label is missing")
  return Example(tuple(texts), label, where)


class _Columns(_Labelled):
  def __init__(self, roles, directory, fields, columns, separator):
    super().__init__(roles, directory, (".tsv", ".txt"), fields)
    self._columns, self._separator = columns, separator

  def _options(self):
    return (self._fields, self._columns, self._separator)

  def _records(self, split):
    for path in self._files(split):
      columns = self._columns
      for number, line in enumerate(textfiles.lines(path), 1):
        where = f"{path}, line {number}"
        if not columns:
          columns = line.split(self._separator)
          missing = [name for name in self._fields if name and name not in columns]
          if missing:
            raise UserError(
              f"{where} must name the columns, but has no {', '.join(missing)}: it has {', '.join(columns)[:200]}. "
              "Files without such a line need tsv(columns=(..))"
            )
          continue
        if not line:
          continue
        parts = line.split(self._separator, len(columns) - 1 if self._columns else -1)
        if len(parts) != len(columns):
          raise UserError(f"{where} has {len(parts)} columns, not {len(columns)} ({', '.join(columns)[:200]})")
        yield dict(zip(columns, parts, strict=True)), where


def json_lines(roles, directory, text: str = "text", second: str = "", label: str = "label"):
  """SPLIT.jsonl files, plain or .gz, or folders of them: a JSON object a line. A label may be a number or true."""
  _check_given(text=text, label=label)
  return _Json(roles, directory, (".jsonl",), (text, second, label))


class _Json(_Labelled):
  def _options(self):
    return self._fields

  def _records(self, split):
    for path in self._files(split):
      for number, line in enumerate(textfiles.lines(path), 1):
        where = f"{path}, line {number}"
        try:
          record = json.loads(line)
        except (ValueError, RecursionError) as error:
          raise UserError(f"{where} is no JSON object ({error})") from error
        if not isinstance(record, dict):
          raise UserError(f"{where} is no JSON object")
        found = {name: record[name] for name in self._fields if record.get(name) is not None}
        for name in self._fields[:2]:
          if name in found and not isinstance(found[name], str):
            raise UserError(f"{where}: the field {name!r} is no text")
        if (label := self._fields[2]) in found:
          value = found[label]
          found[label] = value if isinstance(value, str) else json.dumps(value)
        yield found, where


def folders(roles, directory):
  """DIR/SPLIT/CLASS/*.txt, plain or .gz, each a text of the class that its folder is called after."""
  return _Folders(roles, directory, (".txt",))


class _Folders(Files):
  def _options(self):
    return ()

  def _files(self, split):
    name = resolve(split, self._roles)
    folder = self._path / name
    found = [
      path for label in sorted(folder.iterdir() if folder.is_dir() else ()) if label.is_dir()
      for path in sorted(label.iterdir()) if path.name.removesuffix(".gz").endswith(self._endings)
    ]  # fmt: skip
    if not found:
      raise UserError(f"config.data.dir={self._path} has no folder {name} with a folder of .txt files for each class")
    return found

  def fingerprint(self, split):
    names = repr([path.parent.name for path in self._files(split)])
    return hashlib.sha256((names + super().fingerprint(split)).encode()).hexdigest()

  def examples(self, split) -> Iterator[Example]:
    for path in self._files(split):
      text = "\n".join(textfiles.lines(path))
      yield _checked([text], path.parent.name, str(path), ("text",))


# What is put into a frame of the phrasebook -> the type of its words.
TYPES = {
  "DATE": ("date", "medium_date", "day", "month", "quarter", "year", "weekday", "year_words"),
  "TIME": ("time", "hours", "minutes", "span", "future", "past"),
  "PLACE": ("city", "country", "territory"),
  "PERSON": ("name",),
  "NUMBER": ("integer", "number", "augend", "addend", "sum", "ordinal", "decimal", "percent"),
  "MONEY": ("price", "money"),
  "MEASURE": ("length", "mass", "temperature", "speed", "volume"),
  "LANGUAGE": ("language",),
  "THING": ("event", "goods", "part"),
}
TYPE_OF = {kind: name for name, kinds in TYPES.items() for kind in kinds}


class Phrases:
  """Sentences of the embedded phrasebook in one language. most: of training, the first of them; 0: all."""

  def __init__(self, roles, language, most, kind):
    from attention_zoo.data.phrases import LANGUAGES

    if language not in LANGUAGES:
      raise ValueError(f"the phrasebook has no {language!r}; it has {', '.join(LANGUAGES)}")
    if most < 0:
      raise ValueError(f"most must be at least 0, not {most}")
    self._languages = language, next(name for name in LANGUAGES if name != language)
    self._roles, self._most, self._kind = roles, most, kind
    self._book = phrases.Phrasebook(self._languages, roles)

  def fingerprint(self, split):
    options = repr((self._kind, self._most if resolve(split, self._roles) == "train" else 0))
    return hashlib.sha256((options + self._book.fingerprint(split)).encode()).hexdigest()

  def _found(self, split):
    """(sentence, its slots by place, the number of its frame)."""
    name = resolve(split, self._roles)
    self._book.fingerprint(split)  # raises for a split that there is not
    for i, (sentence, _, slots, frame) in enumerate(phrases.framed(*self._languages)[name]):
      if self._most and name == "train" and i >= self._most:
        return
      yield sentence, sorted(slots, key=lambda slot: slot.source), frame


def phrasebook(roles, directory, kind: str = "type", language: str = "en", most: int = 0):
  """The sentences of the embedded phrasebook. most: of training sentences; 0: all.

  kind: what is asked of them. "type": of the last value in it, one of `TYPES`, or "O". "frame": its frame, "0", "1",
  ... . "same_frame": whether it and the sentence before have one frame, "yes" or "no". "words": how many it has.
  """
  if kind not in ("type", "frame", "same_frame", "words"):
    raise ValueError(f"kind must be 'type', 'frame', 'same_frame' or 'words', not {kind!r}")
  return _PhraseLabels(roles, language, most, kind)


class _PhraseLabels(Phrases):
  def examples(self, split) -> Iterator[Example]:
    if self._kind == "same_frame":
      yield from self._pairs(split)
      return
    for i, (sentence, slots, frame) in enumerate(self._found(split)):
      label = {
        "type": lambda slots=slots: TYPE_OF[slots[-1].kind] if slots else OUTSIDE,
        "frame": lambda frame=frame: str(frame),
        "words": lambda sentence=sentence: str(len(sentence.split())),
      }[self._kind]()
      yield Example((sentence,), label, f"sentence {i + 1} of the phrasebook")

  def _pairs(self, split):
    """Each sentence with the last one of its own frame, and, as often, with the one before it, of another."""
    last, before = {}, None
    for i, (sentence, _, frame) in enumerate(self._found(split)):
      where = f"sentence {i + 1} of the phrasebook"
      if frame in last and i % 2:
        yield Example((last[frame], sentence), "yes", where)
      elif before and before[1] != frame:
        yield Example((before[0], sentence), "no", where)
      last[frame], before = sentence, (sentence, frame)


def tfds(roles, directory, name: str, text: str = "text", second: str = "", label: str = "label"):
  """A data set of TensorFlow Datasets, prepared as array_record: tfds(name='glue/mrpc', text='sentence1',
  second='sentence2'). Labels are the names of its classes, where it has some, or numbers."""
  return _TensorFlow(name, directory, (text, second, label), roles)


class _TensorFlow:
  def __init__(self, name, directory, fields, roles):
    self._fields, self._name = fields, name
    given, said = tuple(field for field in fields if field), "its text, second and label"
    self._source = sources.TensorFlowDatasets(name, directory, given, roles, said=said)
    self._names = self._source.class_names(fields[2])
    self.fingerprint = self._source.fingerprint

  def examples(self, split) -> Iterator[Example]:
    for i, (*texts, label) in enumerate(self._source.values(split)):
      where = f"record {i + 1} of the split {split} of {self._name}"
      if self._names:
        label = self._names[int(label)] if int(label) >= 0 else ""  # GLUE's test splits have -1
      else:
        label = label.decode() if isinstance(label, bytes) else str(label)
      for text, field in zip(texts, self._fields, strict=False):
        if not isinstance(text, bytes):
          raise UserError(f"{where}: the {field} is no text; set text and second of config.data.source to others")
      yield _checked([text.decode() for text in texts], label, where, self._fields)


LABELLED = {function.__name__: function for function in (tsv, json_lines, folders, phrasebook, tfds)}
