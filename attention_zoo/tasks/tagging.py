"""Tagging: each word of a sentence belongs to an entity, or to none. `Tagging` is what the training loop sees, `Tagger`
what a user does with trained parameters.

What a model for it has is what `tasks/encoding.py` asks for. A word is tagged at its first piece (Devlin et al. 2018,
section 5.3); by a causal model, which has not read the rest there, at its last one. A head of this task is one of
`HEADS`: a Flax module made with (number of tags, dropout), which makes scores BTO of the outputs at words BTD, and
beside it

  - loss(params, scores_BTO, tags_BT, real_BT) -> (the sum over the words of what they cost, how many of them have their
    tag in what `best` returns). params: the head's.
  - best(params, scores_BTO, real_BT) -> tags_BT.

Words stand at the beginning of their rows, without gaps; real_BT, 0 or 1, is where there is one.

Letters beside the house's: O tags.
"""

import dataclasses
import functools
from collections.abc import Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.data import examples as examples_lib
from attention_zoo.data.labelled import OUTSIDE, index_of
from attention_zoo.data.tagged import Tagged, make_tagged, tags_of
from attention_zoo.data.tokenizer import UNK
from attention_zoo.errors import UserError
from attention_zoo.evaluation import tags as tags_lib
from attention_zoo.layers import heads
from attention_zoo.ops import crf
from attention_zoo.protocols import Evaluation, Examples, Loss, Score
from attention_zoo.tasks.encoder import EncoderRun
from attention_zoo.tasks.encoding import ENCODED, HEAD_DROPOUT, LABELS, EncoderTask, check_labels, is_causal
from attention_zoo.training.config import Field
from attention_zoo.training.loss import smoothed_cross_entropy


class Softmax(heads.TagScores):
  """Each word by itself."""

  @staticmethod
  def loss(params, scores_BTO, tags_BT, real_BT):
    value, _, correct = smoothed_cross_entropy(scores_BTO, tags_BT, real_BT)
    return value, correct

  @staticmethod
  def best(params, scores_BTO, real_BT):
    return jnp.argmax(scores_BTO, -1)


class CRF(heads.TagScores):
  """The words of a sentence together: a conditional random field (`ops/crf.py`; Lample et al. 2016). What breaks BIO is
  no path."""

  @nn.compact
  def __call__(self, x_BTD, *, train=False):
    for name in ("transition_OO", "start_O", "end_O"):
      shape = (self.num_classes,) * (2 if name.endswith("OO") else 1)
      self.param(name, nn.initializers.normal(self.deviation), shape)
    return super().__call__(x_BTD, train=train)

  @staticmethod
  def potentials(params) -> crf.Potentials:
    labels = [OUTSIDE, *(f"{'BI'[i % 2]}-{i // 2}" for i in range(len(params["start_O"]) - 1))]
    free = crf.Potentials(params["transition_OO"], params["start_O"], params["end_O"])
    return crf.constrained(free, *crf.bio_rules(labels))

  @classmethod
  def loss(cls, params, scores_BTO, tags_BT, real_BT):
    found_BT = cls.best(params, jax.lax.stop_gradient(scores_BTO), real_BT)
    value_B = crf.log_likelihood(scores_BTO, tags_BT, real_BT > 0, cls.potentials(params))
    return -value_B.sum(), jnp.sum(real_BT * (found_BT == tags_BT))

  @classmethod
  def best(cls, params, scores_BTO, real_BT):
    return crf.viterbi(scores_BTO, real_BT > 0, cls.potentials(params))[0]


HEADS = {"softmax": Softmax, "crf": CRF}


class Tagging(EncoderTask):
  """The task as the loop sees it, made from a config and a work directory."""

  unit = "words"
  HEAD = "tagging_head"
  MEANINGS = {"O": "data.labels"}
  # words: where each word is tagged; 0: no word.
  LABEL_SHAPES = {"words": ("BT", jnp.int32), "tags": ("BT", jnp.int32)}
  FIELDS = {
    "data": ENCODED | {"labels": LABELS},  # types of entities
    "head": {"name": Field(str, choices=tuple(HEADS), default="softmax"), "dropout": HEAD_DROPOUT},
    "decode": EncoderTask.DECODE,
  }
  dev_score_names = ("f1",)

  def __init__(self, config, workdir):
    self.labels = tags_of(check_labels(config, least=1))
    super().__init__(config, workdir)
    self.head = HEADS[config.head.name](len(self.labels), config.head.dropout)

  @functools.cached_property
  def source(self):
    return make_tagged(self.config.data, self.text_directory)

  def encode(self, found):
    """Raises UserError for a sentence that does not fit into a row: none of its words may go without a tag."""
    spaced = getattr(self.tokenizer, "spaces", False)  # whether a space belongs to the word behind it
    words = [" " * (spaced and i > 0) + word for example in found for i, word in enumerate(example.words)]
    pieces, spelt = iter(self.tokenizer.encode(words)), iter(self.spelt(words) or ())
    encoded, length, causal = [], self.config.data.row_length, is_causal(self.module)
    for example in found:
      ids, places, rows = [], [], []
      for _ in example.words:
        first = 1 + len(ids)  # <s> stands before
        ids += next(pieces) or [UNK]
        places.append(len(ids) if causal else first)
        rows += [next(spelt)] if self.spells else []
      if len(ids) + 2 > length:
        raise UserError(
          f"{example.where} has {len(ids) + 2} tokens with <s> and </s>, more than config.data.row_length = {length}: "
          "raise that, or cut the sentence"
        )
      labels = {"words": np.array(places)}
      if example.tags:
        labels["tags"] = np.array([index_of(tag, self.labels, example.where) for tag in example.tags])
      whole = [np.concatenate(rows)] if self.spells else None
      encoded.append(examples_lib.encode([ids], length=length, labels=labels, spelt=whole)[0])
    return encoded

  def pooled(self, params, batch, x_BTD):
    return jnp.take_along_axis(x_BTD, batch["words"][:, :, None], 1)

  def loss(self, params, variables, carry, batch, rng, step) -> Loss:
    scores_BTO, _, sown = self.scores(params, batch, rng)
    real_BT = (batch["words"] > 0).astype(jnp.float32)
    value, correct = self.head.loss(params[self.HEAD], scores_BTO, batch["tags"], real_BT)
    weight = real_BT.sum()
    sums = {"accuracy": (correct, weight)} | self.added(sown, weight)
    return Loss(value + sums.get("balance", (0, 0))[0], weight, sums)

  def dev_scores(self, params, variables):
    with self.lent(params, variables) as run:
      examples = self.examples("dev")
      return {"f1": tags_lib.score(run.best(examples), [x.tags for x in examples])[""].f1}

  def dev_samples(self, params, variables, count) -> Examples:
    """Sentences with the entities that they have and those that were found."""
    with self.lent(params, variables) as run:
      examples = self.examples("dev")[:count]
      return Examples(run.samples(examples, run.best(examples)))

  def runner(self, params, variables, *, checkpoint, step):
    return Tagger(self, params, variables, checkpoint=checkpoint, step=step)


@dataclasses.dataclass(frozen=True)
class Tags:
  """words, and the tag of each: "O", or "B-" and "I-" with a type."""

  words: list[str]
  tags: list[str]

  @property
  def entities(self) -> list[tuple[str, str]]:
    """(type, text) of each entity."""
    return [(x.type, " ".join(self.words[x.start : x.stop])) for x in tags_lib.entities(self.tags)]


class Tagger(EncoderRun):
  """What `attention_zoo.load` returns for a tagger."""

  _READ = ("words",)

  def tag(self, sentences: Iterable[str | Iterable[str]]) -> list[Tags]:
    """The tags of each sentence, a list of words, or a text whose words have spaces between them."""
    if isinstance(sentences, (str, bytes)):
      raise UserError("sentences must be a list of sentences, not a single one")
    found = []
    for i, sentence in enumerate(sentences):
      words = sentence.split() if isinstance(sentence, str) else sentence
      if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) and word.strip() for word in words):
        raise UserError(f"sentences[{i}] must be a text or a list of words, not {sentence!r:.60}")
      if not words:
        raise UserError(f"sentences[{i}] is empty")
      found.append(Tagged(tuple(words), (), f"sentences[{i}]"))
    return [Tags(list(x.words), tags) for x, tags in zip(found, self.best(found), strict=True)]

  def best(self, examples) -> list[list[str]]:
    """The tags found for each `data.tagged.Tagged`."""
    encoded = self.task.encode([example._replace(tags=()) for example in examples])
    numbers = self._run(encoded, self._best)
    return [
      [self.task.labels[number] for number in row[: len(example.words)]]
      for row, example in zip(numbers, examples, strict=True)
    ]

  @functools.cached_property
  def _best(self):
    task = self.task

    def best(params, batch):
      return task.head.best(params[task.HEAD], task.scores(params, batch)[0], batch["words"] > 0)

    return jax.jit(best)

  def samples(self, examples, found) -> list[dict[str, str]]:
    shown = lambda words, tags: " ".join(
      word if tag == OUTSIDE else f"{word}/{tag}" for word, tag in zip(words, tags, strict=True)
    )
    return [
      {"wanted": shown(example.words, example.tags), "found": shown(example.words, tags)}
      for example, tags in zip(examples, found, strict=True)
    ]

  def evaluate(self, split: str, *, report=None) -> Evaluation:
    """F1, precision and recall of entities, in percent, as conlleval counts them, and the accuracy of tags."""
    examples = self._examples(split)
    found = self.best(examples)
    if report:
      report(1, 1)
    by_type = tags_lib.score(found, [example.tags for example in examples])
    pairs = [pair for tags, x in zip(found, examples, strict=True) for pair in zip(tags, x.tags, strict=True)]
    whole = by_type.pop("")
    scores = [
      Score("F1", whole.f1), Score("precision", whole.precision), Score("recall", whole.recall),
      Score("accuracy", 100 * sum(a == b for a, b in pairs) / len(pairs)),
      *(Score(f"F1 of {name}", score.f1) for name, score in by_type.items()),
    ]  # fmt: skip
    types = {name: score._asdict() for name, score in by_type.items()}
    record = {"scores": {score.name: score.value for score in scores}, "types": types, "found": found}
    return Evaluation(scores, self.samples(examples, found), record)
