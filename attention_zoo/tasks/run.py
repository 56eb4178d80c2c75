"""What every loaded run has beside the verbs of its task: what it is, what it consists of, and a tidy face."""

import functools
import html

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from attention_zoo.errors import UserError
from attention_zoo.tasks.describe import Description, describe
from attention_zoo.training import sharding
from attention_zoo.training.step import make_evaluate

# For those who lend a runner to a training loop or export it; not for completion.
_INNER = {"take", "programs"}


class Run:
  """Base of the runners. Parameters lie on each device of this process, and work is spread over all of them.

  Completion offers the verbs alone. Calls of like shapes are compiled once, and threads may share a run.
  """

  def __init__(self, task, params, variables, *, checkpoint, step):
    self.task, self.config, self.checkpoint, self.step = task, task.config, checkpoint, step
    self._mesh = sharding.local_mesh()
    self.take(params, variables)

  def take(self, params, variables) -> None:
    """Goes on with other parameters; what was compiled stays."""
    self.params, self.variables = jax.device_put((params, variables), NamedSharding(self._mesh, P()))

  def __repr__(self):
    count = sum(leaf.size for leaf in jax.tree.leaves(self.params))
    return f"<{self._what()}: {count:,} parameters, checkpoint {self.checkpoint} of {self.task.workdir}>"

  def _what(self) -> str:
    return f"{type(self).__name__} {self.config.model.name}"

  @functools.cached_property
  def _evaluate(self):
    return make_evaluate(self.task, self._mesh)

  def dev_loss(self) -> float:
    """Of the dev split, in the units of training."""
    return self._evaluate(self.params, self.variables, "dev")["loss"]

  @functools.cached_property
  def card(self):
    """What the model is, what it was trained on and with which settings, and how good it was: `exchange.card.Card`."""
    from attention_zoo.exchange import card

    return card.of(self)

  def describe(self, *, rows: int = 1, length: int | None = None) -> Description:
    """Every part of the model with its parameters, the shapes that it returns and its operations; a notebook shows it
    as a table. Nothing is computed.

    rows, length: of the batch that shapes and operations are of; by default one row of config.data.row_length tokens.
    """
    from attention_zoo.tasks import arguments

    rows = arguments.whole(rows, "rows", 1, 10**6)
    longest = self.task.longest or 10**6
    usual = min(self.config.data.row_length, longest)
    length = usual if length is None else arguments.whole(length, "length", 1, longest)
    return describe(self.config.model.name, self.task.module, self.task.model_config, rows=rows, length=length)

  def programs(self):
    """What the model computes, for export: `tasks/programs.Programs`. Raises UserError for a task that has none."""
    raise UserError(f"the task {self.config.task!r} cannot be exported as programs: --format=zoo keeps all of the run")

  def __getattr__(self, name):
    if name.startswith("_") or "config" not in vars(self) or hasattr(type(self), name):
      return object.__getattribute__(self, name)  # which says why there is none
    raise AttributeError(
      f"a run of the task {self.config.task!r} has no {name!r}; it has {', '.join(dir(self))}", name=name, obj=self
    )

  def __dir__(self):
    kinds = type(self).__mro__
    public = {name for kind in kinds for name in vars(kind) if not name.startswith("_")} - _INNER
    return sorted(name for name in public if name == "card" or callable(getattr(type(self), name)))

  def _repr_html_(self):
    from attention_zoo.plots import theme

    count = sum(leaf.size for leaf in jax.tree.leaves(self.params))
    about = {"model": self.config.model.name, "parameters": f"{count:,}"}
    if languages := self.config.data.get("languages", ()):
      about["languages"] = " to ".join(languages)
    about |= {"trained on": self.config.data.source, "checkpoint": f"{self.checkpoint}, step {self.step}"}
    about |= {"from": self.task.workdir, "verbs": ", ".join(dir(self))}
    rows = "".join(f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>" for name, value in about.items())
    return theme.fragment(f"<table>{rows}</table>")
