"""Pre-tokenised parallel text, kept on disk and memory-mapped."""

import contextlib
import dataclasses
import fcntl
import hashlib
import itertools
import json
import logging
import os
import pathlib
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import TextIO

import numpy as np

from attention_zoo import files
from attention_zoo.data.progress import counted
from attention_zoo.data.sources import Source
from attention_zoo.data.tokenizer import EOS, Tokenizer
from attention_zoo.errors import UserError

logger = logging.getLogger(__name__)

_FORMAT = 2  # of the files; part of the key
_CHUNK = 20_000  # pairs tokenised at once


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Sentence pairs as flat token arrays; sentence i is tokens[offsets[i]:offsets[i + 1]], EOS at its end."""

  source_tokens: np.ndarray  # int32
  source_offsets: np.ndarray  # int64, one more than there are pairs
  target_tokens: np.ndarray
  target_offsets: np.ndarray
  max_length: int = 0  # tokens a side, EOS included; longer ones were truncated or skipped (0 = no limit)
  too_long: int = 0  # how many pairs that were

  def __len__(self) -> int:
    return len(self.source_offsets) - 1

  @property
  def source_lengths(self) -> np.ndarray:
    return np.diff(self.source_offsets)

  @property
  def target_lengths(self) -> np.ndarray:
    return np.diff(self.target_offsets)


def build_corpus(
  source: Source,
  split: str,
  tokenizer: Tokenizer,
  *,
  max_length: int,
  too_long: str = "truncate",
  cache_dir: str | os.PathLike,
) -> Corpus:
  """Tokenises a split, or opens it where that was done before.

  max_length: tokens on each side, EOS included. too_long: a pair with a longer side is shortened ("truncate")
  or left out ("skip"), and counted. The cache is keyed by the text, the tokenizer and these settings, streams
  to disk in chunks, and appears all at once: any number of processes may build it at the same time. What is not as
  it was written is built anew. It is memory-mapped and therefore local: for a cache_dir on Cloud Storage the
  machine's temporary directory serves.

  Raises UserError for wrong text, a split without a sentence, and a cache_dir that cannot be read or written.
  """
  if too_long not in ("truncate", "skip"):
    raise UserError(f'config.data.too_long="{too_long}" is unknown: use "truncate" or "skip".')
  if max_length < 2:
    raise UserError(f"config.data.max_length={max_length} leaves no room for a token and the end of the sentence.")
  key = (_FORMAT, source.languages, source.fingerprint(split), tokenizer.fingerprint, max_length, too_long)
  name = hashlib.sha256(repr(key).encode()).hexdigest()[:20]
  directory = _local(cache_dir) / name
  corpus = _load(directory, tokenizer.vocab_size)
  if corpus is None:
    try:
      with _temporary(directory) as (temporary, meta):
        _build(source, split, tokenizer, max_length, too_long, temporary, meta)
        if (corpus := _load(directory, tokenizer.vocab_size)) is None:  # else another process was faster
          if os.path.lexists(directory):
            logger.warning("%s is not as it was written, and is made anew", directory)
            _remove(directory)
          temporary.rename(directory)
    except OSError as error:
      raise UserError(f"cannot write {directory}: {error.strerror or error}") from error
    corpus = corpus or _load(directory, tokenizer.vocab_size)
    if corpus is None:
      raise UserError(f"{directory} does not hold what was written there a moment ago")
  if not len(corpus):
    raise UserError(f"The {split} split holds no sentence pair of at most {max_length} tokens a side.")
  return corpus


def remove_remains(cache_dir) -> None:
  """Deletes what killed processes left half built in a cache; what a process that lives is building stays."""
  cache_dir = _local(cache_dir)
  for path in cache_dir.iterdir() if cache_dir.is_dir() else ():
    if _REMAINS.fullmatch(path.name):
      with contextlib.suppress(OSError), open(path / "meta.json", "rb") as meta:
        fcntl.flock(meta, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever builds holds it
        shutil.rmtree(path, ignore_errors=True)


_ARRAYS = {"source_tokens": np.int32, "source_offsets": np.int64, "target_tokens": np.int32, "target_offsets": np.int64}
_REMAINS = re.compile(r"\.[0-9a-f]{20}\..+\.tmp")


def _local(cache_dir) -> pathlib.Path:
  if not files.is_local(cache_dir):
    return pathlib.Path(tempfile.gettempdir()) / "attention_zoo_data"
  return files.expand(cache_dir)


def _load(directory: pathlib.Path, vocab_size: int) -> Corpus | None:
  """The corpus in a directory; None where there is none, or one that is not as it was written."""
  try:
    with files.open_regular(directory / "meta.json") as file:
      meta = files.parse_json(file.read(1 << 16), file.name)
    if meta.pop("checksum") != _checksum(meta):
      return None
    for name in _ARRAYS:
      with files.open_regular(directory / f"{name}.npy") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != meta["sha256"][name]:
          return None
    arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    corpus = Corpus(**arrays, max_length=meta["max_length"], too_long=meta["too_long"])
  except (UserError, FileNotFoundError, NotADirectoryError, EOFError, ValueError, TypeError, KeyError, AttributeError):
    return None
  except OSError as error:
    raise UserError(f"cannot read {directory}: {error.strerror or error}") from error
  return corpus if _is_sound(corpus, vocab_size) else None


def _checksum(meta: dict) -> str:
  return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _is_sound(corpus: Corpus, vocab_size: int) -> bool:
  """Whether the arrays are of their types, and each sentence and token is there."""
  if any((a := getattr(corpus, name)).dtype != dtype or a.ndim != 1 for name, dtype in _ARRAYS.items()):
    return False
  for tokens, offsets in (
    (corpus.source_tokens, corpus.source_offsets),
    (corpus.target_tokens, corpus.target_offsets),
  ):
    if (
      len(offsets) != len(corpus) + 1
      or offsets[:1] != [0]
      or offsets[-1] != len(tokens)
      or (np.diff(offsets) < 1).any()
    ):
      return False
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocab_size:
      return False
  return True


@contextlib.contextmanager
def _temporary(directory: pathlib.Path) -> Iterator[tuple[pathlib.Path, TextIO]]:
  """A directory beside `directory` that is removed at the end if it is still there,
  and its meta.json, open and locked."""
  directory.parent.mkdir(parents=True, exist_ok=True)
  temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".tmp", dir=directory.parent))
  try:
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o777 & ~umask)  # mkdtemp's are for their owner alone
    with open(temporary / "meta.json", "w") as meta:
      with contextlib.suppress(OSError):  # some network disks have no locks
        fcntl.flock(meta, fcntl.LOCK_EX)
      yield temporary, meta
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _remove(path: pathlib.Path) -> None:
  """Deletes a file, a link or a directory, whose name is free at once."""
  aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
  path.rename(aside)
  if aside.is_dir() and not aside.is_symlink():
    shutil.rmtree(aside, ignore_errors=True)
  else:
    aside.unlink()


def _build(source, split, tokenizer, max_length, too_long, directory: pathlib.Path, meta_file) -> None:
  pairs = over = 0
  with contextlib.ExitStack() as stack:
    sides = [stack.enter_context(contextlib.closing(_Side(directory, name))) for name in ("source", "target")]
    for chunk in _chunks(counted(source.pairs(split), f"Pairs of {split} tokenized")):
      sources, targets = zip(*chunk, strict=True)
      tokens = [tokenizer.encode(sources), tokenizer.target.encode(targets)]
      longer = [max(len(s), len(t)) >= max_length for s, t in zip(*tokens, strict=True)]
      over += sum(longer)
      if too_long == "skip":
        tokens = [[s for s, long in zip(side, longer, strict=True) if not long] for side in tokens]
      for side, sentences in zip(sides, tokens, strict=True):
        side.add(sentences, max_length)
      pairs += len(tokens[0])
  meta = dict(split=split, pairs=pairs, too_long=over, max_length=max_length, sha256={})
  for name in _ARRAYS:
    with open(directory / f"{name}.npy", "rb") as file:
      meta["sha256"][name] = hashlib.file_digest(file, "sha256").hexdigest()
  json.dump(meta | {"checksum": _checksum(meta)}, meta_file)
  meta_file.flush()


class _Side:
  """Appends the tokens and offsets of one language to two files."""

  def __init__(self, directory: pathlib.Path, name: str):
    self._tokens = _GrowingArray(directory / f"{name}_tokens.npy", np.int32)
    self._offsets = _GrowingArray(directory / f"{name}_offsets.npy", np.int64)
    self._offsets.append(np.zeros(1, np.int64))
    self._total = 0

  def add(self, sentences: list[list[int]], max_length: int) -> None:
    sentences = [sentence[: max_length - 1] for sentence in sentences]
    lengths = np.fromiter((len(sentence) + 1 for sentence in sentences), np.int64, len(sentences))
    flat = itertools.chain.from_iterable((*sentence, EOS) for sentence in sentences)
    self._tokens.append(np.fromiter(flat, np.int32, lengths.sum()))
    self._offsets.append(self._total + np.cumsum(lengths))
    self._total += int(lengths.sum())

  def close(self) -> None:
    self._tokens.close()
    self._offsets.close()


class _GrowingArray:
  """A .npy file of one dimension, written piece by piece."""

  def __init__(self, path: pathlib.Path, dtype):
    self._file, self._dtype, self._size = path.open("wb"), np.dtype(dtype), 0
    self._header()

  def _header(self) -> None:
    # NumPy leaves room in the header for the length to grow.
    description = np.lib.format.dtype_to_descr(self._dtype)
    np.lib.format.write_array_header_1_0(
      self._file, {"descr": description, "fortran_order": False, "shape": (self._size,)}
    )

  def append(self, values: np.ndarray) -> None:
    self._file.write(np.ascontiguousarray(values, self._dtype).data)
    self._size += len(values)

  def close(self) -> None:
    self._file.seek(0)
    self._header()
    self._file.close()


def _chunks(pairs: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
  pairs = iter(pairs)
  while chunk := list(itertools.islice(pairs, _CHUNK)):
    yield chunk
