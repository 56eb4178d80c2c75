"""Language modelling: where documents, a causal model, the cross-entropy of the next token and sampling meet.

`LanguageModeling` is what the training loop sees;
`tasks/language_model.py` holds what a user does with trained parameters.

A model for it has, beside what `models/__init__.py` asks of every model:

  - BATCH of "inputs", "segments" and "positions" (`data/windows.py`). A row may hold several documents, told apart by
    their segments, and padding, segment 0. A model that does not keep them apart has `packs = False` in its Config.
  - hidden(batch, *, train) -> BTD, a method: the output at each position, from the inputs up to it.
  - output_table(params) -> VD in its module: logits are the products of both. They never exist for a whole batch
    (`training/loss.py`).
  - With a state that goes from batch to batch: carry(config, rows) -> what the first batch is handed, in its module,
    and hidden(batch, *, train, carry) -> (BTD, carry). Such a model reads a row from left to right, whatever it holds.

`tests/conformance/test_language_models.py` holds every model to this.
"""

import functools

import jax
import jax.numpy as jnp

from attention_zoo.data import windows
from attention_zoo.data.batches import batch_rows, prefetch
from attention_zoo.errors import UserError
from attention_zoo.protocols import Examples, Loss
from attention_zoo.tasks.documents import Documents
from attention_zoo.tasks.language_model import LanguageModel
from attention_zoo.tasks.text import DATA, TextTask
from attention_zoo.training.config import COUNT, FRACTION, Field
from attention_zoo.training.loss import linear_cross_entropy

_SHOWN = 128


class LanguageModeling(Documents, TextTask):
  """Language modelling as the loop sees it, made from a config and a work directory."""

  FIELDS = {
    "data": {
      **DATA,
      "tokenizer": Field(str, choices=("bpe", "unigram", "byte_bpe", "characters", "bytes")),
      "batching": Field(str, choices=windows.KINDS),
    },
    "train": {"label_smoothing": FRACTION},
    "decode": {
      "max_tokens": COUNT,  # of a sample
      "temperature": Field(float, low=0.0),
      "top_k": Field(int, low=0),
      "top_p": FRACTION,
      "min_p": FRACTION,
      "repetition_penalty": Field(float, low=0.0),
      "batch_tokens": COUNT,
    },
  }

  def __init__(self, config, workdir):
    super().__init__(config, workdir)
    if config.data.batching == "packed" and (self._has_memory or not getattr(self.model_config, "packs", True)):
      what = f'config.model.name = "{config.model.name}"'
      if "attention" in config.model:
        what += f' with config.model.attention = "{config.model.attention}"'
      others = '"windows" or "contiguous"' if self._has_memory else '"windows"'
      raise UserError(
        f"{what} does not keep the documents apart that are packed into one row: set config.data.batching to {others}"
      )

  @property
  def _has_memory(self):
    return hasattr(self.module, "carry")

  @functools.cached_property
  def batches(self):
    """The endless training batches, random access by step."""
    data = self.config.data
    return windows.make_batches(
      data.batching, self.stream("train"), batch_tokens=data.batch_tokens, row_length=data.row_length,
      row_multiple=data.row_multiple, seed=data.seed,
    )  # fmt: skip

  def train_batches(self, start, parts, count):
    self.claim()
    batches = self.batches
    next(iter(self.eval_batches("dev")), None)  # What is wrong with it is told now, not at the first evaluation.
    return prefetch(batches, start, parts, count)

  def train_shapes(self):
    return self.batches.shapes

  def eval_batches(self, split):
    data = self.config.data
    return windows.eval_batches(data.batching, self.stream(split), rows=self._rows, row_length=data.row_length)

  @property
  def _rows(self):
    data = self.config.data
    return batch_rows(data.batch_tokens, data.row_length, data.row_multiple)

  def batch_shapes(self):
    shapes = windows.shapes(self._rows, self.config.data.row_length)
    if self.config.data.batching == "contiguous":
      shapes["fresh"] = (self._rows,)
    return {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in shapes.items()}

  def carry(self, rows):
    contiguous = self.config.data.batching == "contiguous"
    return self.module.carry(self.model_config, rows) if contiguous and self._has_memory else {}

  def loss(self, params, variables, carry, batch, rng, step) -> Loss:
    """The cross-entropy of each token with what the model expects after those before it."""
    if carry:
      fresh_B = batch["fresh"] > 0
      clear = lambda x: jnp.where(fresh_B.reshape(-1, *(1,) * (x.ndim - 1)), 0, x)
      carry = jax.tree.map(clear, carry)
    hidden, sown = self.apply_hidden(params, batch, rng, **({"carry": carry} if carry else {}))
    if self._has_memory:
      hidden_BTD, new_carry = hidden
      carry = new_carry if carry else {}
    else:
      hidden_BTD = hidden
    weights_BT = (batch["segments"] > 0).astype(jnp.float32)
    value, nll, correct = linear_cross_entropy(
      hidden_BTD, self.module.output_table(params), batch["targets"], weights_BT, self.config.train.label_smoothing
    )
    weight = weights_BT.sum()
    sums = {"nll": (nll, weight), "accuracy": (correct, weight)} | self.added(sown, weight)
    value += sums.get("balance", (0, 0))[0]
    return Loss(value, weight, sums, carry=carry)

  def dev_samples(self, params, variables, count) -> Examples:
    """Samples of nothing but the beginning of a text, of _SHOWN tokens at most."""
    with self.lent(params, variables) as run:
      drawn = run.sample(num_samples=count, max_tokens=min(self.config.decode.max_tokens, _SHOWN))
    return Examples([{"sample": sample.text} for sample in drawn])

  def runner(self, params, variables, *, checkpoint, step) -> LanguageModel:
    return LanguageModel(self, params, variables, checkpoint=checkpoint, step=step)
