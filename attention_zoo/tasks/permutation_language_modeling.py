"""Permutation language modelling: tokens are predicted one after the other in a random order, each from those that came
before it in that order, wherever they stand; as XLNet is pretrained (Yang et al. 2019).

`PermutationLanguageModeling` is what the training loop sees, `PermutationModel` what a user does with trained
parameters. What a model for it has is what `tasks/encoding.py` asks for, and

  - streams(batch, *, train, carry) -> (BTD, BTD, carry), a method: the second is the output at the "places" alone,
    from what comes before them in the "order" (`data/permutations.py`).
  - carry(config, rows), in its module: what the first batch is handed, where batches are contiguous.
  - output_table(params) -> VD in its module: logits are the products of the outputs at places with it.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo.data import permutations, windows
from attention_zoo.errors import UserError
from attention_zoo.evaluation.perplexity import exp
from attention_zoo.layers.linear import with_bias, with_one
from attention_zoo.protocols import Evaluation, Loss, Score
from attention_zoo.tasks import arguments
from attention_zoo.tasks.documents import Documents
from attention_zoo.tasks.encoder import EncoderRun
from attention_zoo.tasks.encoding import ENCODED, EncoderTask
from attention_zoo.training.config import FRACTION, Field
from attention_zoo.training.loss import linear_cross_entropy


class _Bias(nn.Module):
  """Of the logits: what the table is multiplied by, with a 1 for the column of the bias, and the bias."""

  vocab_size: int

  @nn.compact
  def __call__(self, x_BTD, *, train=False):
    bias_V = self.param("bias_V", nn.initializers.zeros, (self.vocab_size,))
    return with_one(x_BTD, bias_V), bias_V


class PermutationLanguageModeling(Documents, EncoderTask):
  """The task as the loop sees it, made from a config and a work directory."""

  unit = "places"
  HEAD = "permutation_head"
  has_dev_samples = False
  FIELDS = {
    "data": {
      **ENCODED,
      "batching": Field(str, choices=("windows", "contiguous")),
      "one_in": Field(int, low=1, default=6),  # of so many tokens one is predicted
    },
    "train": {"label_smoothing": FRACTION},
    "decode": EncoderTask.DECODE,
  }

  def __init__(self, config, workdir):
    super().__init__(config, workdir)
    if not hasattr(self.module.Model, "streams"):
      raise UserError(f"config.model.name = {config.model.name!r} has no stream of queries, which this task needs")
    self.head = _Bias(config.data.vocab_size)

  @functools.cached_property
  def batches(self):
    data = self.config.data
    found = windows.make_batches(
      data.batching, self.stream("train"), batch_tokens=data.batch_tokens, row_length=data.row_length,
      row_multiple=data.row_multiple, seed=data.seed,
    )  # fmt: skip
    return permutations.Permuted(found, rows=self._rows, one_in=data.one_in, seed=data.seed)

  def eval_batches(self, split):
    data = self.config.data
    found = windows.eval_batches(data.batching, self.stream(split), rows=self._rows, row_length=data.row_length)
    return permutations.in_order(found, data.one_in)

  def batch_shapes(self):
    data = self.config.data
    size = self._rows, data.row_length
    whole = jax.ShapeDtypeStruct(size, jnp.int32)
    places = jax.ShapeDtypeStruct((size[0], permutations.most_predicted(data.one_in, size[1])), jnp.int32)
    fresh = {"fresh": jax.ShapeDtypeStruct(size[:1], jnp.int32)} if data.batching == "contiguous" else {}
    return super().batch_shapes() | {"order": whole, "places": places} | fresh

  def carry(self, rows):
    return self.module.carry(self.model_config, rows) if self.config.data.batching == "contiguous" else {}

  def loss(self, params, variables, carry, batch, rng, step) -> Loss:
    """The cross-entropy of each token that is predicted with what the model expects after those before it in order."""
    if carry:
      fresh_B = batch["fresh"] > 0
      carry = jax.tree.map(lambda x: jnp.where(fresh_B.reshape(-1, *(1,) * (x.ndim - 1)), 0, x), carry)
    (_, x_BTD, new_carry), sown = self.apply_hidden(params, batch, rng, method="streams", carry=carry or None)
    x_BTD, bias_V = self.apply_head(params, x_BTD, rng)
    take = lambda x_BT: jnp.take_along_axis(x_BT, batch["places"], 1)
    weights_BT = (take(batch["segments"]) > 0).astype(jnp.float32)
    value, nll, correct = linear_cross_entropy(
      x_BTD, with_bias(self.module.output_table(params), bias_V), take(batch["inputs"]), weights_BT,
      self.config.train.label_smoothing,
    )  # fmt: skip
    weight = weights_BT.sum()
    sums = {"nll": (nll, weight), "accuracy": (correct, weight)} | self.added(sown, weight)
    return Loss(value, weight, sums, carry=new_carry if carry else {})

  def runner(self, params, variables, *, checkpoint, step):
    return PermutationModel(self, params, variables, checkpoint=checkpoint, step=step)


class PermutationModel(EncoderRun):
  """What `attention_zoo.load` returns for a permutation language model: an encoder of texts (`vectors`)."""

  def evaluate(self, split: str, *, report=None) -> Evaluation:
    """Of predicted tokens: nats, perplexity and accuracy."""
    figures = self._evaluate(self.params, self.variables, arguments.split_name(split))
    if not figures:
      raise UserError(f"the split {split!r} is empty")
    if report:
      report(1, 1)
    found = {"nats per token": figures["nll"], "perplexity per token": exp(figures["nll"])}
    found["accuracy"] = 100 * figures["accuracy"]
    return Evaluation([Score(name, value) for name, value in found.items()], [], {"scores": found})
