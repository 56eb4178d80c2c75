"""SentencePiece vocabularies, shared by the two languages and stored with the run."""

import hashlib
import io
import os
import re
import uuid
from collections.abc import Iterable, Sequence

from etils import epath

from attention_zoo.data.progress import counted
from attention_zoo.errors import UserError

PAD, BOS, EOS, UNK = 0, 1, 2, 3

# Beyond this many sentences a vocabulary does not get better, only its training longer.
MAX_TRAINING_SENTENCES = 4_000_000
# The 256 byte pieces are a luxury that a small vocabulary cannot afford.
BYTE_FALLBACK_FROM = 4096


def train(
  sentences: Iterable[str],
  path: str | os.PathLike,
  *,
  vocab_size: int,
  model_type: str = "bpe",
  normalization: str = "nmt_nfkc",
  split_digits: bool = False,
  byte_fallback: bool | None = None,
) -> None:
  """Trains a SentencePiece model on `sentences` (both languages) and writes it to `path`, atomically.

  The result is a pure function of the arguments. With `byte_fallback` (default: for vocabularies of at least
  4,096 pieces) characters outside the vocabulary are spelt as bytes, so that any text can be encoded; without
  it every character of the training text is in the vocabulary and any other one becomes <unk>.
  `normalization` is one of SentencePiece's rule names; "identity" keeps the text, spaces included.

  Raises UserError when the data cannot fill the vocabulary, the vocabulary cannot hold the characters, or
  `path` cannot be written.
  """
  import sentencepiece

  if byte_fallback is None:
    byte_fallback = vocab_size >= BYTE_FALLBACK_FROM
  model = io.BytesIO()
  failures = []  # of reading the sentences: SentencePiece only passes their text on

  def read():
    try:
      yield from counted(sentences, "Sentences read for the tokenizer")
    except Exception as error:
      failures.append(error)
      raise

  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=read(),
      model_writer=model,
      vocab_size=vocab_size,
      model_type=model_type,
      normalization_rule_name=normalization,
      remove_extra_whitespaces=normalization != "identity",
      split_digits=split_digits,
      byte_fallback=byte_fallback,
      character_coverage=0.9999 if byte_fallback else 1.0,
      input_sentence_size=MAX_TRAINING_SENTENCES,
      shuffle_input_sentence=True,
      num_threads=16,  # not the machine's: the pieces of a unigram model depend on it
      pad_id=PAD,
      bos_id=BOS,
      eos_id=EOS,
      unk_id=UNK,
      minloglevel=2,
    )
  except (RuntimeError, ValueError) as error:
    if failures:
      raise failures[0] from None
    raise _explained(error, vocab_size, model_type, normalization) from error
  _write(epath.Path(path), model.getvalue())


def _explained(error: Exception, vocab_size: int, model_type: str, normalization: str) -> Exception:
  """What a user can do about SentencePiece's `error`; the error itself where that is unknown."""
  text = str(error)
  if found := re.search(r"too high .*<= (\d+)", text):
    return UserError(
      f"data.vocab_size={vocab_size} is too large for the training data: a {model_type} vocabulary can have "
      f"at most {found[1]} pieces here. Set data.vocab_size to {found[1]} or less."
    )
  if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", text):
    return UserError(
      f"data.vocab_size={vocab_size} is too small for the training data: its characters and the special "
      f"pieces alone are {found[1]}. Set data.vocab_size to more than {found[1]}."
    )
  if "sentences_.empty()" in text:
    return UserError("The training split holds no text to train a tokenizer on.")
  if "charsmap" in text:
    return UserError(
      f'data.normalization="{normalization}" is unknown to SentencePiece: '
      'use "nmt_nfkc", "nmt_nfkc_cf", "nfkc", "nfkc_cf" or "identity".'
    )
  if "ModelType" in text:
    return UserError(f'data.tokenizer="{model_type}" is unknown to SentencePiece: use "bpe" or "unigram".')
  return error


def _write(path: epath.Path, content: bytes) -> None:
  # A random name: processes on several machines write at the same time, and may have the same number.
  temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}"
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      temporary.write_bytes(content)
      temporary.replace(path)
    finally:
      temporary.unlink(missing_ok=True)
  except OSError as error:
    raise UserError(f"cannot write {path}: {error.strerror or error}") from error


class Tokenizer:
  """A trained SentencePiece model; `path` is local or on Cloud Storage (gs://)."""

  def __init__(self, path: str | os.PathLike):
    import sentencepiece

    path = epath.Path(path)
    try:
      model = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
      raise UserError(f"There is no tokenizer at {path}.") from error
    try:
      self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
      raise UserError(f"{path} is not a SentencePiece model: {error}") from error
    special = tuple(getattr(self._processor, name)() for name in ("pad_id", "bos_id", "eos_id", "unk_id"))
    if special != (PAD, BOS, EOS, UNK):
      raise UserError(
        f"{path} has the ids {special} for padding, begin, end and unknown; "
        f"{(PAD, BOS, EOS, UNK)} are needed. Train it with attention_zoo.data.tokenizer.train."
      )
    self.fingerprint = hashlib.sha256(model).hexdigest()

  @property
  def vocab_size(self) -> int:
    return self._processor.get_piece_size()

  def encode(self, sentences: Sequence[str]) -> list[list[int]]:
    """The ids of each sentence, without special ids."""
    return self._processor.encode(list(sentences))

  def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
    """The text of each list of ids; special ids but <unk> vanish."""
    return [self._processor.decode(list(map(int, sentence))) for sentence in ids]

  def pieces(self, ids: Sequence[int]) -> list[str]:
    """The piece of each id, with U+2581 for a space."""
    return [self._processor.id_to_piece(int(i)) for i in ids]
