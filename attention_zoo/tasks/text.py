"""What every task on text has: a model made from the config,
a vocabulary and a text that belong to the run, packed rows."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from attention_zoo import files, models
from attention_zoo.data import characters, corpus, identity
from attention_zoo.data import tokenizer as tokenizers
from attention_zoo.errors import UserError
from attention_zoo.evaluation.perplexity import exp
from attention_zoo.protocols import Initial, Task
from attention_zoo.training import checkpoints, sharding
from attention_zoo.training.config import COUNT, FLAG, NATURAL, TEXT

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


# jit traces a layer anew where it is another: what was traced with an interceptor is not for those without.
_INTERCEPTED = jax.make_user_context(None)


class TextTask(Task):
  """A task has `source` (with `fingerprint(split)`), `training_texts()`, and the batches of its kind."""

  GIVEN = ("vocab_size",)
  unit = "tokens"
  has_dev_samples = True

  def __init__(self, config, workdir):
    self.config, self.workdir = config, epath.Path(workdir)
    fields = dict(config.model)
    self.module = models.find(fields.pop("name"), tuple(self.batch_shapes()))
    try:
      self.model_config = self.module.Config(vocab_size=config.data.vocab_size, **fields)
    except (TypeError, ValueError) as error:
      raise UserError(f"config.model: {error}") from error
    if self.longest is not None and config.data.row_length > self.longest:
      raise UserError(
        f"config.data.row_length = {config.data.row_length}, but the model's positions end at "
        f"config.model.max_length = {self.longest}: lower the one or raise the other"
      )
    self.model = self.module.Model(self.model_config)
    self.fingerprint = functools.cache(self.fingerprint)
    self._runner = None

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
    settings = {"tokenizer": data.tokenizer, "vocab_size": data.vocab_size}
    if data.tokenizer in ("bpe", "unigram"):
      settings |= {"normalization": data.normalization, "split_digits": data.split_digits}
    identity.claim(
      self.workdir,
      train=self.fingerprint(),
      directory=str(files.expand(data.dir).absolute()) if files.is_local(data.dir) and data.dir else data.dir,
      settings=settings,
      learn=functools.partial(self._learn, **settings),
      trained=bool(checkpoints.steps(self.workdir)),
    )
    if jax.process_count() > 1:
      digest = np.frombuffer(bytes.fromhex(self.fingerprint()), np.uint8)
      if (multihost_utils.process_allgather(digest) != digest).any():
        raise UserError(
          f"the processes do not all find the same training text (config.data.dir = {data.dir!r})"
        )

  def _learn(self, tokenizer, vocab_size, **settings) -> bytes:
    if tokenizer == "bytes":
      return characters.learn_bytes(vocab_size=vocab_size)
    if tokenizer == "characters":
      return characters.learn(self.training_texts(), vocab_size=vocab_size)
    return tokenizers.learn(self.training_texts(), vocab_size=vocab_size, model_type=tokenizer, **settings)

  # Trained parameters

  @contextlib.contextmanager
  def lent(self, params, variables):
    """A runner that has these parameters inside the `with`. It is kept without them:
    in a run each shape is compiled once."""
    if self._runner is None:
      self._runner = self.runner(params, variables, checkpoint="training", step=0)
    else:
      self._runner.take(params, variables)
    try:
      yield self._runner
    finally:
      self._runner.take({}, {})

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

  def init(self, rng) -> Initial:
    tiny = {
      name: jnp.zeros((1, 2)[: len(shape.shape)], jnp.int32) for name, shape in self.batch_shapes().items()
    }
    try:
      return Initial(self.model.init(rng, tiny)["params"])
    except (TypeError, ValueError) as error:  # sizes that do not go together
      raise UserError(f"config.model: {error}") from error

  def apply_hidden(self, params, batch, rng, **options):
    """(what the model's `hidden` returns for a batch, what its layers add, see `added`). rng None: without dropout."""
    table = lambda path, x: sharding.gather_rows(x) if path[-1].key == "table_VD" else x
    params = jax.tree_util.tree_map_with_path(table, params)
    rows = batch["targets"].shape[0]
    with _INTERCEPTED(rows), nn.intercept_methods(sharding.keep_rows(rows)):
      return self.model.apply(
        {"params": params},
        batch,
        train=rng is not None,
        rngs=None if rng is None else {"dropout": rng},
        method="hidden",
        mutable=["losses", "figures"],
        **options,
      )

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
