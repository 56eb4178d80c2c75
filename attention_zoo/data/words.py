"""Whole words: a vocabulary of the most frequent ones, with the interface of `tokenizer.Tokenizer`,
and the characters that each word consists of.

What a word is: what stands between white space; with marks=True a ".", ",", ":", ";", "?" or "!" at the end of one is a
word of its own. A word that the vocabulary lacks is <unk>, or, with buckets, one of so many ids, chosen by its hash
(Dhingra et al. 2017, "A Comparative Study of Word Embeddings for Reading Comprehension"): a word then always has the
same vector, and most have one of their own. What a model makes of its characters tells it from others in any case.

Letters: W characters of a word.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from attention_zoo import files
from attention_zoo.data.characters import FIRST, SPECIAL
from attention_zoo.data.tokenizer import EOS, UNK
from attention_zoo.errors import UserError

_BEGINNING = b'{"vocabulary": '
_MARKS = ".,:;?!"

# The ids of characters are those of ELMo: bytes of UTF-8, each plus 1, then these. 0: no word at all.
BEGIN_TEXT, END_TEXT, BEGIN_WORD, END_WORD, FILL = range(257, 262)
NUM_CHARACTERS = 262
LEAST_WIDTH = 3  # of a word: its beginning, a character, its end


def split(text: str, marks: bool) -> list[str]:
  """The words of a text."""
  words = text.split()
  if not marks:
    return words
  found = []
  for word in words:
    bare = word.rstrip(_MARKS)
    found += [bare] if bare else []
    found += word[len(bare) :]
  return found


def learn(texts: Iterable[str], *, vocab_size: int, marks: bool = False, buckets: int = 0) -> bytes:
  """The content of tokenizer.model: the most frequent words of these texts, as many as there is room for beside special
  ids and buckets; of equally frequent ones those that come first in order of code points.

  Raises UserError where there is no room, or where the text has fewer.
  """
  room = vocab_size - FIRST - buckets
  if room < 1:
    raise UserError(
      f"config.data.vocab_size = {vocab_size} leaves no room for words beside {FIRST + buckets} other ids"
    )
  counts = Counter()
  for text in texts:
    counts.update(split(text, marks))
  if len(counts) < room:
    raise UserError(
      f"config.data.vocab_size = {vocab_size}, but the training text has {len(counts)} different words, and "
      f"{FIRST + buckets} ids are for others: set it to at most {len(counts) + FIRST + buckets}"
    )
  words = sorted(counts, key=lambda word: (-counts[word], word))[:room]
  return json.dumps({"vocabulary": words, "marks": marks, "buckets": buckets}, ensure_ascii=False).encode()


def parse(model: bytes, path):
  """The vocabulary that `learn` wrote; None for another kind of file. Raises UserError for a damaged one."""
  if not model.startswith(_BEGINNING):
    return None
  said = files.parse_json(model, path)
  words, marks, buckets = said.get("vocabulary"), said.get("marks"), said.get("buckets")
  if not (isinstance(words, list) and words and all(isinstance(word, str) and word for word in words)):
    raise UserError(f"{path} is not a vocabulary of words")
  if len(set(words)) != len(words) or type(marks) is not bool or type(buckets) is not int or not 0 <= buckets < 1 << 30:
    raise UserError(f"{path} is not a vocabulary of words, each of them once, with marks and a number of buckets")
  return Words(model, words, marks, buckets)


class Words:
  """One id for each word of a list, then one for each bucket of others."""

  target = property(lambda self: self)

  def __init__(self, model: bytes, words: list[str], marks: bool, buckets: int):
    self.fingerprint = hashlib.sha256(model).hexdigest()
    self.words, self.marks, self.buckets = words, marks, buckets
    self._ids = {word: FIRST + i for i, word in enumerate(words)}

  @property
  def vocab_size(self) -> int:
    return FIRST + len(self.words) + self.buckets

  def encode(self, sentences: Sequence[str]) -> list[list[int]]:
    """The ids of each text, without special ids."""
    return [[self.id(word) for word in split(text, self.marks)] for text in sentences]

  def id(self, word: str) -> int:
    if (known := self._ids.get(word)) is not None:
      return known
    if not self.buckets:
      return UNK
    digest = hashlib.sha256(_bytes(word)).digest()
    return FIRST + len(self.words) + int.from_bytes(digest[:8], "little") % self.buckets

  def unknown(self, text: str) -> list[str]:
    """The words of a text that are not in the vocabulary."""
    return sorted(set(split(text, self.marks)) - set(self._ids))

  def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
    """The text of each list of ids, a space between words; special ids but <unk> vanish."""
    return [" ".join(self._word(i) for i in text if i == UNK or i >= FIRST) for text in ids]

  def pieces(self, ids: Sequence[int]) -> list[str]:
    return [self._word(i) for i in ids]

  def _word(self, index) -> str:
    index = int(index)
    if index < FIRST:
      return SPECIAL[index]
    return self.words[index - FIRST] if index < FIRST + len(self.words) else f"<unk {index - FIRST - len(self.words)}>"


# Characters


def check_width(width: int) -> None:
  """Raises UserError for room that no word fits into."""
  if width < LEAST_WIDTH:
    raise UserError(f"config.data.word_length must be at least {LEAST_WIDTH}, not {width}")


def spelt(words: Sequence[str], width: int) -> np.ndarray:
  """The characters of each word, int32 [words, W = width]; of a longer word its beginning."""
  check_width(width)
  found = np.full((len(words), width), FILL, np.int32)
  for row, word in zip(found, words, strict=True):
    content = _bytes(word)[: width - 2]
    row[0], row[len(content) + 1] = BEGIN_WORD, END_WORD
    row[1 : len(content) + 1] = np.frombuffer(content, np.uint8) + np.int32(1)
  return found


def _bytes(word: str) -> bytes:
  return word.encode("utf-8", "surrogatepass")


class Spelling:
  """Texts as the bytes of their words, a space behind each, with the interface of `tokenizer.Tokenizer`: what
  `data/corpus.py` keeps on disk, so that words that no vocabulary has keep their characters."""

  target = property(lambda self: self)
  vocab_size = FIRST + 256

  def __init__(self, marks: bool):
    self._marks = marks
    self.fingerprint = f"spelling of words, marks={marks}"

  def encode(self, sentences: Sequence[str]) -> list[list[int]]:
    return [[FIRST + byte for word in split(text, self._marks) for byte in _bytes(word) + b" "] for text in sentences]


class Spelt:
  """The characters of any words of texts that lie on disk as `Spelling` has them."""

  def __init__(self, tokens: np.ndarray):
    self._tokens = tokens
    self._ends = np.flatnonzero((tokens == FIRST + ord(" ")) | (tokens == EOS))

  def __len__(self) -> int:
    """How many words there are, the end of each text being one."""
    return len(self._ends)

  def characters(self, places: np.ndarray, width: int) -> np.ndarray:
    """int32 [*places, width] of the words with these numbers, as `spelt`; the end of a text has END_TEXT."""
    check_width(width)
    ends = self._ends[places][..., None]
    starts = np.where(places > 0, self._ends[places - 1] + 1, 0)[..., None]
    at = starts + np.arange(width) - 1
    stop = np.minimum(ends, starts + width - 2)  # of what there is room for
    inside = (at >= starts) & (at < stop)
    found = np.where(inside, self._tokens[np.where(inside, at, 0)] - FIRST + 1, FILL)
    found = np.where(at == stop, END_WORD, found)
    found[..., 0] = BEGIN_WORD
    is_end = (self._tokens[ends[..., 0]] == EOS)[..., None]
    return np.where(is_end, special(END_TEXT, width), found).astype(np.int32)


def special(character: int, width: int) -> np.ndarray:
  """The characters, int32 [W = width], of a word that is no text: BEGIN_TEXT or END_TEXT."""
  found = np.full(width, FILL, np.int32)
  found[:3] = BEGIN_WORD, character, END_WORD
  return found
