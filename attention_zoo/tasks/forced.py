"""Text that translations must hold, prefixes and words, as the constraints of a beam search."""

import numpy as np

from attention_zoo.data.tokenizer import EOS, UNK
from attention_zoo.decoding.batching import padded_length
from attention_zoo.decoding.constraints import NONE, Constraints
from attention_zoo.errors import UserError
from attention_zoo.tasks import arguments


class Forced:
  """The prefixes and words of the sentences of one call.

  sources: ids of each sentence, EOS alone where it is empty. prefixes: a text a sentence, "" for none, or None;
  force_words: a list of texts a sentence, or None. Raises UserError, which names the index: for another number of them
  than sentences, characters that the vocabulary does not have, a text for an empty sentence, an empty word, and a
  prefix that leaves no room.
  """

  def __init__(self, task, sources, prefixes=None, force_words=None):
    self._tokenizer = task.tokenizer.target
    self.words = self.phrases = [[]] * len(sources)
    self.prefixes = [[]] * len(sources)
    if prefixes is not None:
      texts = arguments.sentences(prefixes, "prefixes")
      arguments.as_many("prefixes", texts, sources)
      self.prefixes = [self._ids(text, f"prefixes[{i}]") for i, text in enumerate(texts)]
    if force_words is not None:
      given = arguments.items(force_words, "force_words", of="lists of words", write='[["word"], ...]')
      self.words = [arguments.sentences(words, f"force_words[{i}]") for i, words in enumerate(given)]
      arguments.as_many("force_words", self.words, sources)
      self.phrases = [
        [self._ids(w, f"force_words[{i}][{k}]") for k, w in enumerate(ws)] for i, ws in enumerate(self.words)
      ]
    for i, source in enumerate(sources):
      self._check(i, source, task)

  def _ids(self, text, name):
    ids = self._tokenizer.encode([text])[0] if text.strip() else []
    if UNK in ids:
      unknown = "".join(sorted({c for c in text if UNK in self._tokenizer.encode([c])[0]}))
      raise UserError(f"{name} = {text!r} holds characters that the vocabulary does not have: {unknown!r}")
    return ids

  def _check(self, i, source, task):
    prefix, phrases = self.prefixes[i], self.phrases[i]
    if source == [EOS] and (prefix or phrases):
      raise UserError(
        f"sentences[{i}] is empty, and so is its translation: "
        f"{'prefixes' if prefix else 'force_words'}[{i}] must be, too"
      )
    if [] in phrases:
      raise UserError(f"force_words[{i}][{phrases.index([])}] is empty: leave it out")
    limit = longest(task, source)
    if len(prefix) >= limit:
      raise UserError(
        f"prefixes[{i}] has {len(prefix)} pieces, and the translation of sentences[{i}] at most {limit} with </s> "
        f"(its own and config.decode.extra_length = {task.config.decode.extra_length}): shorten it"
      )

  def constraints(self, indices, rows) -> Constraints:
    """Of the sentences `indices`, NumPy arrays of `rows` rows; their other dimensions are the same in every call.

    None where no sentence has a prefix, or a word: the search is then compiled without.
    """
    first = max(map(len, self.prefixes), default=0)
    most = max(map(len, self.phrases), default=0)
    prefix_BT = phrases_BCW = None
    if first:
      prefix_BT = np.full((rows, padded_length(first)), NONE, np.int32)
      for b, i in enumerate(indices):
        prefix_BT[b, : len(self.prefixes[i])] = self.prefixes[i]
    if most:
      widest = max(len(phrase) for phrases in self.phrases for phrase in phrases)
      phrases_BCW = np.full((rows, _rounded(most), _rounded(widest)), NONE, np.int32)
      for b, i in enumerate(indices):
        for c, phrase in enumerate(self.phrases[i]):
          phrases_BCW[b, c, : len(phrase)] = phrase
    return Constraints(prefix_BT, phrases_BCW)

  def missing(self, i, ids) -> tuple[str, ...]:
    """The words of sentence i that do not stand in its translation."""
    return tuple(
      word
      for word, phrase in zip(self.words[i], self.phrases[i], strict=True)
      if not any(ids[start : start + len(phrase)] == phrase for start in range(len(ids)))
    )


def longest(task, source) -> int:
  """The most pieces of a translation, with EOS."""
  limit = len(source) + task.config.decode.extra_length
  return limit if task.longest is None else min(limit, task.longest)


def _rounded(count):
  """Few shapes: the next power of 2."""
  return 1 << (count - 1).bit_length()
