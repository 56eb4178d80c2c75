"""Vocabularies of single characters or bytes, with the interface of `tokenizer.Tokenizer`."""

import hashlib
import json
from collections.abc import Iterable, Sequence

from attention_zoo.data.tokenizer import BOS, EOS, PAD, UNK
from attention_zoo.errors import UserError

SPECIAL = {PAD: "<pad>", BOS: "<s>", EOS: "</s>", UNK: "<unk>"}
FIRST = len(SPECIAL)


def learn(texts: Iterable[str], *, vocab_size: int) -> bytes:
  """The content of tokenizer.model for the characters of these texts. Raises UserError for another number of them."""
  alphabet = set()
  for text in texts:
    alphabet.update(text)
  if not alphabet:
    raise UserError("The training split holds no text to learn characters from.")
  if len(alphabet) + FIRST != vocab_size:
    raise UserError(
      f"config.data.vocab_size = {vocab_size}, but the training text has {len(alphabet)} different characters, "
      f"and {FIRST} ids are special: set it to {len(alphabet) + FIRST}"
    )
  return json.dumps({"characters": "".join(sorted(alphabet))}).encode()


def learn_bytes(*, vocab_size: int) -> bytes:
  """The content of tokenizer.model for bytes: nothing is learnt. Raises UserError for another size."""
  if vocab_size != FIRST + 256:
    raise UserError(f"config.data.vocab_size = {vocab_size}: bytes need {FIRST + 256}")
  return json.dumps({"bytes": True}).encode()


def parse(model: bytes, path):
  """The tokenizer that `learn` or `learn_bytes` wrote; None for another kind of file.
  Raises UserError for a damaged one."""
  if not model.startswith(b"{"):
    return None
  try:
    said = json.loads(model)
    if said == {"bytes": True}:
      return Bytes(model)
    characters = said["characters"]
    if not isinstance(characters, str) or len(set(characters)) != len(characters) or not characters:
      raise ValueError("its characters are not all different")
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise UserError(f"{path} is not a vocabulary of characters: {error}") from error
  return Characters(model, characters)


class Characters:
  """One id for each character of the training text; any other is <unk>."""

  target = property(lambda self: self)
  spaces = True  # a space belongs to the word behind it

  def __init__(self, model: bytes, characters: str):
    self.fingerprint = hashlib.sha256(model).hexdigest()
    self._characters = characters
    self._ids = {character: FIRST + i for i, character in enumerate(characters)}

  @property
  def vocab_size(self) -> int:
    return FIRST + len(self._characters)

  def encode(self, sentences: Sequence[str]) -> list[list[int]]:
    """The ids of each text, without special ids."""
    return [[self._ids.get(character, UNK) for character in text] for text in sentences]

  def unknown(self, text: str) -> list[str]:
    """The characters of a text that are not in the vocabulary."""
    return sorted(set(text) - set(self._ids))

  def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
    """The text of each list of ids; special ids but <unk> vanish."""
    return ["".join(self._character(int(i)) for i in text) for text in ids]

  def pieces(self, ids: Sequence[int]) -> list[str]:
    """The character of each id, with U+2581 for a space and U+21B5 for a line end."""
    shown = {" ": "▁", "\n": "↵"}
    return [SPECIAL.get(int(i)) or shown.get(c := self._character(int(i)), c) for i in ids]

  def _character(self, index):
    return self._characters[index - FIRST] if index >= FIRST else "\N{DOUBLE QUESTION MARK}" if index == UNK else ""


class Bytes:
  """One id for each byte of UTF-8."""

  target = property(lambda self: self)
  spaces = True  # a space belongs to the word behind it
  vocab_size = FIRST + 256

  def __init__(self, model: bytes):
    self.fingerprint = hashlib.sha256(model).hexdigest()

  def encode(self, sentences: Sequence[str]) -> list[list[int]]:
    """The ids of each text, without special ids."""
    return [[FIRST + byte for byte in text.encode()] for text in sentences]

  def unknown(self, text: str) -> list[str]:
    return []

  def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
    """The text of each list of ids; special ids vanish, and what is no UTF-8 becomes U+FFFD."""
    return [bytes(int(i) - FIRST for i in text if i >= FIRST).decode(errors="replace") for text in ids]

  def pieces(self, ids: Sequence[int]) -> list[str]:
    """The byte of each id as <0x41>."""
    return [SPECIAL.get(int(i)) or f"<0x{int(i) - FIRST:02X}>" for i in ids]
