"""Pre-tokenised parallel text, kept on disk and memory-mapped."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np

from attention_zoo import files
from attention_zoo.data.progress import counted
from attention_zoo.data.sources import Source
from attention_zoo.data.tokenizer import EOS, Tokenizer
from attention_zoo.errors import UserError

_FORMAT = 1  # of the files; part of the key
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
  to disk in chunks, and appears all at once: any number of processes may build it at the same time. It is
  memory-mapped and therefore local: for a cache_dir on Cloud Storage the machine's temporary directory serves.

  Raises UserError for wrong text, a split without a sentence, and a cache_dir that cannot be written.
  """
  if too_long not in ("truncate", "skip"):
    raise UserError(f'data.too_long="{too_long}" is unknown: use "truncate" or "skip".')
  if max_length < 2:
    raise UserError(f"data.max_length={max_length} leaves no room for a token and the end of the sentence.")
  key = (_FORMAT, source.languages, source.fingerprint(split), tokenizer.fingerprint, max_length, too_long)
  name = hashlib.sha256(repr(key).encode()).hexdigest()[:20]
  if not files.is_local(cache_dir):
    cache_dir = pathlib.Path(tempfile.gettempdir()) / "attention_zoo_data"
  directory = files.expand(cache_dir) / name
  if not directory.is_dir():
    try:
      _build(source, split, tokenizer, max_length, too_long, directory)
    except OSError as error:
      raise UserError(f"cannot write {directory}: {error.strerror or error}") from error
  try:
    return _load(directory, split)
  except OSError as error:
    raise UserError(f"cannot read {directory}: {error.strerror or error}") from error


_ARRAYS = ("source_tokens", "source_offsets", "target_tokens", "target_offsets")


def _load(directory: pathlib.Path, split: str) -> Corpus:
  meta = json.loads((directory / "meta.json").read_text())
  if not meta["pairs"]:
    raise UserError(
      f"The {split} split holds no sentence pair of at most {meta['max_length']} tokens a side."
    )
  arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
  return Corpus(**arrays, max_length=meta["max_length"], too_long=meta["too_long"])


def _build(source, split, tokenizer, max_length, too_long, directory: pathlib.Path) -> None:
  directory.parent.mkdir(parents=True, exist_ok=True)
  temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".tmp", dir=directory.parent))
  try:
    pairs = over = 0
    with contextlib.ExitStack() as stack:
      sides = [
        stack.enter_context(contextlib.closing(_Side(temporary, name))) for name in ("source", "target")
      ]
      for chunk in _chunks(counted(source.pairs(split), f"Pairs of {split} tokenized")):
        tokens = [tokenizer.encode(sentences) for sentences in zip(*chunk, strict=True)]
        longer = [max(len(s), len(t)) >= max_length for s, t in zip(*tokens, strict=True)]
        over += sum(longer)
        if too_long == "skip":
          tokens = [[s for s, long in zip(side, longer, strict=True) if not long] for side in tokens]
        for side, sentences in zip(sides, tokens, strict=True):
          side.add(sentences, max_length)
        pairs += len(tokens[0])
    meta = dict(split=split, pairs=pairs, too_long=over, max_length=max_length)
    (temporary / "meta.json").write_text(json.dumps(meta))
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o777 & ~umask)  # mkdtemp's are for their owner alone
    try:
      temporary.rename(directory)
    except OSError:
      # Another process was faster, with the same content.
      if not directory.is_dir():
        raise
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


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
