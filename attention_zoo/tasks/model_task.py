"""What every task with a model of `models/` has: the model made from the config, its parameters, a runner to lend."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from etils import epath

from attention_zoo import models
from attention_zoo.errors import UserError
from attention_zoo.protocols import Initial, Task
from attention_zoo.training import sharding

# jit traces a layer anew where it is another: what was traced with an interceptor is not for those without.
_INTERCEPTED = jax.make_user_context(None)


class ModelTask(Task):
  """What the model's Config has in GIVEN is config.data's under the same name."""

  def __init__(self, config, workdir):
    self.config, self.workdir = config, epath.Path(workdir)
    fields = dict(config.model)
    self.module = models.find(fields.pop("name"), tuple(self.batch_shapes()))
    try:
      self.model_config = self.module.Config(**{name: config.data[name] for name in self.GIVEN}, **fields)
    except (TypeError, ValueError) as error:
      raise UserError(f"config.model: {error}") from error
    self.model = self.module.Model(self.model_config)
    self.fingerprint = functools.cache(self.fingerprint)
    self._runner = None

  def init(self, rng) -> Initial:
    return Initial(self._first(rng)["params"])

  def _first(self, rng) -> dict:
    """All collections as they begin. Raises UserError where the model's sizes do not go together."""
    shapes = models.batch_shapes(self.module, self.model_config, rows=1, length=2)
    batch = {name: jnp.zeros(shape, jnp.int32) for name, shape in shapes.items()}
    try:
      return self.model.init(rng, batch)
    except (TypeError, ValueError) as error:  # sizes that do not go together
      raise UserError(f"config.model: {error}") from error

  @contextlib.contextmanager
  def rows_kept(self, rows: int):
    """What modules return for `rows` rows stays split by rows inside the `with`."""
    with _INTERCEPTED(rows), nn.intercept_methods(sharding.keep_rows(rows)):
      yield

  def apply(self, params, batch, rng, **options):
    """(what the model returns for a batch, what its layers add: `models/__init__.py`). rng None: without dropout."""
    rows = next(iter(batch.values())).shape[0]
    with self.rows_kept(rows):
      return self.model.apply(
        {"params": params},
        batch,
        train=rng is not None,
        rngs=None if rng is None else {"dropout": rng},
        mutable=["losses", "figures"],
        **options,
      )

  def learning_rate_factor(self, path, step):
    """What the model's module says: frozen parts, gradual unfreezing."""
    own = getattr(self.module, "learning_rate_factor", None)
    return own(self.model_config, path, step) if own else super().learning_rate_factor(path, step)

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
