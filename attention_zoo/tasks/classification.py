"""Classification of sentences and of pairs of them, and regression: `Classification` and `Regression` are what the
training loop sees, `Classifier` and `Regressor` what a user does with trained parameters.

What a model for it has is what `tasks/encoding.py` asks for. A causal language model reads the text from left to right
and is asked at its last token (GPT's way: config.head.pooling = "last"); while it is tuned it may go on learning to
predict the text (config.train.language_model_weight), for which its module has `output_table(params)`.

Letters beside the house's: O classes.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from attention_zoo.data.labelled import index_of, make_labelled, number_of
from attention_zoo.errors import UserError
from attention_zoo.evaluation import agreement
from attention_zoo.layers import heads
from attention_zoo.layers.linear import with_one
from attention_zoo.protocols import Evaluation, Examples, Loss, Score
from attention_zoo.tasks.encoder import EncoderRun
from attention_zoo.tasks.encoding import (
  ENCODED,
  HEAD_DROPOUT,
  LABELS,
  POOLING,
  EncoderTask,
  check_labels,
  is_causal,
  real_rows,
)
from attention_zoo.training.config import Field
from attention_zoo.training.loss import linear_cross_entropy, smoothed_cross_entropy


class _Pooled(EncoderTask):
  """One answer for a whole row."""

  unit = "examples"
  FIELDS = {
    "data": ENCODED,
    "head": {
      "pooling": POOLING,
      "width": Field(int, low=0, default=0),  # of a hidden layer; 0: none
      "dropout": HEAD_DROPOUT,
    },
    "train": {"language_model_weight": Field(float, low=0.0, default=0.0)},
    "decode": EncoderTask.DECODE,
  }

  def __init__(self, config, workdir):
    super().__init__(config, workdir)
    kinds = (*heads.POOLINGS, *(["pooler"] if self.has_pooler else []))
    if config.head.pooling not in kinds:
      raise UserError(f"config.head.pooling = {config.head.pooling!r} is not one of {', '.join(kinds)} of this model")
    if config.train.language_model_weight and not is_causal(self.module):
      raise UserError(
        f"config.train.language_model_weight: {config.model.name} is no causal language model; set it to 0.0"
      )
    self.head = heads.Classifier(self.num_outputs, config.head.dropout, config.head.width)

  @functools.cached_property
  def source(self):
    return make_labelled(self.config.data, self.text_directory)

  def pooled(self, params, batch, x_BTD):
    if self.config.head.pooling == "pooler":
      return self.model.apply({"params": params}, x_BTD, method="pooled")
    return heads.pool(self.config.head.pooling, x_BTD, batch["segments"])

  def with_language_model(self, value, sums, params, batch, x_BTD):
    """The loss with what predicting the next token of each text costs: its mean over the tokens of each (Radford et al.
    2018, equation 5)."""
    if not (factor := self.config.train.language_model_weight):
      return value, sums
    real_BT = (batch["segments"][:, 1:] > 0).astype(jnp.float32)
    weights_BT = real_BT / jnp.maximum(real_BT.sum(1, keepdims=True), 1)
    table_VD, x_BTD = self.module.output_table(params), with_one(x_BTD, params.get("output_bias_V"))
    cost, *_ = linear_cross_entropy(x_BTD[:, :-1], table_VD, batch["inputs"][:, 1:], weights_BT)
    return value + factor * cost, sums | {"language_model": (cost, weights_BT.sum())}

  def batch_units(self):
    return self._rows


class Classification(_Pooled):
  """The task as the loop sees it, made from a config and a work directory."""

  HEAD = "classification_head"
  MEANINGS = {"O": "data.labels"}
  LABEL_SHAPES = {"label": ("B", jnp.int32)}
  FIELDS = _Pooled.FIELDS | {
    "data": ENCODED | {"labels": LABELS},
    "train": _Pooled.FIELDS["train"] | {"label_smoothing": Field(float, low=0.0, high=1.0, default=0.0)},
  }

  def __init__(self, config, workdir):
    self.labels = check_labels(config)
    self.num_outputs = len(self.labels)
    super().__init__(config, workdir)

  def encode(self, found):
    labels = [{"label": index_of(example.label, self.labels, example.where)} for example in found]
    return self.encode_texts([example.texts for example in found], labels)

  def loss(self, params, variables, carry, batch, rng, step) -> Loss:
    logits_BO, x_BTD, sown = self.scores(params, batch, rng)
    weights_B = real_rows(batch)
    smoothing = self.config.train.label_smoothing
    value, nll, correct = smoothed_cross_entropy(logits_BO, batch["label"], weights_B, smoothing)
    weight = weights_B.sum()
    sums = {"nll": (nll, weight), "accuracy": (correct, weight)} | self.added(sown, weight)
    value, sums = self.with_language_model(value, sums, params, batch, x_BTD)
    return Loss(value + sums.get("balance", (0, 0))[0], weight, sums)

  def dev_samples(self, params, variables, count) -> Examples:
    """Sentences with the label that they have and the one that was found."""
    with self.lent(params, variables) as run:
      return Examples(run.samples(self.examples("dev")[:count]))

  def runner(self, params, variables, *, checkpoint, step):
    return Classifier(self, params, variables, checkpoint=checkpoint, step=step)


@dataclasses.dataclass(frozen=True)
class Classified:
  """label: the likeliest; probabilities: of each label."""

  label: str
  probabilities: dict[str, float]


class Classifier(EncoderRun):
  """What `attention_zoo.load` returns for a classifier."""

  def classify(self, texts) -> list[Classified]:
    """The label of each text, or of each pair of texts. Raises UserError for an empty one."""
    sentences = self.texts(texts)
    encoded = self.task.encode_texts(sentences, [{}] * len(sentences))
    labels = self.task.labels
    found = []
    for logits_O in self._run(encoded, self._scores):
      probabilities = [float(p) for p in jax.nn.softmax(logits_O)]
      found.append(Classified(labels[int(logits_O.argmax())], dict(zip(labels, probabilities, strict=True))))
    return found

  def samples(self, examples, found=None) -> list[dict[str, str]]:
    found = found or self.classify([example.texts for example in examples])
    return [
      {"text": " / ".join(example.texts), "label": example.label, "found": x.label}
      for example, x in zip(examples, found, strict=True)
    ]

  def evaluate(self, split: str, *, report=None) -> Evaluation:
    """Accuracy, F1 (of the second of two labels; the mean of those of more) and Matthews' correlation, in percent."""
    examples = self._examples(split)
    labels = self.task.labels
    wanted = [index_of(example.label, labels, example.where) for example in examples]
    classified = self.classify([example.texts for example in examples])
    found = [labels.index(x.label) for x in classified]
    if report:
      report(1, 1)
    if len(labels) == 2:
      f1 = Score(f"F1 of {labels[1]}", 100 * agreement.f1(found, wanted, 1))
    else:
      f1 = Score("macro F1", 100 * agreement.macro_f1(found, wanted, range(len(labels))))
    scores = [
      Score("accuracy", 100 * agreement.accuracy(found, wanted)), f1,
      Score("Matthews correlation", 100 * agreement.matthews(found, wanted)),
    ]  # fmt: skip
    record = {"scores": {score.name: score.value for score in scores}, "found": [x.label for x in classified]}
    return Evaluation(scores, self.samples(examples, classified), record)


class Regression(_Pooled):
  """A number for a sentence or a pair, by the mean squared error: the task as the loop sees it."""

  HEAD = "regression_head"
  LABEL_SHAPES = {"label": ("B", jnp.float32)}
  num_outputs = 1

  def encode(self, found):
    labels = [{"label": number_of(example.label, example.where)} for example in found]
    return self.encode_texts([example.texts for example in found], labels)

  def loss(self, params, variables, carry, batch, rng, step) -> Loss:
    found_BO, x_BTD, sown = self.scores(params, batch, rng)
    weights_B = real_rows(batch)
    value = jnp.sum(weights_B * jnp.square(found_BO[:, 0] - batch["label"]))
    weight = weights_B.sum()
    sums = {"squared_error": (value, weight)} | self.added(sown, weight)
    value, sums = self.with_language_model(value, sums, params, batch, x_BTD)
    return Loss(value + sums.get("balance", (0, 0))[0], weight, sums)

  def dev_samples(self, params, variables, count) -> Examples:
    """Sentences with the number that they have and the one that was found."""
    with self.lent(params, variables) as run:
      return Examples(run.samples(self.examples("dev")[:count]))

  def runner(self, params, variables, *, checkpoint, step):
    return Regressor(self, params, variables, checkpoint=checkpoint, step=step)


class Regressor(EncoderRun):
  """What `attention_zoo.load` returns for a regression."""

  def predict(self, texts) -> list[float]:
    """The number of each text, or of each pair of texts. Raises UserError for an empty one."""
    sentences = self.texts(texts)
    encoded = self.task.encode_texts(sentences, [{}] * len(sentences))
    return [float(x_O[0]) for x_O in self._run(encoded, self._scores)]

  def samples(self, examples, found=None) -> list[dict[str, str]]:
    found = found or self.predict([example.texts for example in examples])
    return [
      {"text": " / ".join(example.texts), "label": example.label, "found": f"{x:.4g}"}
      for example, x in zip(examples, found, strict=True)
    ]

  def evaluate(self, split: str, *, report=None) -> Evaluation:
    """The mean squared error, and Pearson's and Spearman's correlation in percent."""
    examples = self._examples(split)
    wanted = [number_of(example.label, example.where) for example in examples]
    found = self.predict([example.texts for example in examples])
    if report:
      report(1, 1)
    scores = [
      Score("Pearson correlation", 100 * agreement.pearson(found, wanted)),
      Score("Spearman correlation", 100 * agreement.spearman(found, wanted)),
      Score("mean squared error", sum((a - b) ** 2 for a, b in zip(found, wanted, strict=True)) / len(wanted)),
    ]
    record = {"scores": {score.name: score.value for score in scores}, "found": found}
    return Evaluation(scores, self.samples(examples, found), record)
