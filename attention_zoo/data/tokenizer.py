"""SentencePiece vocabularies, shared by the two languages and stored with the run."""

import hashlib
import io
import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence

from attention_zoo import files
from attention_zoo.data.progress import counted
from attention_zoo.errors import UserError

logger = logging.getLogger(__name__)

RANDOM = threading.Lock()

PAD, BOS, EOS, UNK = 0, 1, 2, 3

# Beyond this many sentences a vocabulary does not get better, only its training longer.
MAX_TRAINING_SENTENCES = 4_000_000
# The 256 byte pieces are a luxury that a small vocabulary cannot afford.
BYTE_FALLBACK_FROM = 4096
# SentencePiece leaves out longer sentences, and those with its own character for "unknown".
_LONGEST = 4192  # bytes
_CUT = re.compile(r".{1,1000}(?:\s|\Z)|.{1,1000}", re.DOTALL)  # a character has at most 4 bytes
_RESERVED = "\u2585"
_SPACE = "\u2581"  # stands for a space in pieces, so that it cannot stand for itself
# A vocabulary of 250,000 pieces has 5 MiB.
_MAX_BYTES = 64 << 20


def train(sentences: Iterable[str], path: str | os.PathLike, **settings) -> None:
  """Writes what `learn` finds to `path`, atomically. Raises UserError as it does,
  and where `path` cannot be written."""
  files.write_bytes(path, learn(sentences, **settings))


def learn(
  sentences: Iterable[str],
  *,
  vocab_size: int,
  model_type: str = "bpe",
  normalization: str = "nmt_nfkc",
  split_digits: bool = False,
  byte_fallback: bool | None = None,
) -> bytes:
  """The SentencePiece model of `sentences` (both languages), as the content of its file.

  sentences: read once, and again where the first time left characters out of the vocabulary; no iterator, therefore.

  The result is a pure function of the arguments. With `byte_fallback` (default: for vocabularies of at least
  4,096 pieces) characters outside the vocabulary are spelt as bytes, so that any text can be encoded; without
  it every character of the training text is in the vocabulary and any other one becomes <unk>. The exceptions
  are those that SentencePiece cannot hold (U+0000, U+2585; U+2581 becomes a space) and those that `normalization`
  drops or makes a space (nmt_nfkc: control characters, U+200B): a warning names them.
  `normalization` is one of SentencePiece's rule names; "identity" keeps the text, spaces included.

  Raises UserError when there is no text, the data cannot fill the vocabulary, or the vocabulary cannot hold the
  characters.
  """
  import sentencepiece

  if iter(sentences) is sentences:
    raise TypeError("sentences may have to be read twice: pass a list, or an object whose iterator begins anew")
  if byte_fallback is None:
    byte_fallback = vocab_size >= BYTE_FALLBACK_FROM
  failures = []  # of reading the sentences: SentencePiece only passes their text on
  written: set[str] = set()  # the characters of the text
  alphabet: set[str] = set()  # those of the text as it is after normalization

  try:
    normalizer = sentencepiece.SentencePieceNormalizer(
      rule_name=normalization, escape_whitespaces=False, add_dummy_prefix=False
    )
  except RuntimeError as error:
    raise _explained(error, vocab_size, model_type, normalization) from error

  def read():
    try:
      for sentence in counted(sentences, "Sentences read for the tokenizer"):
        written.update(sentence)
        alphabet.update(normalizer.normalize(sentence))
        yield from _trainable(sentence)
      if all(character.isspace() for character in alphabet):
        raise UserError("The training split holds no text to train a tokenizer on.")
    except Exception as error:
      failures.append(error)
      raise

  def fit(required_chars):
    model = io.BytesIO()
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
        required_chars=required_chars,
        input_sentence_size=MAX_TRAINING_SENTENCES,
        max_sentence_length=_LONGEST,
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
    return model.getvalue()

  model = fit("")
  # Characters go missing that stand only in literal "<unk>" or "</s>", or in sentences that were not sampled.
  if required := _missing(model, alphabet) - {"\0", _RESERVED, _SPACE}:
    model = fit("".join(sorted(required)))
  dropped = {character for character in written if not (character.isspace() or normalizer.normalize(character).strip())}
  if lost := _missing(model, alphabet) | dropped:
    names = ", ".join(f"U+{ord(character):04X}" for character in sorted(lost))
    logger.warning("the tokenizer cannot hold %d characters of the training text: %s", len(lost), names)
  return model


def _trainable(sentence: str) -> Iterator[str]:
  """The sentence in parts of which SentencePiece leaves out none."""
  for part in sentence.split(_RESERVED):
    yield from _CUT.findall(part) if len(part.encode()) > _LONGEST else (part,)


def _missing(model: bytes, alphabet: set[str]) -> set[str]:
  """Those of these characters that do not survive encoding and decoding."""
  import sentencepiece

  processor = sentencepiece.SentencePieceProcessor(model_proto=model)
  characters = sorted(alphabet - {" ", _SPACE})
  encoded = zip(characters, processor.encode(characters), strict=True)
  return {character for character, ids in encoded if UNK in ids} | alphabet & {_SPACE}


def _explained(error: Exception, vocab_size: int, model_type: str, normalization: str) -> Exception:
  """What a user can do about SentencePiece's `error`; the error itself where that is unknown."""
  text = str(error)
  if found := re.search(r"too high .*<= (\d+)", text):
    return UserError(
      f"config.data.vocab_size={vocab_size} is too large for the training data: a {model_type} vocabulary can have "
      f"at most {found[1]} pieces here. Set config.data.vocab_size to {found[1]} or less."
    )
  if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", text):
    return UserError(
      f"config.data.vocab_size={vocab_size} is too small for the training data: its characters and the special "
      f"pieces alone are {found[1]}. Set config.data.vocab_size to more than {found[1]}."
    )
  if "charsmap" in text:
    return UserError(
      f'config.data.normalization="{normalization}" is unknown to SentencePiece: '
      'use "nmt_nfkc", "nmt_nfkc_cf", "nfkc", "nfkc_cf" or "identity".'
    )
  if "ModelType" in text:
    return UserError(f'config.data.tokenizer="{model_type}" is unknown to SentencePiece: use "bpe" or "unigram".')
  return error


def read_model(path: str | os.PathLike, sha256: str | None = None) -> bytes:
  """The content of a vocabulary's file, local or on Cloud Storage (gs://).

  sha256: what its digest must be. Raises UserError where there is no such file, it is no ordinary one, far too large,
  or not as it was written.
  """
  if not files.expand(path).exists():
    raise UserError(f"There is no tokenizer at {path}.")
  model = files.read_bytes(path, _MAX_BYTES)
  if sha256 is not None and hashlib.sha256(model).hexdigest() != sha256:
    raise UserError(f"{path} is not as it was written (its checksum differs): bring back a copy of the original.")
  return model


class Tokenizer:
  """A trained SentencePiece model, for both languages. path, sha256: of its file, see `read_model`.

  target: the tokenizer of what is translated into; `data/joint_pieces.py` has another one for it.
  """

  target = property(lambda self: self)

  def __init__(self, path: str | os.PathLike, sha256: str | None = None):
    import sentencepiece

    model = read_model(path, sha256)
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

  def sample(self, sentences: Sequence[str], amount: float, seed: int) -> list[list[int]]:
    """Random segmentations of the sentences, a function of the arguments alone.
    amount: see data/sampling.py; seed: 32 bits."""
    import sentencepiece

    if not len(sentences):
      return []
    with RANDOM:  # SentencePiece has one seed for all, which the one thread of a new call begins with
      sentencepiece.set_random_generator_seed(seed)
      return self._processor.encode(
        list(sentences), enable_sampling=True, alpha=amount, nbest_size=-1, num_threads=1
      )

  def decode(self, ids: Iterable[Sequence[int]], unknown: str | None = None) -> list[str]:
    """The text of each list of ids; special ids but <unk> vanish.

    unknown: what stands for <unk>, which has spaces around it by default and none then.
    """
    sentences = (list(map(int, sentence)) for sentence in ids)
    if unknown is None:
      return [self._processor.decode(sentence) for sentence in sentences]
    piece = lambda i: unknown if i == UNK else self._processor.id_to_piece(i)
    return [self._processor.decode_pieces([piece(i) for i in s if i not in (PAD, BOS, EOS)]) for s in sentences]

  def pieces(self, ids: Sequence[int]) -> list[str]:
    """The piece of each id, with U+2581 for a space."""
    return [self._processor.id_to_piece(int(i)) for i in ids]
