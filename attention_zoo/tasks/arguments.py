"""Checks of what callers hand to the verbs of a run (translate, score, ...): every complaint names the argument."""

import math
import operator
import re
import reprlib
from typing import NamedTuple

from attention_zoo.errors import UserError

# A beam's logits are beam_size x vocabulary floats for each sentence; nothing is gained by beams as wide as this.
MAX_BEAM_SIZE = 1000
# The penalty ((5 + n) / 6)^alpha of the longest outputs stays within float32.
MAX_ALPHA = 10


def sentences(given, name="sentences") -> list[str]:
  """The strings of an iterable (a list, a generator, an open file, a column of a table), which is read once.

  name: the argument's, for errors. The line end that an open file leaves on its lines is taken off, and so
  is a byte-order mark. Raises UserError for one string, for what is no iterable, and for an item that is
  not text, which it names.
  """
  return [sentence(item, f"{name}[{i}]") for i, item in enumerate(items(given, name))]


def items(given, name, of="sentences", write="[sentence]") -> list:
  """What an iterable holds, which is read once. Raises UserError for one string and for what is no iterable.

  of, write: what it should hold and how that is written, for errors.
  """
  if isinstance(given, (str, bytes)):
    raise UserError(f"{name} must be a list of {of}, not a single string: write {write}")
  try:
    found = iter(given)
  except TypeError:
    raise UserError(f"{name} must be a list of {of}, not {_shown(given)}") from None
  return list(found)


def as_many(name, given, sentences) -> None:
  """Raises UserError where there are not as many as sentences."""
  if len(given) != len(sentences):
    raise UserError(f"there must be as many {name} as sentences, got {len(given)} and {len(sentences)}")


def sentence(given, name="sentence") -> str:
  """One string, as `sentences` gives it."""
  if not isinstance(given, str):
    raise UserError(f"{name} must be a string, not {_shown(given)}")
  try:
    given.encode()
  except UnicodeEncodeError as error:
    found = ord(given[error.start])
    raise UserError(f"{name} holds half a surrogate pair (U+{found:04X}), which is no character") from None
  return re.sub(r"\r?\n\Z", "", str(given).removeprefix("\ufeff"))


def whole(value, name, low, high) -> int:
  """A whole number from low to high; NumPy's will do, True and 2.0 will not."""
  try:
    number = None if isinstance(value, bool) else operator.index(value)
  except TypeError:
    number = None
  if number is None or not low <= number <= high:
    raise UserError(f"{name} must be a whole number from {low} to {high}, not {_number(value)}")
  return number


def real(value, name, low, high) -> float:
  """A number from low to high; a string of digits will not do."""
  try:
    number = math.nan if isinstance(value, (str, bytes, bool)) else float(value)
  except (TypeError, ValueError):
    number = math.nan
  if not low <= number <= high:
    raise UserError(f"{name} must be a number from {low} to {high}, not {_number(value)}")
  return number


def split_name(value) -> str:
  """The role or name of a split."""
  if not isinstance(value, str) or not value:
    raise UserError(f"split must be 'train', 'dev', 'test' or another split's name, not {_shown(value)}")
  return value


class Search(NamedTuple):
  """What a beam search is asked for."""

  beam_size: int
  alpha: float
  n_best: int = 1


def search(decode, beam_size=None, alpha=None, n_best=1) -> Search:
  """The options of a search; decode: the config group that says what None stands for. Raises UserError."""
  beam_size = whole(decode.beam_size if beam_size is None else beam_size, "beam_size", 1, MAX_BEAM_SIZE)
  return Search(beam_size, penalty(decode, alpha), whole(n_best, "n_best", 1, beam_size))


def penalty(decode, alpha=None) -> float:
  """The exponent of the length penalty, the config's where it is None. Raises UserError."""
  return real(decode.alpha if alpha is None else alpha, "alpha", -MAX_ALPHA, MAX_ALPHA)


def _shown(value) -> str:
  return f"{type(value).__name__} ({reprlib.repr(value)})"


def _number(value) -> str:
  """What is out of range as it is; of what is no number the type too, since "2" and 2 look alike in a message."""
  return reprlib.repr(value) if type(value) in (int, float) else _shown(value)
