"""Tasks on documents: what language models are trained on, most of them as one stream of tokens."""

import functools

from attention_zoo.data import windows
from attention_zoo.data.corpus import build_corpus
from attention_zoo.data.documents import make_documents

UNCUT = 1 << 40  # tokens of a document or a sentence


class Documents:
  """Stands before a `TextTask` among a task's bases."""

  def __init__(self, config, workdir):
    super().__init__(config, workdir)
    self.stream = functools.cache(self.stream)

  @functools.cached_property
  def source(self):
    return make_documents(self.config.data, self.text_directory)

  def training_texts(self):
    return _Texts(self.source, "train")

  def stream(self, split: str) -> windows.Stream:
    """The tokens of a split, kept on disk."""
    corpus = build_corpus(Alone(self.source), split, self.tokenizer, max_length=UNCUT, cache_dir=self.cache_dir)
    return windows.Stream(corpus.source_tokens, corpus.source_offsets)


class _Texts:
  """The documents of a split; each iteration reads them anew."""

  def __init__(self, source, split):
    self._source, self._split = source, split

  def __iter__(self):
    return self._source.documents(self._split)


class Alone:
  """Documents as the first side of pairs, for `data/corpus.py`."""

  languages = ("text", "")

  def __init__(self, source):
    self._source, self.fingerprint = source, source.fingerprint

  def pairs(self, split):
    return ((document, "") for document in self._source.documents(split))
