"""Word vectors from published files: word2vec (text and binary), GloVe and fastText.

A file is read entry by entry: no more of it is in memory than a line, or 1 MiB, and the vectors of the words that were
asked for. Nothing is made room for by what a file says of itself. `word_vectors` in a config is one of:

  glove(path='glove.6B.100d.txt')                      a word a line with its numbers, no line before them
  word2vec(path='vectors.txt')                         the same behind a line "words width"
  word2vec(path='GoogleNews-...-300.bin.gz', binary=True)   words and float32 behind such a line
  fasttext(path='wiki-news-300d-1M.vec')               as word2vec's text; subwords are in its .bin files alone

Letters: V words, D numbers of a vector.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from attention_zoo import grammar
from attention_zoo.data import textfiles
from attention_zoo.errors import UserError

_MOST_WIDTH = 10_000
_MOST_WORDS = 10**9
_LONGEST_WORD = 10_000  # bytes
_BLOCK = 1 << 20


class Entry(NamedTuple):
  """A word, its D numbers as the file has them (text, or float32 in little-endian order), and its place in the file."""

  word: bytes
  numbers: bytes
  where: str


@dataclasses.dataclass(frozen=True)
class File:
  """A file of word vectors. fold: words that it lacks are looked up in lower case."""

  path: str
  fold: bool
  header: bool
  binary: bool = False

  def entries(self, width: int) -> Iterator[Entry]:
    """All entries. Raises UserError for another width, and for a file that is cut off or damaged."""
    read = _binary if self.binary else _text
    return read(self.path, width, self.header)

  def fingerprint(self) -> str:
    return textfiles.digest(self.path).hex()


class Found(NamedTuple):
  """table_VD: float32; zeros for words that were not found, where found_V is False."""

  table_VD: np.ndarray
  found_V: np.ndarray


def glove(path: str, fold: bool = True):
  return File(path, fold, header=False)


def word2vec(path: str, binary: bool = False, fold: bool = True):
  return File(path, fold, header=True, binary=binary)


def fasttext(path: str, fold: bool = True):
  return File(path, fold, header=True)


FORMATS = {function.__name__: function for function in (glove, word2vec, fasttext)}


def make(text: str) -> File:
  """The file that config.data.word_vectors names. Raises UserError."""
  try:
    function, options = grammar.bind(text, FORMATS, "format of word vectors", num_given=0)
  except ValueError as error:
    raise UserError(f"config.data.word_vectors: {error}") from error
  return function(**options)


def select(file: File, words: Sequence[str], width: int) -> Found:
  """The vectors of these words. Of a word that stands in the file twice the first counts; one that does not stand there
  has that of the word in lower case, where the file says so.

  Raises UserError as `File.entries`, for numbers that are not finite, and where no word at all is found.
  """
  table_VD, found_V = np.zeros((len(words), width), np.float32), np.zeros(len(words), bool)
  rows = {word.encode("utf-8", "surrogatepass"): row for row, word in enumerate(words)}
  folded = {}
  for row, word in enumerate(words if file.fold else ()):
    if word != word.lower():
      folded.setdefault(word.lower().encode("utf-8", "surrogatepass"), []).append(row)
  exact_V = np.zeros(len(words), bool)
  for entry in file.entries(width):
    row = rows.get(entry.word)
    if row is not None and not exact_V[row]:
      table_VD[row], exact_V[row] = _vector(entry, file.binary), True
    if others := folded.pop(entry.word, ()):
      others = [other for other in others if not exact_V[other]]
      table_VD[others], found_V[others] = _vector(entry, file.binary), True
  found_V |= exact_V
  if len(words) and not found_V.any():
    raise UserError(
      f"{file.path} has a vector for none of the vocabulary's {len(words)} words: is it for another language?"
    )
  return Found(table_VD, found_V)


def _vector(entry, binary) -> np.ndarray:
  try:
    vector = np.frombuffer(entry.numbers, "<f4") if binary else np.array(entry.numbers.split(b" "), np.float32)
  except ValueError as error:
    raise UserError(f"{entry.where}: the vector of {_shown(entry.word)} is not all numbers") from error
  if not np.isfinite(vector).all():
    raise UserError(f"{entry.where}: the vector of {_shown(entry.word)} has a number that is not finite")
  return vector


def _shown(word: bytes) -> str:
  return repr(word[:60].decode(errors="replace"))


def _sizes(line: bytes, path, width) -> int:
  """The number of words that the first line says, its width held against what is wanted."""
  said = line.split()
  if len(said) != 2 or not all(part.isdigit() and len(part) < 12 for part in said):
    raise UserError(f"{path}, line 1 is {_shown(line)}, not the numbers of words and of each vector: a file of GloVe?")
  words, there = map(int, said)
  if not (0 < words <= _MOST_WORDS and 0 < there <= _MOST_WIDTH):
    raise UserError(f"{path}, line 1 says {words:,} words of {there:,} numbers: that is no file of word vectors")
  _check_width(path, there, width)
  return words


def _check_width(path, there, width):
  if there != width:
    raise UserError(f"{path} has vectors of {there} numbers, and the model's words have {width}")


def _text(path, width, header) -> Iterator[Entry]:
  lines = textfiles.raw_lines(path)
  words, number = None, 0
  if header:
    first = next(lines, b"")
    words, number = _sizes(first, path, width), 1
  for line in lines:
    number += 1
    where = f"{path}, line {number}"
    if not line.endswith(b"\n"):
      raise UserError(f"{where} has no end: the file is cut off")
    # A word may hold a space (GloVe has such), and tools leave one at the end of a line.
    word, *numbers = line.rstrip(b" \r\n").rsplit(b" ", width)
    if number == 1:
      _check_width(path, _width(line), width)
    if len(numbers) != width:
      raise UserError(f"{where} has {len(numbers)} numbers, not {width}: the file is cut off or damaged")
    yield Entry(word, b" ".join(numbers), where)
    if words is not None and number > words:
      break
  if words is None:
    if not number:
      raise UserError(f"{path} is empty")
  elif number <= words:
    raise UserError(f"{path} ends behind line {number}, and line 1 says {words:,} words: the file is cut off")
  elif next(lines, b"").strip():
    raise UserError(f"{path}, line {number + 1}: line 1 says {words:,} words, and there are more")


def _width(line: bytes) -> int:
  """How many numbers stand at the end of a line behind its word."""
  count = 0
  for part in reversed(line.rstrip(b" \r\n").split(b" ")[1:]):
    try:
      float(part)
    except ValueError:
      break
    count += 1
  return count


def _binary(path, width, header) -> Iterator[Entry]:
  with textfiles.open_text(path) as file:
    reader = _Reader(file, path)
    words = _sizes(reader.until(b"\n", 100, "line 1"), path, width)
    for i in range(words):
      what = f"word {i + 1} of {words:,}"
      word = reader.until(b" ", _LONGEST_WORD, what).lstrip(b"\n")
      where = f"{path}, byte {reader.at}"
      yield Entry(word, reader.take(4 * width, f"the vector of {what}"), where)
    if reader.rest().strip():
      raise UserError(f"{path}, byte {reader.at}: line 1 says {words:,} words, and there is more")


class _Reader:
  """A stream of bytes with a short memory. at: how many have been taken."""

  def __init__(self, file, path):
    self._file, self._path, self._held, self._start, self.at = file, path, b"", 0, 0

  def _more(self) -> bool:
    block = self._file.read(_BLOCK)
    self._held, self._start = self._held[self._start :] + block, 0
    return bool(block)

  def _taken(self, stop) -> bytes:
    found, self.at = self._held[self._start : stop], self.at + stop - self._start
    self._start = stop
    return found

  def take(self, count, what) -> bytes:
    while len(self._held) - self._start < count:
      if not self._more():
        raise UserError(f"{self._path} ends at byte {self.at + len(self._held)}, within {what}: the file is cut off")
    return self._taken(self._start + count)

  def until(self, mark, most, what) -> bytes:
    """What stands before the next mark, which is taken, too."""
    while (found := self._held.find(mark, self._start)) < 0 and len(self._held) - self._start <= most:
      if not self._more():
        raise UserError(f"{self._path} ends at byte {self.at + len(self._held)}, before {what}: the file is cut off")
    if found < 0 or found - self._start > most:
      raise UserError(
        f"{self._path}, byte {self.at}: {what} is longer than {most:,} bytes: no binary file of word2vec?"
      )
    return self._taken(found + 1)[:-1]

  def rest(self) -> bytes:
    """Up to one block of what is left."""
    if self._start == len(self._held):
      self._more()
    return self._held[self._start :]
