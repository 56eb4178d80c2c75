"""GPT-2's vocabulary, byte-pair encoding of bytes (Radford et al. 2019, section 2.2), read from published files or
learnt here; with <mask>, RoBERTa's.

A text is cut into words, a word into the bytes of UTF-8, each of which is shown as a visible character; then the
pair of neighbours that was learnt first is joined, until none is left that was learnt. The interface is that of
`tokenizer.Tokenizer`. "<|endoftext|>" within a text is text.
"""

import functools
import hashlib
import heapq
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from attention_zoo import files
from attention_zoo.data import merging
from attention_zoo.data.joint_pieces import check_characters, check_pieces
from attention_zoo.data.progress import counted
from attention_zoo.data.tokenizer import BOS, EOS, PAD, UNK
from attention_zoo.errors import UserError

MASK, MASK_PIECE = UNK + 1, "<mask>"  # where a vocabulary has it
_BEGINNING = b'{"byte_bpe": '
_REMEMBERED = 1 << 16  # words whose pieces are kept


def dump(pieces: Sequence[str], merges: Sequence[tuple[str, str]]) -> bytes:
  """The content of tokenizer.model. pieces: of each id; merges: pairs of pieces, the first learnt first."""
  return json.dumps({"byte_bpe": list(pieces), "merges": [list(pair) for pair in merges]}, ensure_ascii=False).encode()


def learn(texts: Iterable[str], *, vocab_size: int) -> bytes:
  """The content of tokenizer.model for these texts, with <mask> behind the special pieces. Raises UserError where they
  cannot fill the vocabulary, or where it is too small for the 256 bytes."""
  counts = Counter()
  for text in counted(texts, "Texts read for the vocabulary"):
    counts.update(_words().findall(text))
  if not counts:
    raise UserError("The training split holds no text to learn a vocabulary from.")
  special = ["<pad>", "<s>", "</s>", "<unk>", MASK_PIECE]
  room = vocab_size - len(special) - 256
  if room < 0:
    raise UserError(f"config.data.vocab_size = {vocab_size}: bytes alone need {len(special) + 256}")
  split = {tuple(characters()[byte] for byte in _utf8(word)): count for word, count in counts.items()}
  pieces, merges = dict.fromkeys([*special, *characters()]), []
  for pair in merging.learn(split, 2 * room):  # two pairs may make the same piece
    if len(pieces) < vocab_size:
      pieces.setdefault("".join(pair))
      merges.append(pair)
  if len(pieces) < vocab_size:
    raise UserError(
      f"config.data.vocab_size = {vocab_size} is too large for the training data, which has {len(pieces)} pieces: set "
      f"it to {len(pieces)} or less"
    )
  return dump(list(pieces), merges)


def parse(model: bytes, path):
  """The tokenizer that `dump` wrote; None for another kind of file. Raises UserError for a damaged one."""
  if not model.startswith(_BEGINNING):
    return None
  said = files.parse_json(model, path)
  check_pieces(said["byte_bpe"], path)
  return ByteBPE(model, said["byte_bpe"], check_merges(said.get("merges"), path))


def check_merges(merges, path) -> list[tuple[str, str]]:
  """The merges as pairs. Raises UserError unless they are pairs of texts."""
  pairs = isinstance(merges, list) and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in merges)
  if not pairs or not all(isinstance(part, str) and part for pair in merges for part in pair):
    raise UserError(f"{path}: the merges are not pairs of pieces")
  check_characters([part for pair in merges for part in pair], path)
  return [tuple(pair) for pair in merges]


@functools.cache
def characters() -> list[str]:
  """The visible character of each byte: its own of Latin-1 where that is one, else one from U+0100 on."""
  own = {*range(ord("!"), ord("~") + 1), *range(ord("\xa1"), ord("\xac") + 1), *range(ord("\xae"), ord("\xff") + 1)}
  others = iter(range(256, 512))
  return [chr(byte) if byte in own else chr(next(others)) for byte in range(256)]


@functools.cache
def _words() -> re.Pattern:
  """GPT-2's own pattern. Python's `re` has no classes for letters and numbers: they are written out."""
  ranges = {"L": [], "N": []}
  for code in range(sys.maxunicode + 1):
    kind = ranges.get(unicodedata.category(chr(code))[0])
    if kind is not None:
      if kind and kind[-1][1] == code - 1:
        kind[-1][1] = code
      else:
        kind.append([code, code])
  letters, numbers = ("".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in ranges[kind]) for kind in "LN")
  space = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
  return re.compile(
    f"'s|'t|'re|'ve|'m|'ll|'d| ?[{letters}]+| ?[{numbers}]+| ?[^{space}{letters}{numbers}]+"
    f"|[{space}]+(?![^{space}])|[{space}]+"
  )


class ByteBPE:
  def __init__(self, model: bytes, pieces, merges):
    self.fingerprint = hashlib.sha256(model).hexdigest()
    self.raw, self.merges = pieces, merges  # as they are published
    self._ids = {piece: i for i, piece in enumerate(pieces) if i not in (PAD, BOS, EOS, UNK)}
    if pieces[MASK : MASK + 1] == [MASK_PIECE]:
      self.mask, self.mask_piece = MASK, MASK_PIECE
      del self._ids[MASK_PIECE]
    self._ranks = {pair: rank for rank, pair in reversed([*enumerate(merges)])}
    self._bytes = {character: byte for byte, character in enumerate(characters())}
    self._word = functools.lru_cache(_REMEMBERED)(self._cut)

  target = property(lambda self: self)
  spaces = True  # a space belongs to the word behind it

  @property
  def vocab_size(self) -> int:
    return len(self.raw)

  @functools.cached_property
  def goes_on(self) -> np.ndarray:
    """Of each id, whether it goes on with the word of the piece before it: its first byte is no space."""
    return np.array([i > UNK and self._bytes.get(piece[0]) != ord(" ") for i, piece in enumerate(self.raw)])

  def encode(self, sentences: Sequence[str]) -> list[list[int]]:
    """The ids of each text, without special ids."""
    return [[i for word in _words().findall(text) for i in self._word(word)] for text in sentences]

  def unknown(self, text: str) -> list[str]:
    """The characters of a text whose bytes are not all in the vocabulary."""
    return sorted(c for c in set(text) if any(characters()[byte] not in self._ids for byte in _utf8(c)))

  def _cut(self, word: str) -> tuple[int, ...]:
    """The ids of a word. Cost: n log n of its bytes."""
    parts = [characters()[byte] for byte in _utf8(word)]
    before, after = [*range(-1, len(parts) - 1)], [*range(1, len(parts)), -1]

    def candidate(i):
      if i >= 0 and after[i] >= 0 and (rank := self._ranks.get((parts[i], parts[after[i]]))) is not None:
        heapq.heappush(queue, (rank, i, parts[i], parts[after[i]]))

    queue = []
    for i in range(len(parts)):
      candidate(i)
    while queue:
      _, i, left, right = heapq.heappop(queue)
      j = after[i]
      if parts[i] != left or j < 0 or parts[j] != right:
        continue  # one of them is part of another by now
      parts[i], parts[j] = left + right, ""
      after[i] = after[j]
      if after[i] >= 0:
        before[after[i]] = i
      candidate(before[i])
      candidate(i)
    return tuple(self._ids.get(part, UNK) for part in parts if part)

  def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
    """The text of each list of ids; special ids vanish, and what is no UTF-8 becomes U+FFFD."""
    return [self._read(ids).decode(errors="replace") for ids in ids]

  def _read(self, ids) -> bytes:
    kept = (self.raw[int(i)] for i in ids if i not in (PAD, BOS, EOS, UNK))
    return b"".join(bytes([self._bytes[c]]) if c in self._bytes else c.encode() for piece in kept for c in piece)

  def pieces(self, ids: Sequence[int]) -> list[str]:
    """The text of each id, with U+2581 for a space and U+21B5 for a line end; bytes that are no text as they are
    shown in the vocabulary."""

    def shown(i):
      try:
        return self._read([i]).decode().replace(" ", "\u2581").replace("\n", "\u21b5") or self.raw[i]
      except UnicodeDecodeError:
        return self.raw[i]

    return [shown(int(i)) for i in ids]


def _utf8(text: str) -> bytes:
  return text.encode(errors="replace")
