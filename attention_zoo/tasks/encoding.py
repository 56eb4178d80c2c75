"""What tasks have in common whose model reads a text as a whole: an encoder, and a head of the task's own on it.

An encoder is any model with

  - BATCH of some of "inputs", "segments", "positions" and "types" (`data/examples.py`): a row is a text, or two that
    `types` tells apart, beginning with <s>, each ended by </s>.
  - hidden(batch, *, train) -> BTD, a method: the output at each token. Language models have it too; one with a state
    returns (BTD, carry).
  - "characters" [B, T, W] in BATCH too, where it reads those of whole words (`data/words.py`), and `word_length`, W, in
    its Config; WORD_TABLE in its module, the path of the parameter that config.data.word_vectors is for, `d_word` wide.
  - Perhaps pooled(x_BTD) -> BU, a method: what stands for the whole row (BERT's pooler, which
    config.head.pooling = "pooler" asks for).

The parameters of a run are the encoder's, under the names that they have in every task, and beside them the head's
under one name of the task's own, `HEAD`. So config.train.init_from takes a pretrained encoder from a run of any task,
also from language modelling, and draws a new head; the vocabulary comes with it.
`tests/conformance/test_encoders.py` holds every encoder to this.

Letters beside the house's: U width of what stands for a row.
"""

import functools
import hashlib
import logging

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.data import examples as batches_lib
from attention_zoo.data import tokenizer as tokenizers
from attention_zoo.data import word_vectors, wordpiece, words
from attention_zoo.data.batches import batch_rows, prefetch
from attention_zoo.data.characters import FIRST
from attention_zoo.errors import UserError
from attention_zoo.protocols import Initial
from attention_zoo.tasks.text import DATA, WORDS, TextTask
from attention_zoo.training.config import COUNT, TEXT, Field

logger = logging.getLogger(__name__)

TOKENIZERS = ("wordpiece", "byte_bpe", "bpe", "unigram", "characters", "bytes", "words")
ENCODED = {
  **DATA,
  **WORDS,
  "word_vectors": Field(str, default=""),  # a file that words begin with (`data/word_vectors.py`); "": at random
  "normalization": Field(str, default="nmt_nfkc"),
  "split_digits": Field(bool, default=False),
  "tokenizer": Field(str, choices=TOKENIZERS),
  "lower": Field(bool, default=True),  # whether word pieces are of text made lower-case, without accents
  "vocabulary": Field(str, default=""),  # a published vocab.txt of word pieces; "": it is learnt
  "separators": Field(int, low=1, high=2, default=1),  # </s> between two sentences; RoBERTa has two
}
LABELS = Field(tuple)  # all that there are; the order is that of the outputs
HEAD_DROPOUT = Field(float, low=0.0, high=1.0, default=0.1)
POOLING = TEXT  # "pooler", or one of layers/heads.POOLINGS


class EncoderTask(TextTask):
  """A task has HEAD, `head` (a Flax module), `source` (with `examples(split)` and `fingerprint(split)`),
  `encode(examples)`, and the loss."""

  HEAD = ""
  LABEL_SHAPES = {}  # name -> (letters "B" or "BT", type) of what its batches have beside the texts
  DECODE = {"batch_tokens": COUNT}

  def __init__(self, config, workdir):
    super().__init__(config, workdir)
    self.examples = functools.cache(self.examples)
    whole = config.data.tokenizer == "words"
    if self.spells and not whole:
      raise UserError(
        f"config.model.name = {config.model.name!r} reads the characters of whole words: "
        f'set config.data.tokenizer to "words", not "{config.data.tokenizer}"'
      )
    if config.data.get("word_vectors") and not (whole and hasattr(self.module, "WORD_TABLE")):
      raise UserError(
        f'config.data.word_vectors is for config.data.tokenizer = "words" and a model with a table of words, '
        f'which {config.model.name} has not: set it to ""'
      )
    self._encoded = functools.cache(self._encoded)

  # Text and vocabulary

  def training_texts(self):
    return _Sentences(self.source)

  def _vocabulary_settings(self):
    settings = super()._vocabulary_settings()
    data = self.config.data
    if "inherited" in settings:
      return settings
    if data.vocabulary and data.tokenizer != "wordpiece":
      raise UserError(
        f'config.data.vocabulary is a file of word pieces: set config.data.tokenizer to "wordpiece", not '
        f'"{data.tokenizer}"'
      )
    if data.tokenizer == "wordpiece":
      settings["lower"] = data.lower
      if data.vocabulary:
        settings["published"] = hashlib.sha256(tokenizers.read_model(data.vocabulary)).hexdigest()
    return settings

  @property
  def inherits(self) -> bool:
    """Not where words are read by their characters: what is taken then may know another list of words, or none."""
    return not self.spells

  def _learn(self, tokenizer, vocab_size, published=None, **settings):
    if published is not None:
      name = self.config.data.vocabulary
      pieces, _ = wordpiece.read(tokenizers.read_model(name, published), name)
      if len(pieces) != vocab_size:
        raise UserError(f"{name} has {len(pieces)} pieces, but config.data.vocab_size = {vocab_size}: set it to that")
      return wordpiece.dump(pieces, settings["lower"])
    return super()._learn(tokenizer, vocab_size, **settings)

  def claim(self):
    super().claim()
    said = self.config.data.lower
    if (lower := getattr(self._vocabulary, "lower", said)) != said:
      logger.warning(
        "config.data.lower = %s, but the vocabulary that the run was given %s text lower-case, and that holds: set the "
        "field to %s, or give it another vocabulary", said, "makes" if lower else "does not make", lower,
      )  # fmt: skip

  # Batches

  def examples(self, split: str) -> list:
    """Those of the split as the source has them."""
    return list(self.source.examples(split))

  @functools.cached_property
  def batches(self):
    """The endless training batches, random access by step."""
    data = self.config.data
    encoded = self.encode(self.examples("train"))
    return batches_lib.ExampleBatches(encoded, rows=self._rows, length=data.row_length, seed=data.seed)

  def encode_texts(self, texts, labels) -> list[batches_lib.Encoded]:
    """texts: of one or two sentences each; labels: dicts of what is known of each. A warning counts those cut short."""
    data = self.config.data
    whole = [sentence for sentences in texts for sentence in sentences]
    ids, spelt = iter(self.tokenizer.encode(whole)), iter(self.spelt(whole) or ())
    pairs = [
      batches_lib.encode(
        [next(ids) for _ in sentences], length=data.row_length, separators=data.separators, labels=label,
        spelt=[next(spelt) for _ in sentences] if self.spells else None,
      )
      for sentences, label in zip(texts, labels, strict=True)
    ]  # fmt: skip
    if cut := sum(short for _, short in pairs):
      logger.warning("%d of %d texts were cut to config.data.row_length = %d tokens", cut, len(pairs), data.row_length)
    return [encoded for encoded, _ in pairs]

  @property
  def spells(self) -> bool:
    """Whether the model reads the characters of words."""
    return "characters" in self.module.BATCH

  def spelt(self, texts) -> list[np.ndarray] | None:
    """The characters of the words of each text [words, W]; None where the model does not read them. A text that is
    nothing but space has one word of no characters."""
    if not self.spells:
      return None
    width, marks = self.model_config.word_length, self.tokenizer.marks
    return [words.spelt(words.split(text, marks) or [""], width) for text in texts]

  def known_params(self):
    """Vectors of words out of a file. Of a word that the file lacks the row stays as it was drawn."""
    if not (name := self.config.data.word_vectors):
      return {}
    self.claim()
    file, tokenizer = word_vectors.make(name), self.tokenizer
    path, width = self.module.WORD_TABLE, self.model_config.d_word
    found = word_vectors.select(file, tokenizer.words, width)
    logger.info("%s has %d of %d words", file.path, found.found_V.sum(), len(tokenizer.words))

    def known(table_VD):
      rows = FIRST + np.flatnonzero(found.found_V)
      table_VD = np.array(table_VD)
      table_VD[rows] = found.table_VD[found.found_V]
      return table_VD

    return {path: known}

  def train_batches(self, start, parts, count):
    self.claim()
    batches = self.batches
    next(iter(self.eval_batches("dev")), None)  # What is wrong with it is told now, not at the first evaluation.
    return prefetch(batches, start, parts, count)

  def train_shapes(self):
    return self.batches.shapes

  @property
  def _rows(self):
    data = self.config.data
    return batch_rows(data.batch_tokens, data.row_length, data.row_multiple)

  def eval_batches(self, split):
    rows = batches_lib.in_batches(self._encoded(split), rows=self._rows, length=self.config.data.row_length)
    return (batch for _, batch in rows)

  def _encoded(self, split):
    return self.encode(self.examples(split))

  def batch_shapes(self):
    size = self._rows, self.config.data.row_length
    texts = {name: jax.ShapeDtypeStruct(size, jnp.int32) for name in batches_lib.INPUTS}
    if "word_length" in self.config.model:
      texts["characters"] = jax.ShapeDtypeStruct((*size, self.config.model.word_length), jnp.int32)
    labels = self.LABEL_SHAPES.items()
    return texts | {name: jax.ShapeDtypeStruct(size[: len(letters)], dtype) for name, (letters, dtype) in labels}

  # The model

  def init(self, rng) -> Initial:
    """The encoder, as it is in every task, and the head."""
    initial = super().init(rng)
    x_BTD, batch_B = jax.eval_shape(lambda params: self._tiny(params), initial.params)
    x_BTD = jnp.zeros(x_BTD.shape, x_BTD.dtype)
    batch = {name: jnp.zeros(x.shape, x.dtype) for name, x in batch_B.items()}
    pooled = self.pooled(initial.params, batch, x_BTD)
    head = self.head.init(jax.random.fold_in(rng, 1), pooled)["params"]
    return initial._replace(params=initial.params | {self.HEAD: head})

  def _tiny(self, params):
    shapes = self.batch_shapes().items()
    batch = {name: jnp.zeros((1, 2, *x.shape[2:])[: len(x.shape)], x.dtype) for name, x in shapes}
    return self.encoded(params, batch, None)[0], batch

  def encoded(self, params, batch, rng):
    """(the encoder's output BTD, what its layers add, see `added`). rng None: without dropout. The 1 that a language
    model adds for the bias of its logits is left out."""
    hidden, sown = self.apply_hidden(params, batch, rng)
    x_BTD = hidden[0] if hasattr(self.module, "carry") else hidden
    return x_BTD[..., :-1] if "output_bias_V" in params else x_BTD, sown

  @property
  def has_pooler(self) -> bool:
    return hasattr(self.module.Model, "pooled") and getattr(self.model_config, "pooler", True)

  def pooled(self, params, batch, x_BTD):
    """What the head reads."""
    return x_BTD

  def apply_head(self, params, pooled, rng):
    rngs = None if rng is None else {"dropout": jax.random.fold_in(rng, 1)}
    return self.head.apply({"params": params[self.HEAD]}, pooled, train=rng is not None, rngs=rngs)

  def scores(self, params, batch, rng=None):
    """(what the head makes of a batch, the encoder's output, what its layers add)."""
    x_BTD, sown = self.encoded(params, batch, rng)
    return self.apply_head(params, self.pooled(params, batch, x_BTD), rng), x_BTD, sown

  def summarize(self, sums):
    return super().summarize(sums) if "nll" in sums else super(TextTask, self).summarize(sums)


class _Sentences:
  """All training sentences, for a vocabulary; each iteration reads them anew."""

  def __init__(self, source):
    self._source = source

  def __iter__(self):
    for example in self._source.examples("train"):
      yield from example.texts if hasattr(example, "texts") else (" ".join(example.words),)


def check_labels(config, least=2) -> tuple[str, ...]:
  """config.data.labels. Raises UserError unless they are texts that differ."""
  labels = tuple(config.data.labels)
  if not all(isinstance(label, str) and label for label in labels) or len(set(labels)) != len(labels):
    raise UserError(f"config.data.labels = {labels!r:.200} must be texts that differ")
  if len(labels) < least:
    raise UserError(f"config.data.labels = {labels!r} must name at least {least}")
  return labels


def sees_both_sides(module) -> bool:
  """Whether the model is pretrained by seeing what stands behind a token: such encoders read `types`, causal language
  models do not. The tests of conformance hold both to what they see."""
  return "types" in module.BATCH


def is_causal(module) -> bool:
  """Whether it is a language model whose output at a token depends on that and those before it."""
  return hasattr(module, "output_table") and not sees_both_sides(module)


def real_rows(batch):
  """Which rows hold an example, float32 B."""
  return (batch["segments"][:, 0] > 0).astype(jnp.float32)


def finite(scores) -> np.ndarray:
  scores = np.asarray(scores)
  if not np.isfinite(scores).all():
    raise UserError("the model's output is not finite: the checkpoint is of a run that has diverged, take another")
  return scores
