"""Two SentencePiece models, one a language, with one list of pieces for both: the vocabulary of Marian's models.

Marian numbers pieces by their text in a list of its own: what a SentencePiece model calls them is of no account. The
interface is that of `tokenizer.Tokenizer`, for the source language; `target` is the same for the other one.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Sequence

from attention_zoo import files
from attention_zoo.data.tokenizer import BOS, EOS, PAD, RANDOM, UNK
from attention_zoo.errors import UserError

_BEGINNING = b'{"joint_pieces": '


def dump(pieces: Sequence[str], source: bytes, target: bytes) -> bytes:
  """The content of tokenizer.model. pieces: of each id; source, target: content of SentencePiece's files."""
  models = [base64.b64encode(model).decode() for model in (source, target)]
  said = {"joint_pieces": list(pieces), "source": models[0], "target": models[1]}
  return json.dumps(said, ensure_ascii=False).encode()


def read(model: bytes, path) -> tuple[list[str], bytes, bytes] | None:
  """The arguments of `dump`; None for another kind of file. Raises UserError for a damaged one."""
  if not model.startswith(_BEGINNING):
    return None
  said = files.parse_json(model, path)
  try:
    check_pieces(said["joint_pieces"], path)
    return said["joint_pieces"], *(base64.b64decode(said[side], validate=True) for side in ("source", "target"))
  except (KeyError, TypeError, ValueError, binascii.Error) as error:
    raise UserError(f"{path} is not a vocabulary of two languages: {error}") from error


def parse(model: bytes, path):
  """The tokenizer that `dump` wrote; None for another kind of file. Raises UserError for a damaged one."""
  if (found := read(model, path)) is None:
    return None
  pieces, *sides = found
  fingerprint = hashlib.sha256(model).hexdigest()
  ids = {piece: i for i, piece in enumerate(pieces)}
  target = JointPieces(pieces, ids, open_model(sides[1], f"{path}, target"), fingerprint)
  return JointPieces(pieces, ids, open_model(sides[0], f"{path}, source"), fingerprint, target)


def check_pieces(pieces, path) -> None:
  """Raises UserError unless these are pieces, all different, with the special ones."""
  good = isinstance(pieces, list) and len(pieces) > UNK and all(isinstance(piece, str) and piece for piece in pieces)
  if not good or len(set(pieces)) != len(pieces):
    raise UserError(f"{path} is not a list of pieces that all differ")
  check_characters(pieces, path)


def check_characters(pieces, path) -> None:
  """Raises UserError where a piece has half a surrogate, which JSON can hold and a text cannot."""
  try:
    "".join(pieces).encode()
  except UnicodeEncodeError as error:
    raise UserError(f"{path} has a piece that is no text: {error.reason}") from error


def open_model(content: bytes, path):
  """A SentencePieceProcessor. path: for the UserError where it is none."""
  import sentencepiece

  if not content:
    raise UserError(f"{path} is empty")
  try:
    return sentencepiece.SentencePieceProcessor(model_proto=content)
  except RuntimeError as error:
    raise UserError(f"{path} is not a SentencePiece model: {error}") from error


class JointPieces:
  """One of the two languages. target: the other one's, if this is the source's."""

  def __init__(self, pieces, ids, processor, fingerprint, target=None):
    self._pieces, self._ids, self._processor, self.fingerprint = pieces, ids, processor, fingerprint
    self.target = target or self

  @property
  def vocab_size(self) -> int:
    return len(self._pieces)

  def encode(self, sentences: Sequence[str]) -> list[list[int]]:
    """The ids of each sentence, without special ids. A code of a language, ">>fra<<", may stand before it."""
    return self._cut(sentences)

  def _cut(self, sentences, **options):
    parts = [_split_code(sentence) for sentence in sentences]
    cut = self._processor.encode([text for _, text in parts], out_type=str, **options)
    found = [[code, *pieces] if code else pieces for (code, _), pieces in zip(parts, cut, strict=True)]
    return [[self._ids.get(piece, UNK) for piece in pieces] for pieces in found]

  def sample(self, sentences: Sequence[str], amount: float, seed: int) -> list[list[int]]:
    """Random segmentations: see `tokenizer.Tokenizer.sample`."""
    import sentencepiece

    with RANDOM:
      sentencepiece.set_random_generator_seed(seed)
      return self._cut(sentences, enable_sampling=True, alpha=amount, nbest_size=-1, num_threads=1)

  def decode(self, ids: Iterable[Sequence[int]], unknown: str | None = None) -> list[str]:
    """The text of each list of ids; special ids but <unk> vanish.

    unknown: what stands for <unk>, which has spaces around it by default and none then.
    """
    unknown = " \N{DOUBLE QUESTION MARK} " if unknown is None else unknown
    piece = lambda i: unknown if i == UNK else self._pieces[i]
    kept = [[piece(int(i)) for i in sentence if i not in (PAD, BOS, EOS)] for sentence in ids]
    # A piece that only the other language has stays as it is, with its sign for a space.
    return [self._processor.decode_pieces(pieces).replace("\u2581", " ").strip() for pieces in kept]

  def pieces(self, ids: Sequence[int]) -> list[str]:
    """The piece of each id, with U+2581 for a space."""
    return [self._pieces[int(i)] for i in ids]


def _split_code(text: str) -> tuple[str, str]:
  """(">>fra<<" or "", the sentence)."""
  end = text.find("<<") if text.startswith(">>") else -1
  return (text[: end + 2], text[end + 2 :]) if end >= 0 else ("", text)
