"""Language modelling in both directions, as ELMo's is pretrained: the next word from those before it, and the word
before from those behind it. `BidirectionalLanguageModeling` is what the training loop sees,
`BidirectionalLanguageModel` what a user does with trained parameters.

A model for it has, beside what `models/__init__.py` asks of every model:

  - BATCH of "characters" [B, T, W], "segments" and "positions" (`data/spelt_batches.py`), and `word_length`, W, in its
    Config.
  - hidden(batch, *, train) -> (BTD, BTD), a method: at each place the output from which its word is predicted, by those
    before it; and that from which the word before it is predicted (<s> at the beginning), by it and those behind.
  - output_table(params) -> VD in its module, for both.
  - Core: a module whose call gives all layers' vectors of a text, as `models/pretraining/bilm.py`.

Letters beside the house's: W characters of a word, U both directions side by side.
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.data import words
from attention_zoo.data.batches import prefetch
from attention_zoo.data.corpus import build_corpus
from attention_zoo.data.spelt_batches import SpeltBatches
from attention_zoo.errors import UserError
from attention_zoo.evaluation.perplexity import exp
from attention_zoo.protocols import Evaluation, Loss, Score
from attention_zoo.tasks import arguments
from attention_zoo.tasks.documents import UNCUT, Alone
from attention_zoo.tasks.language_modeling import LanguageModeling
from attention_zoo.tasks.rows import check_finite
from attention_zoo.tasks.run import Run
from attention_zoo.tasks.text import DATA, WORDS
from attention_zoo.training.config import COUNT, FRACTION, Field
from attention_zoo.training.loss import linear_cross_entropy

_OF_PIECES = ("normalization", "split_digits")  # fields


class BidirectionalLanguageModeling(LanguageModeling):
  """The task as the loop sees it, made from a config and a work directory."""

  unit = "words"
  has_dev_samples = False
  FIELDS = {
    "data": {
      **{name: field for name, field in DATA.items() if name not in _OF_PIECES},
      **WORDS,
      "tokenizer": Field(str, choices=("words",)),
      "batching": Field(str, choices=("packed",)),
    },
    "train": {"label_smoothing": FRACTION},
    "decode": {"batch_tokens": COUNT},
  }

  def spelt(self, split: str) -> SpeltBatches:
    """The words of a split and their characters, kept on disk."""
    spelling = words.Spelling(self.config.data.marks)
    corpus = build_corpus(Alone(self.source), split, spelling, max_length=UNCUT, cache_dir=self.cache_dir)
    return SpeltBatches(self.stream(split), words.Spelt(corpus.source_tokens), self.model_config.word_length)

  @functools.cached_property
  def batches(self):
    """The endless training batches, random access by step."""
    data = self.config.data
    return self.spelt("train").endless(
      batch_tokens=data.batch_tokens, row_length=data.row_length, row_multiple=data.row_multiple, seed=data.seed
    )

  def train_batches(self, start, parts, count):
    self.claim()
    batches = self.batches
    next(iter(self.eval_batches("dev")), None)  # What is wrong with it is told now, not at the first evaluation.
    return prefetch(batches, start, parts, count)

  def eval_batches(self, split):
    return self.spelt(split).in_order(self._rows, self.config.data.row_length)

  def batch_shapes(self):
    shapes = super().batch_shapes()
    size = *shapes["targets"].shape, self.config.model.word_length
    return shapes | {"characters": jax.ShapeDtypeStruct(size, jnp.int32)}

  def batch_units(self):
    return self._rows * self.config.data.row_length

  def loss(self, params, variables, carry, batch, rng, step) -> Loss:
    """The sum of both directions' cross-entropies (Peters et al. 2018, section 3.1)."""
    (forward_BTD, backward_BTD), _ = self.apply_hidden(params, batch, rng)
    weights_BT = (batch["segments"] > 0).astype(jnp.float32)
    table_VD, smoothing = self.module.output_table(params), self.config.train.label_smoothing
    cost = lambda x_BTD, targets_BT: linear_cross_entropy(x_BTD, table_VD, targets_BT, weights_BT, smoothing)
    value, forward, right = cost(forward_BTD, batch["targets"])
    other, backward, also = cost(backward_BTD, batch["inputs"])
    weight = weights_BT.sum()
    means = {"nll": (forward + backward) / 2, "accuracy": (right + also) / 2}
    sums = means | {"forward_nll": forward, "backward_nll": backward}
    return Loss(value + other, weight, {name: (x, weight) for name, x in sums.items()})

  def runner(self, params, variables, *, checkpoint, step):
    return BidirectionalLanguageModel(self, params, variables, checkpoint=checkpoint, step=step)


class BidirectionalLanguageModel(Run):
  """What `attention_zoo.load` returns for it. Work is spread over all devices of this process."""

  def vectors(self, texts: Iterable[str]) -> list[np.ndarray]:
    """What each layer makes of each word of each text, float32 [layers + 1, words, both directions]; the first is that
    of the word itself. <s> and </s> are read, and not returned. Raises UserError for a text without a word."""
    found = []
    for i, text in enumerate(arguments.sentences(texts, "texts")):
      split = words.split(text, self.config.data.marks)
      if not split:
        raise UserError(f"texts[{i}] has no word")
      width = self.config.model.word_length
      edges = (words.special(mark, width)[None] for mark in (words.BEGIN_TEXT, words.END_TEXT))
      begin, end = edges
      characters_1TW = np.concatenate([begin, words.spelt(split, width), end])[None]
      layers = jax.device_get(self._layers(self.params, characters_1TW))
      check_finite(layers[-1].sum())
      found.append(np.stack([layer[0, 1:-1] for layer in layers]))
    return found

  @functools.cached_property
  def _layers(self):
    core = self.task.module.Core(self.task.model_config)

    def layers(params, characters_BTW):
      segments_BT = jnp.ones(characters_BTW.shape[:2], jnp.int32)
      found = core.apply({"params": params["core"]}, characters_BTW, segments_BT)
      return [x_BTU.astype(jnp.float32) for x_BTU in found]

    return jax.jit(layers)

  def evaluate(self, split: str, *, report=None) -> Evaluation:
    """The perplexity of a word in either direction and, as the paper has it, the mean of both."""
    figures = self._evaluate(self.params, self.variables, arguments.split_name(split))
    if not figures:
      raise UserError(f"the split {split!r} is empty")
    if report:
      report(1, 1)
    both = {name: exp(figures[f"{name}_nll"]) for name in ("forward", "backward")}
    found = {"perplexity": sum(both.values()) / 2} | {f"{name} perplexity": x for name, x in both.items()}
    found["accuracy"] = figures["accuracy"]
    return Evaluation([Score(name, value) for name, value in found.items()], [], {"scores": found})

  def page(self, evaluation: Evaluation, command: str = "") -> str:
    """The HTML page about the run."""
    from attention_zoo.tasks.report import task_report

    return task_report(self, self.config.model.name, evaluation, command=command)
