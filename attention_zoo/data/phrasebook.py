"""The embedded data set: sentence pairs generated from CLDR (through babel) and num2words.

Dates, times, numbers and ordinals in words, sums, currencies, units, durations, and the names of places and
languages, in hand-written frames (phrases.py). It needs no network and no files, holds more than 200,000
distinct pairs, and each source sentence has exactly one translation, so that a small Transformer learns it in
minutes and BLEU measures the model and not the data.
"""

import datetime
import functools
import hashlib
import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from attention_zoo.data import phrases
from attention_zoo.data.splits import resolve
from attention_zoo.errors import UserError

SPLITS = ("train", "dev", "test")

_SEED = 2017
_PAIRS_A_FRAME = 6000
_HELD_OUT = 60  # of 10,000 source sentences, for dev and for test each
_OPEN, _CLOSE = "\x01", "\x02"  # around the values of slots, where it is asked where they stand


class Phrasebook:
  """The source "phrasebook": any two of phrases.LANGUAGES."""

  splits = SPLITS

  def __init__(self, languages: tuple[str, str] = ("en", "de"), roles: dict[str, str] | None = None):
    for language in languages:
      if language not in phrases.LANGUAGES:
        raise UserError(
          f'The phrasebook does not speak "{language}": choose two of {", ".join(phrases.LANGUAGES)} '
          "for config.data.languages."
        )
    self.languages = tuple(languages)
    self._roles = roles or {}

  def pairs(self, split: str) -> Iterator[tuple[str, str]]:
    return iter(self._split(split))

  def fingerprint(self, split: str) -> str:
    return hashlib.sha256(repr((self.languages, self._split(split))).encode()).hexdigest()

  def _split(self, split: str) -> tuple[tuple[str, str], ...]:
    name = resolve(split, self._roles)
    if name not in SPLITS:
      raise UserError(f'The phrasebook has no split "{name}"; it has {", ".join(SPLITS)}.')
    return generate(*self.languages)[name]


@functools.cache
def generate(source: str, target: str) -> dict[str, tuple[tuple[str, str], ...]]:
  """All sentence pairs in these two languages, by split, in a fixed random order.

  The split of a sentence depends on nothing but its source text.
  """
  rng = random.Random(_SEED)
  translations: dict[str, str] = {}
  for frame in phrases.FRAMES:
    if source in frame and target in frame:
      for sentence, translation in _instances(frame, (source, target), rng):
        translations.setdefault(sentence, translation)
  pairs = list(translations.items())
  rng.shuffle(pairs)
  splits: dict[str, list] = {name: [] for name in SPLITS}
  for pair in pairs:
    splits[_split_of(pair[0])].append(pair)
  return {name: tuple(pairs) for name, pairs in splits.items()}


class Slot(NamedTuple):
  """A value that stands in both sentences of a pair: its kind ("date", "city", ..), and from which character to which
  (the last not included) it stands in each."""

  kind: str
  source: tuple[int, int]
  target: tuple[int, int]


def aligned(source: str, target: str, split: str) -> Iterator[tuple[str, str, tuple[Slot, ...]]]:
  """The pairs that `generate` has in the split of this name, each with what is known of its words' alignment: the
  values that were put into both sentences of its frame. Of the frame's own words nothing is known."""
  return (pair[:3] for pair in framed(source, target)[split])


@functools.cache
def framed(source: str, target: str) -> dict[str, tuple[tuple[str, str, tuple[Slot, ...], int], ...]]:
  """All that `generate` has, each pair as `aligned` has it and with the number of its frame."""
  splits = generate(source, target)
  wanted = {sentence: translation for pairs in splits.values() for sentence, translation in pairs}
  rng, found = random.Random(_SEED), {}
  for number, frame in enumerate(phrases.FRAMES):
    if source in frame and target in frame:
      kinds = [_compile(frame[language])[1] for language in (source, target)]
      for pair in _instances(frame, (source, target), rng, marked=True):
        (sentence, ours), (translation, theirs) = map(_unmark, pair)
        if wanted.get(sentence) == translation and sentence not in found:
          there = dict(zip(kinds[1], theirs, strict=True))
          slots = zip(kinds[0], ours, strict=True)
          found[sentence] = tuple(Slot(slot[0], span, there[slot]) for slot, span in slots if slot in there), number
  return {name: tuple((*pair, *found[pair[0]]) for pair in pairs) for name, pairs in splits.items()}


def _unmark(text: str) -> tuple[str, list[tuple[int, int]]]:
  """The text without marks, and from where to where each value stood between them."""
  spans, plain = [], ""
  for part in re.split(f"({_OPEN}[^{_CLOSE}]*{_CLOSE})", text):
    if part.startswith(_OPEN):
      part = part[1:-1]
      spans.append((len(plain), len(plain) + len(part)))
    plain += part
  return plain, spans


def _split_of(sentence: str) -> str:
  bucket = int.from_bytes(hashlib.blake2b(sentence.encode(), digest_size=8).digest(), "big") % 10_000
  return "test" if bucket < _HELD_OUT else "dev" if bucket < 2 * _HELD_OUT else "train"


def _instances(
  frame: dict[str, str], languages: Sequence[str], rng: random.Random, marked: bool = False
) -> Iterator[tuple[str, ...]]:
  """The frame in each of the languages, about _PAIRS_A_FRAME times, with random values in its slots; between marks."""
  compiled = [_compile(frame[language]) for language in languages]
  columns = _draw({(_KINDS[kind][0], digit) for _, slots in compiled for kind, digit in slots}, rng)
  texts = []
  for language, (text, slots) in zip(languages, compiled, strict=True):
    text = text.replace("{}", f"{_OPEN}{{}}{_CLOSE}") if marked else text
    rendered = [
      [_render(kind, language, value) for value in columns[_KINDS[kind][0], digit]] for kind, digit in slots
    ]
    texts.append([_finish(text.format(*row), language) for row in zip(*rendered, strict=True)])
  return zip(*texts, strict=True)


def _draw(variables: set[tuple[str, str]], rng: random.Random) -> dict[tuple[str, str], Sequence]:
  """A column of random values for each variable (class, digit); those of one class differ in each row."""
  columns = {}
  for name, group in itertools.groupby(sorted(variables), key=lambda variable: variable[0]):
    slots, values = list(group), _values(name)
    rows = zip(*(rng.choices(range(len(values)), k=_PAIRS_A_FRAME) for _ in slots), strict=True)
    rows = [row if len(set(row)) == len(row) else None for row in rows]
    if name in _ORDERED:
      rows = [row and sorted(row) for row in rows]
    columns |= {slot: [row and values[row[i]] for row in rows] for i, slot in enumerate(slots)}
  whole = [None not in row for row in zip(*columns.values(), strict=True)]
  return {slot: list(itertools.compress(column, whole)) for slot, column in columns.items()}


def _compile(text: str) -> tuple[str, list[tuple[str, str]]]:
  """The template with "{}" for its slots, and the slots as (kind, digit)."""
  slot = re.compile(r"\{([a-z_]+)(\d?)\}")
  return slot.sub("{}", text), slot.findall(text)


def _finish(text: str, language: str) -> str:
  """Capital letter first, and what the sound of the next word asks for."""
  if language == "fr":
    text = re.sub(rf"\b([dD])e (?={_OPEN}?[AEIOUÉ])", r"\1’", text)
  if language == "es":
    text = re.sub(rf"\by (?={_OPEN}?[hH]?[iIíÍ])", "e ", text)
  first = re.match(f"[¿{_OPEN}]*", text).end()
  return text[:first] + text[first].upper() + text[first + 1 :]


@functools.cache
def _render(kind: str, language: str, value) -> str:
  return _KINDS[kind][1](language, value).replace("\u00a0", " ").replace("\u202f", " ")


# Classes of values.


@functools.cache
def _values(name: str) -> Sequence:
  rng = random.Random(f"{_SEED} {name}")
  if name in phrases.UNITS:
    numbers = {"temperature": range(5, 36), "speed": range(5, 120), "span": range(2, 60)}.get(
      name, (*range(2, 100), *range(100, 1000, 50), 1.5, 2.5, 4.5, 7.5)
    )
    return tuple(itertools.product(numbers, phrases.UNITS[name]))
  return {
    "date": lambda: _Dates(),
    # After five in the morning: one o'clock would need another article in Spanish.
    "time": lambda: tuple(datetime.time(h, m) for h in range(5, 24) for m in range(0, 60, 5)),
    "hours": lambda: range(2, 21),
    "minutes": lambda: range(2, 60),
    "integer": lambda: range(2, 300),
    "number": lambda: (*range(0, 1000), *sorted(rng.sample(range(1000, 10_000), 2000))),
    "year_words": lambda: range(1500, 2000),
    "ordinal": lambda: range(2, 200),
    "sum": lambda: tuple(itertools.product(range(1, 121), repeat=2)),
    "decimal": lambda: tuple(rng.randrange(1_000, 10_000_000) / 100 for _ in range(6000)),
    "money": lambda: tuple(itertools.product((*range(5, 100), *range(100, 10_000, 50)), phrases.CURRENCIES)),
    "price": lambda: tuple(
      (rng.randrange(200, 50_000) / 100, rng.choice(phrases.SYMBOLS)) for _ in range(2000)
    ),
    "percent": lambda: tuple(i / 1000 for i in range(11, 400)),
    "relative": lambda: tuple(itertools.product(range(2, 40), ("day", "week", "month", "year"))),
    "name": lambda: phrases.NAMES,
    "city": lambda: phrases.CITIES,
    "country": lambda: phrases.COUNTRIES,
    "territory": lambda: (*phrases.COUNTRIES, *phrases.LISTED),
    "language": lambda: phrases.TONGUES,
    "event": lambda: range(len(phrases.EVENTS)),
    "goods": lambda: range(len(phrases.GOODS)),
    "part": lambda: range(len(phrases.PARTS)),
  }[name]()


_ORDERED = {"date", "time", "number"}


class _Dates(Sequence):
  """Every day of 1950 to 2049."""

  _FIRST = datetime.date(1950, 1, 1).toordinal()

  def __len__(self) -> int:
    return datetime.date(2050, 1, 1).toordinal() - self._FIRST

  def __getitem__(self, i: int) -> datetime.date:
    return datetime.date.fromordinal(self._FIRST + i)


# Renderings: (language, value) -> text.


def _date(format: str) -> Callable[[str, datetime.date], str]:
  """A date in one of CLDR's formats, or by a skeleton of fields ("+yMMMM")."""

  @functools.cache
  def pattern(language: str, month: int, day: int) -> str:
    # Formatting is slow, and years differ in nothing but their digits.
    from babel import dates

    date = datetime.date(2000, month, day)
    if format.startswith("+"):
      text = dates.format_skeleton(format[1:], date, locale=language)
    else:
      text = dates.format_date(date, format, locale=language)
    return re.sub(r"^1 ", "1er ", text) if language == "fr" else text

  return lambda language, date: pattern(language, date.month, date.day).replace("2000", str(date.year))


@functools.cache
def _weekday(language: str, i: int) -> str:
  from babel import dates

  return dates.get_day_names("wide", locale=language)[i]


def _time(language: str, time: datetime.time) -> str:
  from babel import dates

  return dates.format_time(time, "short", locale=language)


@functools.cache
def _words(language: str, number: int, to: str = "cardinal") -> str:
  from num2words import num2words

  # The library's French eightieth has an s too many.
  return num2words(number, lang=language, to=to).replace("vingtsième", "vingtième")


def _number(language: str, value: float) -> str:
  from babel import numbers

  return numbers.format_decimal(value, locale=language)


def _percent(language: str, value: float) -> str:
  from babel import numbers

  return numbers.format_percent(value, locale=language, decimal_quantization=False)


def _currency(language: str, amount: tuple[float, str]) -> str:
  from babel import numbers

  return numbers.format_currency(*amount, locale=language)


def _money(language: str, amount: tuple[int, str]) -> str:
  """Whole amounts with the currency's name."""
  from babel import numbers

  value, currency = amount
  return f"{_number(language, value)} {numbers.get_currency_name(currency, value, locale=language)}"


def _unit(language: str, quantity: tuple[float, str]) -> str:
  from babel import units

  return units.format_unit(*quantity, locale=language)


def _relative(sign: int) -> Callable[[str, tuple[int, str]], str]:
  def render(language: str, amount: tuple[int, str]) -> str:
    from babel import dates

    value, unit = amount
    seconds = next(s for name, s in dates.TIMEDELTA_UNITS if name == unit)
    delta = datetime.timedelta(seconds=sign * value * seconds)
    return dates.format_timedelta(delta, granularity=unit, threshold=1e9, add_direction=True, locale=language)

  return render


def _city(language: str, zone: str) -> str:
  from babel import dates

  return dates.get_timezone_location(zone, locale=language, return_city=True)


@functools.cache
def _locale(language: str):
  from babel import Locale

  return Locale.parse(language)


# kind of slot -> (class of its values, rendering)
_KINDS: dict[str, tuple[str, Callable]] = {
  "date": ("date", _date("long")),
  "medium_date": ("date", _date("medium")),
  "day": ("date", _date("+MMMMd")),
  "month": ("date", _date("+yMMMM")),
  "quarter": ("date", _date("QQQQ")),
  "year": ("date", lambda language, date: str(date.year)),
  "weekday": ("date", lambda language, date: _weekday(language, date.weekday())),
  "time": ("time", _time),
  "hours": ("hours", lambda language, n: _unit(language, (n, "duration-hour"))),
  "minutes": ("minutes", lambda language, n: _unit(language, (n, "duration-minute"))),
  "future": ("relative", _relative(1)),
  "past": ("relative", _relative(-1)),
  "integer": ("integer", lambda language, n: str(n)),
  "number": ("number", _words),
  "augend": ("sum", lambda language, terms: _words(language, terms[0])),
  "addend": ("sum", lambda language, terms: _words(language, terms[1])),
  "sum": ("sum", lambda language, terms: _words(language, sum(terms))),
  "year_words": ("year_words", lambda language, n: _words(language, n, "year")),
  "ordinal": ("ordinal", lambda language, n: _words(language, n, "ordinal")),
  "decimal": ("decimal", _number),
  "percent": ("percent", _percent),
  "price": ("price", _currency),
  "money": ("money", _money),
  "name": ("name", lambda language, name: name),
  "city": ("city", _city),
  "country": ("country", lambda language, code: _locale(language).territories[code]),
  "territory": ("territory", lambda language, code: _locale(language).territories[code]),
  "language": ("language", lambda language, code: _locale(language).languages[code]),
  "event": ("event", lambda language, i: phrases.EVENTS[i][language]),
  "goods": ("goods", lambda language, i: phrases.GOODS[i][language]),
  "part": ("part", lambda language, i: phrases.PARTS[i][language]),
  "article": ("part", lambda language, i: phrases.PART_ARTICLES[language][i]),
  **{name: (name, _unit) for name in phrases.UNITS},
}
