"""BERT's vocabulary (Devlin et al. 2018; Schuster & Nakajima 2012), learnt here or read from a published vocab.txt.

A text is cleaned, perhaps made lower-case and freed of accents, and cut at spaces, at every punctuation mark and around
every Chinese character; each word is then cut into the longest pieces of the vocabulary, from its beginning, those that
go on with a word marked by "##". The interface is that of `tokenizer.Tokenizer`. "[MASK]" within a text is text.

How pieces are learnt is not published; here the most frequent pair is joined (`data/merging.py`).
"""

import functools
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from attention_zoo import files
from attention_zoo.data import merging
from attention_zoo.data.joint_pieces import check_pieces
from attention_zoo.data.progress import counted
from attention_zoo.data.tokenizer import BOS, EOS, PAD, UNK
from attention_zoo.errors import UserError

MASK = UNK + 1
SPECIAL = {PAD: "[PAD]", BOS: "[CLS]", EOS: "[SEP]", UNK: "[UNK]", MASK: "[MASK]"}
GOES_ON = "##"
_BEGINNING = b'{"wordpiece": '
_LONGEST = 100  # characters of a word; longer ones are unknown
_REMEMBERED = 1 << 16  # words whose pieces are kept
_CHINESE = (
  (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
  (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip
_ASCII = re.compile("[a-zA-Z0-9]+|[^a-zA-Z0-9 ]")
_ASCII_MARKS = frozenset(map(chr, (*range(33, 48), *range(58, 65), *range(91, 97), *range(123, 127))))


def dump(pieces: Sequence[str], lower: bool, accents: bool | None = None) -> bytes:
  """The content of tokenizer.model. pieces: of each id, the special ones first. accents: whether they stay; by default
  where the text is not made lower-case."""
  said = {"wordpiece": list(pieces), "lower": lower, "accents": not lower if accents is None else accents}
  return json.dumps(said, ensure_ascii=False).encode()


def parse(model: bytes, path):
  """The tokenizer that `dump` wrote; None for another kind of file. Raises UserError for a damaged one."""
  if not model.startswith(_BEGINNING):
    return None
  said = files.parse_json(model, path)
  check_pieces(said["wordpiece"], path)
  if not all(type(said.get(name)) is bool for name in ("lower", "accents")) or len(said["wordpiece"]) <= MASK:
    raise UserError(f"{path} is not a whole vocabulary of word pieces")
  return WordPiece(model, said["wordpiece"], said["lower"], said["accents"])


def read(content: bytes, path) -> tuple[list[str], np.ndarray]:
  """(pieces with the special ones first, the id of each in the file) of a published vocab.txt, a piece a line.

  Raises UserError for a file of another kind of vocabulary.
  """
  try:
    lines = content.decode().removesuffix("\n").split("\n")
  except UnicodeDecodeError as error:
    raise UserError(f"{path}: invalid UTF-8 ({error.reason} at byte {error.start})") from error
  published = [line.removesuffix("\r") for line in lines]
  missing = [piece for piece in SPECIAL.values() if piece not in published]
  if missing:
    raise UserError(f"{path} is not a vocabulary of BERT, one piece a line: it has no {', '.join(missing)}")
  check_pieces(published, path)
  first = [published.index(piece) for piece in SPECIAL.values()]
  ids = np.array([*first, *(i for i in range(len(published)) if i not in first)])
  return [published[i] for i in ids], ids


def learn(texts: Iterable[str], *, vocab_size: int, lower: bool = True) -> bytes:
  """The content of tokenizer.model for these texts. Raises UserError where they cannot fill the vocabulary, or where it
  is too small for their characters."""
  counts = Counter()
  for text in counted(texts, "Texts read for the vocabulary"):
    counts.update(words(text, lower, not lower))
  if not counts:
    raise UserError("The training split holds no text to learn word pieces from.")
  cut = lambda word: (word[0], *(GOES_ON + c for c in word[1:]))
  split = {cut(word): count for word, count in counts.items() if len(word) <= _LONGEST}
  alphabet = sorted({part for word in split for part in word})
  room = vocab_size - len(SPECIAL) - len(alphabet)
  if room < 0:
    raise UserError(
      f"config.data.vocab_size = {vocab_size} is too small for the training data: its characters and the special "
      f"pieces alone are {vocab_size - room}"
    )
  join = lambda left, right: left + right.removeprefix(GOES_ON)
  pieces = dict.fromkeys([*SPECIAL.values(), *alphabet])
  # Two pairs may make the same piece.
  for left, right in merging.learn(split, 2 * room, join):
    if len(pieces) < vocab_size:
      pieces.setdefault(join(left, right))
  if len(pieces) < vocab_size:
    raise UserError(
      f"config.data.vocab_size = {vocab_size} is too large for the training data, which has {len(pieces)} pieces: set "
      f"it to {len(pieces)} or less"
    )
  return dump(list(pieces), lower)


def words(text: str, lower: bool, accents: bool) -> list[str]:
  """The words and marks of a text."""
  if text.isascii() and text.isprintable():  # the same, ten times as fast
    return _ASCII.findall(text.lower() if lower else text)
  found, word = [], []

  def end():
    if word:
      found.append("".join(word))
      word.clear()

  cleaned = "".join(" " if _is_space(c) else c for c in text if _is_space(c) or not _is_control(c))
  if not accents:
    cleaned = "".join(c for c in unicodedata.normalize("NFD", cleaned) if unicodedata.category(c) != "Mn")
  for c in map(str.lower, cleaned) if lower else cleaned:  # each by itself, as tokenizers does: no final sigma
    if c == " " or c.isspace():
      end()
    elif len(c) == 1 and (_is_mark(c) or _is_chinese(c)):
      end()
      found.append(c)
    else:
      word.append(c)
  end()
  return found


def _is_space(c):
  return c in " \t\n\r" or unicodedata.category(c) == "Zs"


@functools.cache
def _is_control(c):
  return c in "\0\ufffd" or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn")


@functools.cache
def _is_mark(c):
  return c in _ASCII_MARKS or unicodedata.category(c).startswith("P")


def _is_chinese(c):
  return any(first <= ord(c) <= last for first, last in _CHINESE)


class WordPiece:
  target = property(lambda self: self)

  def __init__(self, model: bytes, pieces, lower: bool, accents: bool):
    self.fingerprint = hashlib.sha256(model).hexdigest()
    self.raw, self.lower, self.accents = pieces, lower, accents
    self.mask, self.mask_piece = MASK, SPECIAL[MASK]
    self._ids = {piece: i for i, piece in enumerate(pieces) if i not in SPECIAL}
    self._word = functools.lru_cache(_REMEMBERED)(self._cut)

  @property
  def vocab_size(self) -> int:
    return len(self.raw)

  @functools.cached_property
  def goes_on(self) -> np.ndarray:
    """Of each id, whether it goes on with the word of the piece before it."""
    return np.array([piece.startswith(GOES_ON) and len(piece) > 2 for piece in self.raw])

  def encode(self, sentences: Sequence[str]) -> list[list[int]]:
    """The ids of each text, without special ids."""
    return [[i for word in words(text, self.lower, self.accents) for i in self._word(word)] for text in sentences]

  def unknown(self, text: str) -> list[str]:
    """The words of a text that are not in the vocabulary."""
    return sorted({word for word in words(text, self.lower, self.accents) if UNK in self._word(word)})

  def _cut(self, word: str) -> tuple[int, ...]:
    """The ids of a word: longest piece first."""
    if len(word) > _LONGEST:
      return (UNK,)
    found, start = [], 0
    while start < len(word):
      for stop in range(len(word), start, -1):
        if (i := self._ids.get(GOES_ON * (start > 0) + word[start:stop])) is not None:
          break
      else:
        return (UNK,)
      found.append(i)
      start = stop
    return tuple(found)

  def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
    """The text of each list of ids, with spaces between words; special ids but [UNK] and [MASK] vanish."""
    kept = ([self.raw[int(i)] for i in text if i not in (PAD, BOS, EOS)] for text in ids)
    return [" ".join(pieces).replace(" " + GOES_ON, "") for pieces in kept]

  def pieces(self, ids: Sequence[int]) -> list[str]:
    """The piece of each id."""
    return [self.raw[int(i)] for i in ids]
