"""What every task on text has: a model made from the config,
a vocabulary and a text that belong to the run, packed rows."""

import functools
import hashlib

import jax
import numpy as np
from jax.experimental import multihost_utils

from attention_zoo import files
from attention_zoo.data import byte_bpe, characters, corpus, identity, wordpiece, words
from attention_zoo.data import tokenizer as tokenizers
from attention_zoo.errors import UserError
from attention_zoo.evaluation.perplexity import exp
from attention_zoo.tasks.model_task import ModelTask
from attention_zoo.training import checkpoints, distributed, sharding
from attention_zoo.training.config import COUNT, FLAG, NATURAL, TEXT, Field

DATA = {
  "source": TEXT,
  "dir": TEXT,
  "train_split": TEXT,
  "dev_split": TEXT,
  "test_split": TEXT,
  "vocab_size": COUNT,
  "normalization": TEXT,
  "split_digits": FLAG,
  "batch_tokens": COUNT,
  "row_length": COUNT,
  "row_multiple": COUNT,
  "seed": NATURAL,
  "cache_dir": TEXT,
}


# What a vocabulary of whole words adds to DATA.
WORDS = {
  "marks": Field(bool, default=False),  # whether marks at the end of a word are words of their own
  "buckets": Field(int, low=0, default=0),  # ids that words without one share; 0: they are <unk>
}


class TextTask(ModelTask):
  """A task has `source` (with `fingerprint(split)`), `training_texts()`, and the batches of its kind."""

  GIVEN = ("vocab_size",)
  inherits = True  # whether a run that begins with another one (config.train.init_from) has its vocabulary
  unit = "tokens"
  has_dev_samples = True

  def __init__(self, config, workdir):
    super().__init__(config, workdir)
    if self.longest is not None and config.data.row_length > self.longest:
      raise UserError(
        f"config.data.row_length = {config.data.row_length}, but the model's positions end at "
        f"config.model.max_length = {self.longest}: lower the one or raise the other"
      )

  # The run's text and vocabulary

  @property
  def text_directory(self) -> str:
    return identity.find_text(self.workdir, self.config.data.dir)

  @property
  def cache_dir(self):
    return self.config.data.cache_dir or self.workdir / "data"

  def fingerprint(self) -> str:
    return self.source.fingerprint("train")

  @functools.cached_property
  def _vocabulary(self):
    return identity.tokenizer(self.workdir)

  @functools.cached_property
  def tokenizer(self):
    """The run's vocabulary. `claim` makes it, and nothing else does."""
    tokenizer = self._vocabulary
    if tokenizer.vocab_size != (size := self.config.data.vocab_size):
      raise UserError(
        f"{self.workdir}: the tokenizer has {tokenizer.vocab_size} pieces, but config.data.vocab_size = {size}"
      )
    return tokenizer

  def check(self) -> None:
    _ = self._vocabulary  # held to its checksum when it is opened

  def claim(self) -> None:
    """Learns the vocabulary of a new run, and holds one that exists to its vocabulary and text; for training alone."""
    data = self.config.data
    if jax.process_index() == 0:
      corpus.remove_remains(self.cache_dir)
    trained = bool(checkpoints.steps(self.workdir))
    settings = {} if trained else self._vocabulary_settings()  # where it came from may be gone since
    claim = functools.partial(
      identity.claim,
      self.workdir,
      train=self.fingerprint(),
      directory=str(files.expand(data.dir).absolute()) if files.is_local(data.dir) and data.dir else data.dir,
      settings=settings,
      learn=lambda: self._learn(**(settings or self._vocabulary_settings())),
      trained=trained,
    )
    distributed.first_then_others(claim)
    if jax.process_count() > 1:
      digest = np.frombuffer(bytes.fromhex(self.fingerprint()), np.uint8)
      if (multihost_utils.process_allgather(digest) != digest).any():
        raise UserError(
          f"the processes do not all find the same training text (config.data.dir = {data.dir!r})"
        )

  def _vocabulary_settings(self) -> dict:
    """What the vocabulary depends on beside the text: the arguments of `_learn`."""
    data = self.config.data
    settings = {"tokenizer": data.tokenizer, "vocab_size": data.vocab_size}
    if data.tokenizer in ("bpe", "unigram"):
      settings |= {"normalization": data.normalization, "split_digits": data.split_digits}
    if data.tokenizer == "words":
      settings |= {"marks": data.marks, "buckets": data.buckets}
    if (path := self._inherited()) is not None:
      settings["inherited"] = hashlib.sha256(tokenizers.read_model(path)).hexdigest()
    return settings

  def _inherited(self):
    """Where the vocabulary of the run lies that this one begins with; None: it has its own."""
    name = self.config.train.init_from if self.inherits else ""
    path = files.expand(name) / identity.MODEL if name else None
    if path is None or path.exists():
      return path
    if not (files.expand(self.workdir) / identity.MODEL).exists():
      raise UserError(
        f"config.train.init_from = {name} has no {identity.MODEL}, which says what the rows of its embedding mean: "
        "bring it back, or put the vocabulary into the new workdir"
      )
    return None

  def _learn(self, tokenizer, vocab_size, inherited=None, **settings) -> bytes:
    if inherited is not None:
      return tokenizers.read_model(self._inherited(), inherited)
    if tokenizer == "words":
      return words.learn(self.training_texts(), vocab_size=vocab_size, **settings)
    if tokenizer == "wordpiece":
      return wordpiece.learn(self.training_texts(), vocab_size=vocab_size, **settings)
    if tokenizer == "byte_bpe":
      return byte_bpe.learn(self.training_texts(), vocab_size=vocab_size)
    if tokenizer == "bytes":
      return characters.learn_bytes(vocab_size=vocab_size)
    if tokenizer == "characters":
      return characters.learn(self.training_texts(), vocab_size=vocab_size)
    return tokenizers.learn(self.training_texts(), vocab_size=vocab_size, model_type=tokenizer, **settings)

  # The model

  @property
  def longest(self) -> int | None:
    """The most positions that the model can take; None: any."""
    return self.model_config.max_length if getattr(self.model_config, "bounded", False) else None

  def decoding(self, params, inputs, *, num_beams):
    """The model's `protocols.Decoding`. Raises UserError where it has none."""
    if not hasattr(self.module, "decoding"):
      raise UserError(f"{self.config.model.name} cannot be decoded with: its module has no function decoding")
    return self.module.decoding(self.model_config, params, inputs, num_beams=num_beams)

  def apply_hidden(self, params, batch, rng, method="hidden", **options):
    """`apply` of the model's method `hidden`, or another one, in training and where evaluated."""
    table = lambda path, x: sharding.gather_rows(x) if path[-1].key == "table_VD" else x
    params = jax.tree_util.tree_map_with_path(table, params)
    return self.apply(params, batch, rng, method=method, **options)

  def added(self, sown, weight) -> dict:
    """The sums of a loss that layers add: "balance", whose sum belongs to the loss, and their figures, the means over
    layers. sown: of `apply_hidden`. Empty without mixtures of experts. weight: of the batch."""
    sums = {}
    if balance := jax.tree.leaves(sown.get("losses", {})):
      sums["balance"] = (sum(balance) * weight, weight)
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(sown.get("figures", {})):
      name = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)][-1]
      found.setdefault(name, []).append(leaf)
    return sums | {name: (sum(leaves) / len(leaves) * weight, weight) for name, leaves in found.items()}

  def summarize(self, sums) -> dict:
    means = super().summarize(sums)
    return means | {"perplexity": exp(means["nll"])}
