"""Masked language modelling: hidden tokens are guessed from both sides, as BERT and RoBERTa are pretrained.

`MaskedLanguageModeling` is what the training loop sees, `MaskedModel` what a user does with trained parameters. What a
model for it has is what `tasks/encoding.py` asks for, and

  - output_table(params) -> VD in its module: the head's features are multiplied by it.
  - pooled, where the next sentence is guessed too: config.data.batching = "sentence_pairs".

BERT (Devlin et al. 2018) is batching="sentence_pairs", and perhaps whole_words=True. RoBERTa (Liu et al. 2019) is
batching="full_sentences", a vocabulary of bytes, and a model with one type of segments.

| what              | the papers                                  | here                                            |
|-------------------|---------------------------------------------|-------------------------------------------------|
| masks             | BERT: ten versions; RoBERTa: new each time  | new each time                                   |
| next sentence     | mean over the rows                          | each row counts by how many masks it has        |
| full sentences    | a separator where a document ends           | the same; rows keep their sentences over epochs |
| what is predicted | 15 % of the tokens                          | the same: round(0.15 n) of a row of n           |

Letters beside the house's: O two classes, of the next sentence and of another.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.data import examples as batches_lib
from attention_zoo.data import masking
from attention_zoo.data.corpus import build_corpus
from attention_zoo.data.tokenizer import BOS, EOS
from attention_zoo.errors import UserError
from attention_zoo.evaluation.perplexity import exp
from attention_zoo.layers import heads
from attention_zoo.layers.linear import logits, with_bias
from attention_zoo.protocols import Evaluation, Examples, Loss, Score
from attention_zoo.tasks import arguments
from attention_zoo.tasks.documents import UNCUT, Documents
from attention_zoo.tasks.encoder import EncoderRun
from attention_zoo.tasks.encoding import ENCODED, EncoderTask, real_rows, sees_both_sides
from attention_zoo.training.config import FRACTION, Field
from attention_zoo.training.loss import linear_cross_entropy, smoothed_cross_entropy


class MaskedLanguageModeling(Documents, EncoderTask):
  """The task as the loop sees it, made from a config and a work directory."""

  unit = "masks"
  HEAD = "masked_head"
  FIELDS = {
    "data": {
      **ENCODED,
      "batching": Field(str, choices=masking.KINDS),
      "mask_rate": Field(float, low=0.001, high=1.0, default=0.15),
      "whole_words": Field(bool, default=False),
    },
    "train": {"label_smoothing": FRACTION},
    "decode": EncoderTask.DECODE,
  }

  def __init__(self, config, workdir):
    self.pairs = config.data.batching == "sentence_pairs"
    super().__init__(config, workdir)
    if not sees_both_sides(self.module):
      raise UserError(
        f'config.model.name = {config.model.name!r} is no model that guesses masks from both sides: set it to "bert"'
      )
    if not hasattr(self.module, "output_table"):
      raise UserError(f"config.model.name = {config.model.name!r} has no table of its tokens to guess masks by")
    if self.pairs and not self.has_pooler:
      raise UserError(
        'config.data.batching = "sentence_pairs" asks for the next sentence, which is read off the pooler: '
        'set config.model.pooler=True, or config.data.batching="full_sentences"'
      )
    epsilon = getattr(self.model_config, "norm_epsilon", 1e-12)
    activation = getattr(self.model_config, "activation", "gelu")
    self.head = heads.MaskedTokens(config.data.vocab_size, activation, epsilon, self.model_config.matmul_dtype)
    self.corpus = functools.cache(self.corpus)

  # Text

  def training_texts(self):
    return _Lines(self.source)

  def corpus(self, split: str):
    """The sentences of a split, kept on disk."""
    return build_corpus(_Sentences(self.source), split, self.tokenizer, max_length=UNCUT, cache_dir=self.cache_dir)

  def masked_batches(self, split: str, seed: int = 0) -> masking.MaskedBatches:
    """seed: of rows and masks; evaluations of runs with different ones have the same."""
    data, kinds = self.config.data, {"full_sentences": masking.FullSentences, "sentence_pairs": masking.SentencePairs}
    source = kinds[data.batching](self.corpus(split), data.row_length, seed)
    return masking.MaskedBatches(
      source, self.vocabulary, rows=self._rows, length=data.row_length, rate=data.mask_rate, seed=seed,
      split=split,
    )  # fmt: skip

  @property
  def vocabulary(self) -> masking.Vocabulary:
    """Raises UserError for one that cannot hide tokens."""
    tokenizer, data = self.tokenizer, self.config.data
    if getattr(tokenizer, "mask", None) is None:
      raise UserError(
        f"the vocabulary of {self.workdir} has no token for masks: "
        'set config.data.tokenizer to "wordpiece" or "byte_bpe"'
      )
    return masking.Vocabulary(tokenizer.vocab_size, tokenizer.mask, tokenizer.goes_on if data.whole_words else None)

  @functools.cached_property
  def batches(self):
    return self.masked_batches("train", self.config.data.seed)

  def eval_batches(self, split):
    return self.masked_batches(split).in_order(self._rows)

  def batch_shapes(self):
    data = self.config.data
    size = self._rows, masking.most_masked(data.mask_rate, data.row_length)
    masks = dict.fromkeys(("masked", "masked_targets"), jax.ShapeDtypeStruct(size, jnp.int32))
    pairs = {"unrelated": jax.ShapeDtypeStruct(size[:1], jnp.int32)} if self.pairs else {}
    return super().batch_shapes() | pairs | masks

  # Loss

  def pooled(self, params, batch, x_BTD):
    places_BT1 = batch["masked"][:, :, None]
    whole = self.model.apply({"params": params}, x_BTD, method="pooled") if self.pairs else None
    return jnp.take_along_axis(x_BTD, places_BT1, 1), whole

  def table(self, params):
    """By which the head's features are multiplied, VD."""
    return with_bias(self.module.output_table(params), params[self.HEAD]["bias_V"])

  def loss(self, params, variables, carry, batch, rng, step) -> Loss:
    """The cross-entropy of each hidden token, and of whether the second segment is the next one."""
    (x_BTF, _, next_BO), _, sown = self.scores(params, batch, rng)
    weights_BT = (batch["masked"] > 0).astype(jnp.float32)
    value, nll, correct = linear_cross_entropy(
      x_BTF, self.table(params), batch["masked_targets"], weights_BT, self.config.train.label_smoothing
    )
    weight = weights_BT.sum()
    sums = {"nll": (nll, weight), "accuracy": (correct, weight)} | self.added(sown, weight)
    if next_BO is not None:
      cost, *_ = smoothed_cross_entropy(next_BO, batch["unrelated"], weights_BT.sum(1))
      real_B = real_rows(batch)
      *_, right = smoothed_cross_entropy(next_BO, batch["unrelated"], real_B)
      value += cost
      sums |= {"next_sentence": (cost, weight), "next_sentence_accuracy": (right, real_B.sum())}
    return Loss(value + sums.get("balance", (0, 0))[0], weight, sums)

  def dev_samples(self, params, variables, count) -> Examples:
    """Rows of the dev split with their hidden tokens, and what was guessed."""
    with self.lent(params, variables) as run:
      return Examples(run.samples("dev", count))

  def runner(self, params, variables, *, checkpoint, step):
    return MaskedModel(self, params, variables, checkpoint=checkpoint, step=step)


class _Lines:
  """The lines of all training documents; each iteration reads them anew."""

  def __init__(self, source):
    self._source = source

  def __iter__(self):
    for document in self._source.documents("train"):
      yield from (line for line in document.split("\n") if line.strip())


class _Sentences:
  """What `data/masking.py` wants of a corpus: sentences, each with a mark, and an empty pair where a document ends."""

  languages = ("sentences", "marks")

  def __init__(self, source):
    self._source, self.fingerprint = source, source.fingerprint

  def pairs(self, split):
    for document in self._source.documents(split):
      yield from ((line, ".") for line in document.split("\n") if line.strip())
      yield "", ""


@dataclasses.dataclass(frozen=True)
class Filled:
  """What may stand at one mask: its pieces, the likeliest first, and their probabilities."""

  pieces: list[str]
  probabilities: list[float]


class MaskedModel(EncoderRun):
  """What `attention_zoo.load` returns for a masked language model."""

  _READ = ("masked",)

  def fill(self, text: str, top: int = 5) -> list[Filled]:
    """The likeliest pieces at each [MASK] of a text; "<mask>" means the same. Raises UserError where there is none."""
    text = arguments.sentence(text, "text")
    top = arguments.whole(top, "top", 1, self.task.tokenizer.vocab_size)
    _ = self.task.vocabulary  # it must have a token for masks
    spaced = getattr(self.task.tokenizer, "spaces", False)
    parts = text.replace("<mask>", "[MASK]").split("[MASK]")
    if len(parts) == 1:
      raise UserError("the text has no [MASK]")
    if spaced:  # a piece brings the space before it
      parts = [part.rstrip(" ") if i + 1 < len(parts) else part for i, part in enumerate(parts)]
    ids, places = [BOS], []
    for i, part in enumerate(self.task.tokenizer.encode(parts)):
      ids += part
      if i + 1 < len(parts):
        places.append(len(ids))
        ids.append(self.task.tokenizer.mask)
    ids.append(EOS)
    if len(ids) > (longest := self.config.data.row_length):
      raise UserError(f"the text has {len(ids)} tokens, and a row holds {longest} (config.data.row_length): shorten it")
    encoded = batches_lib.Encoded(np.array(ids, np.int32), len(ids), {"masked": np.array(places)})
    (logits_TV,) = self._run([encoded], self._logits)
    found = []
    for logits_V in logits_TV[: len(places)]:
      probabilities_V = np.asarray(jax.nn.softmax(logits_V))
      best = np.argsort(-probabilities_V, kind="stable")[:top]
      found.append(Filled(self.task.tokenizer.pieces(best), probabilities_V[best].tolist()))
    return found

  @functools.cached_property
  def _logits(self):
    task = self.task

    def logits_of(params, batch):
      x_BTD, _ = task.encoded(params, batch, None)
      places_BT1 = batch["masked"][:, :, None]
      whole = jnp.zeros((len(x_BTD), x_BTD.shape[-1]), x_BTD.dtype) if task.pairs else None
      x_BTF, *_ = task.apply_head(params, (jnp.take_along_axis(x_BTD, places_BT1, 1), whole), None)
      return logits(task.model_config, x_BTF, task.table(params))

    return jax.jit(logits_of)

  def samples(self, split: str, count: int) -> Sequence[dict[str, str]]:
    """Rows of a split with [MASK] where tokens are hidden, and with what was guessed there."""
    batch = next(iter(self.task.masked_batches(split).in_order(max(count, 1))))
    tokenizer, rows, found = self.task.tokenizer, [], []
    for b in range(min(count, int((batch["segments"][:, 0] > 0).sum()))):
      ids = batch["inputs"][b, : int((batch["segments"][b] > 0).sum())]
      places = batch["masked"][b][batch["masked"][b] > 0]
      first = int((batch["types"][b] == 0)[: len(ids)].sum())
      rows.append(batches_lib.Encoded(ids, first, {"masked": places}))
    for b, (row, logits_TV) in enumerate(zip(rows, self._run(rows, self._logits), strict=True)):
      ids, places = row.ids, row.labels["masked"]
      guessed, hidden = ids.copy(), ids.copy()
      guessed[places], hidden[places] = logits_TV[: len(places)].argmax(-1), tokenizer.mask
      show = lambda ids: tokenizer.decode([ids[1:]])[0]
      wanted = ids.copy()
      wanted[places] = batch["masked_targets"][b, : len(places)]
      found.append({"hidden": show(hidden), "wanted": show(wanted), "found": show(guessed)})
    return found

  def evaluate(self, split: str, *, report=None, num_samples: int = 8) -> Evaluation:
    """Of hidden tokens: nats, perplexity and accuracy; and how often the next sentence was told from another."""
    figures = self._evaluate(self.params, self.variables, arguments.split_name(split))
    if not figures:
      raise UserError(f"the split {split!r} is empty")
    if report:
      report(1, 1)
    found = {"nats per mask": figures["nll"], "perplexity per mask": exp(figures["nll"])}
    found["accuracy of masks"] = 100 * figures["accuracy"]
    if "next_sentence_accuracy" in figures:
      found["accuracy of the next sentence"] = 100 * figures["next_sentence_accuracy"]
    samples = self.samples(split, num_samples)
    return Evaluation([Score(name, value) for name, value in found.items()], samples, {"scores": found})
