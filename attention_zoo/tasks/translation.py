"""Translation: where parallel text, an encoder-decoder, the smoothed loss and beam search meet.

`Translation` is what the training loop sees; `tasks/translator.py` holds what a user does with trained parameters.

A model for it has, beside what `models/__init__.py` asks of every model:

  - BATCH of "source", "source_segments", "source_positions", "inputs", "target_segments" and "target_positions"
    (`data/batches.py`). A row may hold several sentence pairs, told apart by their segments, and padding, segment 0.
    A model that does not keep them apart has `packs = False` in its Config.
  - hidden(batch, *, train) -> BTD, a method: the output at each target position, from the source and the inputs up to
    it; and output_table(params) -> VD in its module: logits are the products of both. They never exist for a whole
    batch (`training/loss.py`).
  - decoding(config, params, inputs, *, num_beams) whose inputs are the three of the source. Its `step` must take one
    position at a time; more only if the model is one to verify blocks with.
  - Weights that can be looked at are sown as "weights" [B, N, T, S] into "intermediates", those between target and
    source by modules named "cross_attention", the others below "encoder" or "decoder" (`tasks/teacher_forcing.py`).

`tests/conformance/test_translation_models.py` holds every model to this.
"""

import functools
import itertools
import logging

import jax
import jax.numpy as jnp

from attention_zoo import files
from attention_zoo.data.batches import BucketedBatches, PackedBatches, batch_rows, eval_batches, prefetch
from attention_zoo.data.corpus import Corpus, build_corpus
from attention_zoo.data.sampling import Sampler
from attention_zoo.data.sources import Sentences, make_source
from attention_zoo.errors import UserError
from attention_zoo.protocols import Examples, Loss
from attention_zoo.tasks import translation_scores
from attention_zoo.tasks.teacher_forcing import attends
from attention_zoo.tasks.text import DATA, TextTask
from attention_zoo.tasks.translation_search import check_coverage, search_of
from attention_zoo.tasks.translator import Translator
from attention_zoo.tasks.unknown_words import check_unknown
from attention_zoo.training.config import COUNT, FLAG, FRACTION, NATURAL, Field
from attention_zoo.training.loss import linear_cross_entropy

logger = logging.getLogger(__name__)

BATCH = ("source", "source_segments", "source_positions", "inputs", "targets", "target_segments", "target_positions")


class Translation(TextTask):
  """Translation as the loop sees it, made from a config and a work directory."""

  inherits = False
  FIELDS = {
    "data": {
      **DATA,
      "languages": Field(tuple),
      "tokenized": FLAG,
      "tokenizer": Field(str, choices=("bpe", "unigram")),
      # Another segmentation of each training sentence in each epoch (data/sampling.py); 0: always the same.
      "subword_sampling": Field(float, low=0.0, high=1.0, default=0.0),
      "batching": Field(str, choices=("packed", "bucketed")),
      "max_length": COUNT,
      "too_long": Field(str, choices=("truncate", "skip")),
    },
    "train": {"label_smoothing": FRACTION},
    "decode": {
      "beam_size": COUNT,
      "alpha": Field(float),
      # Of GNMT's score, for models that say what each step attends to; 0: none.
      "coverage_penalty": Field(float, low=0.0, default=0.0),
      # PosUnk: unknown words become those of the source that were attended to, through a dictionary of lines
      # source<TAB>target if one is named (tasks/unknown_words.py).
      "replace_unknown": Field(bool, default=False),
      "unknown_dictionary": Field(str, default=""),
      # Or "stochastic_beam(samples=4, segment_length=10, temperature=1.0, seed=0)": tasks/translation_search.py.
      "search": Field(str, default="beam"),
      "extra_length": NATURAL,
      "batch_tokens": COUNT,
      # Of the dev split, translated at each evaluation while training, for BLEU and chrF on the curve; 0: none.
      "dev_sentences": Field(int, low=0, default=0),
    },
  }

  def __init__(self, config, workdir):
    super().__init__(config, workdir)
    search_of(config.decode)  # told now, and not at the first search
    if config.data.batching == "packed" and not getattr(self.model_config, "packs", True):
      chosen = [f"{key} = {value!r}" for key, value in config.model.items() if key.endswith("attention")]
      raise UserError(
        f"config.model.name = {config.model.name!r} with {' and '.join(chosen) or 'these settings'} does not keep the "
        'sentence pairs apart that are packed into one row: set config.data.batching="bucketed"'
      )
    self.corpus = functools.cache(self.corpus)  # opened once, and what it has to say said once

  # Data

  @functools.cached_property
  def source(self):
    return make_source(self.config.data, self.text_directory)

  def training_texts(self):
    return Sentences(self.source, "train")

  def corpus(self, split: str) -> Corpus:
    """The tokenised sentences of a split, kept on disk."""
    data = self.config.data
    corpus = build_corpus(
      self.source, split, self.tokenizer,
      max_length=data.max_length, too_long=data.too_long, cache_dir=self.cache_dir,
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

  def attachments(self):
    name = self.config.decode.unknown_dictionary
    path = name and self.workdir / name  # an exported folder has it beside its config
    return {"decode.unknown_dictionary": path if path.exists() else files.expand(name)} if name else {}

  # What the training loop asks for

  def train_batches(self, start_step, parts, count):
    if self.config.decode.coverage_penalty:
      self._check_coverage()
    if self.config.decode.replace_unknown:
      check_unknown(self, attends(self))
    for _ in self.source.pairs("dev"):
      pass  # What is wrong with it is told now, and not hours later at the first evaluation.
    self.claim()
    batches = self.batches
    next(iter(self.eval_batches("dev")), None)  # whether its sentences fit into rows
    return prefetch(batches, start_step, parts, count)

  def _check_coverage(self):
    """Told now, and not at the first search."""
    source = {name: jax.ShapeDtypeStruct((1, 2), jnp.int32) for name in BATCH[:3]}
    params = jax.eval_shape(self.init, jax.random.key(0)).params
    jax.eval_shape(lambda *x: check_coverage(self, self.decoding(*x, num_beams=1)), params, source)

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

  def loss(self, params, variables, carry, batch, rng, step) -> Loss:
    """The smoothed cross-entropy of the target tokens, and what mixtures of experts add for their balance."""
    hidden_BTD, sown = self.apply_hidden(params, batch, rng)
    weights_BT = (batch["target_segments"] > 0).astype(jnp.float32)
    loss, nll, correct = linear_cross_entropy(
      hidden_BTD.astype(self.model_config.matmul_dtype),
      self.module.output_table(params),
      batch["targets"],
      weights_BT,
      self.config.train.label_smoothing,
    )
    weight = weights_BT.sum()
    sums = {"nll": (nll, weight), "accuracy": (correct, weight)} | self.added(sown, weight)
    loss += sums.get("balance", (0, 0))[0]
    return Loss(loss, weight, sums)

  def logits(self, params, batch):
    """Of teacher forcing, without dropout; BTV."""
    return self.model.apply({"params": params}, batch)

  def runner(self, params, variables, *, checkpoint, step) -> Translator:
    return Translator(self, params, variables, checkpoint=checkpoint, step=step)

  @property
  def dev_score_names(self):
    return ("bleu", "chrf") if self.config.decode.dev_sentences else ()

  def dev_scores(self, params, variables) -> dict:
    """BLEU (sacreBLEU's) and chrF of the first config.decode.dev_sentences sentences of the dev split,
    greedily translated."""
    pairs = itertools.islice(self.source.pairs("dev"), self.config.decode.dev_sentences)
    sources, references = zip(*pairs, strict=True)
    with self.lent(params, variables) as run:
      translations = run.translate(sources, beam_size=1)
    found = translation_scores.scores(self.config, translations, references)
    return {"bleu": found["bleu"][0]["score"], "chrf": found["chrf"]["score"]}

  def dev_samples(self, params, variables, count) -> Examples:
    """Greedy translations of the first sentences of the dev split, and the cross-attention of the shortest of them.

    The map is of the last layer, the mean of its heads, with the reference as the target:
    it can be compared between steps.
    """
    with self.lent(params, variables) as run:
      fitting = (pair for pair in self.source.pairs("dev") if not run.too_long(pair))
      pairs = list(itertools.islice(fitting, count))
      translations = run.translate([source for source, _ in pairs], beam_size=1)
      samples = [
        {"source": source, "translation": translation, "reference": reference}
        for (source, reference), translation in zip(pairs, translations, strict=True)
      ]
      shortest = min(pairs, key=lambda pair: len(pair[0]) + len(pair[1]), default=None)
      seen = run.attention(*shortest) if shortest else None
    if seen is None or seen.cross is None:
      return Examples(samples)
    from attention_zoo.plots.attention import attention_png

    return Examples(samples, {"attention": attention_png(seen.cross[-1].mean(0), seen.target, seen.source)})
