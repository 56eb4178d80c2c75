"""Translation: where parallel text, an encoder-decoder, the smoothed loss and beam search meet.

`Translation` is what the training loop sees; `tasks/translator.py` holds what a user does with trained parameters.
"""

import functools
import itertools
import logging

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from attention_zoo import files, models
from attention_zoo.data import identity
from attention_zoo.data import tokenizer as tokenizers
from attention_zoo.data.batches import BucketedBatches, PackedBatches, batch_rows, eval_batches, prefetch
from attention_zoo.data.corpus import Corpus, build_corpus, remove_remains
from attention_zoo.data.sampling import Sampler
from attention_zoo.data.sources import Sentences, make_source
from attention_zoo.errors import UserError
from attention_zoo.evaluation.perplexity import exp
from attention_zoo.protocols import Initial, Loss, Task
from attention_zoo.tasks import translation_scores
from attention_zoo.tasks.translator import Translator
from attention_zoo.training import checkpoints, sharding
from attention_zoo.training.config import COUNT, FLAG, FRACTION, NATURAL, TEXT, Field
from attention_zoo.training.loss import linear_cross_entropy

logger = logging.getLogger(__name__)

BATCH = ("source", "source_segments", "source_positions", "inputs", "targets", "target_segments", "target_positions")


class Translation(Task):
  """Translation as the loop sees it, made from a config and a work directory."""

  FIELDS = {
    "data": {
      "source": Field(str, choices=("phrasebook", "text", "tfds")),
      "name": TEXT,
      "dir": TEXT,
      "languages": Field(tuple),
      "train_split": TEXT,
      "dev_split": TEXT,
      "test_split": TEXT,
      "tokenized": FLAG,
      "vocab_size": COUNT,
      "tokenizer": Field(str, choices=("bpe", "unigram")),
      "normalization": TEXT,
      "split_digits": FLAG,
      # Another segmentation of each training sentence in each epoch (data/sampling.py); 0: always the same.
      "subword_sampling": Field(float, low=0.0, high=1.0, default=0.0),
      "batching": Field(str, choices=("packed", "bucketed")),
      "batch_tokens": COUNT,
      "row_length": COUNT,
      "row_multiple": COUNT,
      "max_length": COUNT,
      "too_long": Field(str, choices=("truncate", "skip")),
      "seed": NATURAL,
      "cache_dir": TEXT,
    },
    "train": {"label_smoothing": FRACTION},
    "decode": {
      "beam_size": COUNT,
      "alpha": Field(float),
      "extra_length": NATURAL,
      "batch_tokens": COUNT,
      # Of the dev split, translated at each evaluation while training, for BLEU and chrF on the curve; 0: none.
      "dev_sentences": Field(int, low=0, default=0),
    },
  }
  GIVEN = ("vocab_size",)
  unit = "tokens"

  def __init__(self, config, workdir):
    self.config = config
    self.workdir = epath.Path(workdir)
    fields = dict(config.model)
    module = models.find(fields.pop("name"), BATCH)
    try:
      self.model_config = module.Config(vocab_size=config.data.vocab_size, **fields)
    except (TypeError, ValueError) as error:
      raise UserError(f"config.model: {error}") from error
    if self.model_config.bounded and config.data.row_length > self.model_config.max_length:
      raise UserError(
        f"config.data.row_length = {config.data.row_length}, but the model's positions end at config.model.max_length = "
        f"{self.model_config.max_length}: lower the one or raise the other"
      )
    if config.data.batching == "packed" and not self.model_config.packs:
      raise UserError(
        f"config.model.encoder_attention = {config.model.encoder_attention!r} or decoder_attention = "
        f"{config.model.decoder_attention!r} works in blocks that begin with the row, so that a sentence packed behind "
        'another would be cut elsewhere: set config.data.batching="bucketed"'
      )
    self.model = module.Model(self.model_config)
    self.decoding = functools.partial(module.decoding, self.model_config)
    self.fingerprint = functools.cache(self.fingerprint)
    self.corpus = functools.cache(self.corpus)  # opened once, and what it has to say said once

  # Data

  @functools.cached_property
  def source(self):
    return make_source(self.config.data, identity.find_text(self.workdir, self.config.data.dir))

  @functools.cached_property
  def tokenizer(self):
    """The run's vocabulary. `train_batches` makes it, and nothing else does."""
    tokenizer = identity.tokenizer(self.workdir)
    if tokenizer.vocab_size != (size := self.config.data.vocab_size):
      raise UserError(f"{self.workdir}: the tokenizer has {tokenizer.vocab_size} pieces, but config.data.vocab_size = {size}")
    return tokenizer

  def claim(self):
    """Learns the vocabulary of a new run, and holds one that exists to its vocabulary and text."""
    data = self.config.data
    if jax.process_index() == 0:
      remove_remains(self._cache_dir)
    settings = {
      "vocab_size": data.vocab_size,
      "model_type": data.tokenizer,
      "normalization": data.normalization,
      "split_digits": data.split_digits,
    }
    identity.claim(
      self.workdir,
      train=self.fingerprint(),
      directory=str(files.expand(data.dir).absolute()) if files.is_local(data.dir) and data.dir else data.dir,
      settings=settings,
      learn=lambda: tokenizers.learn(Sentences(self.source, "train"), **settings),
      trained=bool(checkpoints.steps(self.workdir)),
    )

  @property
  def _cache_dir(self):
    return self.config.data.cache_dir or self.workdir / "data"

  def corpus(self, split: str) -> Corpus:
    """The tokenised sentences of a split, kept on disk."""
    data = self.config.data
    corpus = build_corpus(
      self.source, split, self.tokenizer,
      max_length=data.max_length, too_long=data.too_long, cache_dir=self._cache_dir,
    )  # fmt: skip
    if corpus.too_long and jax.process_index() == 0:
      done = {"truncate": "cut there", "skip": "left out"}[data.too_long]
      logger.warning(
        "%s: %d of %d pairs are longer than config.data.max_length = %d tokens and %s",
        split, corpus.too_long, len(corpus) + (data.too_long == "skip") * corpus.too_long, data.max_length, done,
      )  # fmt: skip
    return corpus

  @functools.cached_property
  def batches(self):
    """The endless training batches, random access by step."""
    data = self.config.data
    kind = {"packed": PackedBatches, "bucketed": BucketedBatches}[data.batching]
    return kind(
      self.corpus("train"), batch_tokens=data.batch_tokens, row_length=data.row_length,
      row_multiple=data.row_multiple, seed=data.seed,
      sampler=Sampler(self.tokenizer, data.subword_sampling, data.seed) if data.subword_sampling else None,
    )  # fmt: skip

  @property
  def _rows(self):
    data = self.config.data
    return batch_rows(data.batch_tokens, data.row_length, data.row_multiple)

  # What the training loop asks for

  def train_batches(self, start_step, parts, count):
    for _ in self.source.pairs("dev"):
      pass  # What is wrong with it is told now, and not hours later at the first evaluation.
    self.claim()
    batches = self.batches
    next(iter(self.eval_batches("dev")), None)  # whether its sentences fit into rows
    if jax.process_count() > 1:
      digest = np.frombuffer(bytes.fromhex(self.fingerprint()), np.uint8)
      if (multihost_utils.process_allgather(digest) != digest).any():
        raise UserError(f"the processes do not all find the same training text (config.data.dir = {self.config.data.dir!r})")
    return prefetch(batches, start_step, parts, count)

  def fingerprint(self) -> str:
    """The digest of the training text."""
    return self.source.fingerprint("train")

  def train_shapes(self):
    """Of all training batches: several where they are bucketed."""
    return self.batches.shapes

  def eval_batches(self, split, rows=None):
    """Each sentence of the split once. rows: of a batch; by default as many as a training batch has."""
    data = self.config.data
    return eval_batches(
      self.corpus(split), rows=rows or self._rows, row_length=data.row_length, packed=data.batching == "packed"
    )

  def batch_shapes(self):
    """Shapes of a global batch from the config alone, both sides `row_length` long: for compiling without data."""
    shape = jax.ShapeDtypeStruct((self._rows, self.config.data.row_length), jnp.int32)
    return dict.fromkeys(BATCH, shape)

  def init(self, rng) -> Initial:
    tiny = {key: jnp.zeros((1, 2), jnp.int32) for key in self.batch_shapes()}
    try:
      return Initial(self.model.init(rng, tiny)["params"])
    except (TypeError, ValueError) as error:  # sizes that do not go together
      raise UserError(f"config.model: {error}") from error

  def loss(self, params, variables, carry, batch, rng, step) -> Loss:
    """The smoothed cross-entropy of the target tokens, and what mixtures of experts add for their balance."""
    params = {**params, "embedding": {"table_VD": sharding.gather_rows(params["embedding"]["table_VD"])}}
    with nn.intercept_methods(sharding.keep_rows(batch["targets"].shape[0])):
      hidden_BTD, sown = self.model.apply(
        {"params": params},
        batch,
        train=rng is not None,
        rngs=None if rng is None else {"dropout": rng},
        method="hidden",
        mutable=["losses"],
      )
    weights_BT = (batch["target_segments"] > 0).astype(jnp.float32)
    loss, nll, correct = linear_cross_entropy(
      hidden_BTD.astype(self.model_config.matmul_dtype),
      params["embedding"]["table_VD"],
      batch["targets"],
      weights_BT,
      self.config.train.label_smoothing,
    )
    weight = weights_BT.sum()
    sums = {"nll": (nll, weight), "accuracy": (correct, weight)}
    if balance := jax.tree.leaves(sown):  # of mixtures of experts
      sums["balance"] = (sum(balance) * weight, weight)
      loss += sums["balance"][0]
    return Loss(loss, weight, sums)

  def summarize(self, sums) -> dict:
    means = super().summarize(sums)
    return means | {"perplexity": exp(means["nll"])}

  def runner(self, params, variables, *, checkpoint, step) -> Translator:
    return Translator(self, params, variables, checkpoint=checkpoint, step=step)

  @property
  def dev_score_names(self):
    return ("bleu", "chrf") if self.config.decode.dev_sentences else ()

  def dev_scores(self, params, variables) -> dict:
    """BLEU (sacreBLEU's) and chrF of the first config.decode.dev_sentences sentences of the dev split, greedily translated."""
    pairs = itertools.islice(self.source.pairs("dev"), self.config.decode.dev_sentences)
    sources, references = zip(*pairs, strict=True)
    run = self.runner(params, variables, checkpoint="training", step=0)
    found = translation_scores.scores(self.config, run.translate(sources, beam_size=1), references)
    return {"bleu": found["bleu"][0]["score"], "chrf": found["chrf"]["score"]}
