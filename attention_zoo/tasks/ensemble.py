"""Several trained translation runs as one: the distribution of the next token is the mean of theirs."""

from collections.abc import Iterable

from attention_zoo.decoding.ensemble import ensemble, mean_logits
from attention_zoo.errors import UserError
from attention_zoo.protocols import Loss
from attention_zoo.tasks import arguments
from attention_zoo.tasks.translator import Translator
from attention_zoo.training.loss import smoothed_cross_entropy


class Ensemble(Translator):
  """What `attention_zoo.ensemble` returns. It translates, scores and evaluates as a `Translator` of one run does.

  Text, vocabulary and config are the first run's; sentences are cut at the shortest config.data.max_length of all.
  `align` and `soft_align` are the first run's. Raises UserError for runs that cannot go together: other tasks,
  vocabularies or languages.
  """

  def __init__(self, runs: Iterable[Translator]):
    self.runs = tuple(_fitting(arguments.items(runs, "runs", of="runs", write="[run, run]")))
    super().__init__(
      _Task([run.task for run in self.runs]),
      tuple(run.params for run in self.runs),
      tuple(run.variables for run in self.runs),
      checkpoint=", ".join(run.checkpoint for run in self.runs),
      step=", ".join(str(run.step) for run in self.runs),
    )

  def __repr__(self):
    return f"<Ensemble of {len(self.runs)}: {', '.join(map(repr, self.runs))}>"

  @property
  def attends(self):
    return self.runs[0].attends

  def align(self, sources, hypotheses, *, words=False):
    return self.runs[0].align(sources, hypotheses, words=words)

  def soft_align(self, sources, targets):
    return self.runs[0].soft_align(sources, targets)

  def attention(self, source, target=None):
    raise UserError("an ensemble has no attention weights of its own: ask one of its runs, run.runs[0].attention(...)")

  def page(self, evaluation, command=""):
    raise UserError("an ensemble has no page of its own: it has no single curve, and no attention weights")


class _Task:
  """What a Translator asks of its task; whatever is not here is the first run's."""

  def __init__(self, tasks):
    self._tasks = tasks
    self.config = tasks[0].config.copy_and_resolve_references()
    self.config.data.max_length = min(task.config.data.max_length for task in tasks)
    self.longest = min((task.longest for task in tasks if task.longest is not None), default=None)

  def __getattr__(self, name):
    return getattr(self._tasks[0], name)

  def decoding(self, params, source, *, num_beams):
    return ensemble(
      [task.decoding(p, source, num_beams=num_beams) for task, p in zip(self._tasks, params, strict=True)]
    )

  def logits(self, params, batch):
    return mean_logits(*(task.logits(p, batch) for task, p in zip(self._tasks, params, strict=True)))

  def loss(self, params, variables, carry, batch, rng, step) -> Loss:
    """As it is evaluated; an ensemble is not trained."""
    weights_BT = batch["target_segments"] > 0
    loss, nll, correct = smoothed_cross_entropy(
      self.logits(params, batch), batch["targets"], weights_BT, self.config.train.label_smoothing
    )
    weight = weights_BT.sum().astype(nll.dtype)
    return Loss(loss, weight, {"nll": (nll, weight), "accuracy": (correct, weight)})


def _fitting(runs):
  """The runs, if they go together. Raises UserError."""
  if not runs:
    raise UserError("an ensemble needs at least one run")
  for i, run in enumerate(runs):
    if not isinstance(run, Translator):
      raise UserError(f"runs[{i}] must be a translation run as zoo.load returns it, not a {type(run).__name__}")
    first, other = runs[0].task, run.task
    if other.tokenizer.fingerprint != first.tokenizer.fingerprint:
      raise UserError(
        f"{other.workdir} and {first.workdir} have different vocabularies, so that their distributions have no mean: "
        "train the runs of an ensemble on the same text and config.data, with other seeds or models"
      )
    if tuple(other.config.data.languages) != tuple(first.config.data.languages):
      names = [" -> ".join(task.config.data.languages) for task in (other, first)]
      raise UserError(f"{other.workdir} translates {names[0]}, and {first.workdir} {names[1]}: they are no ensemble")
  return runs
