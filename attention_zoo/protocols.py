"""What the loop, the entry points, the searches and the pages know of a system:
the shapes of everything that passes between rooms.

Every room may import this file, as it may import errors.py and files.py. A test runs over everything that claims to
follow a protocol (tests/conformance/).

Letters: B rows or sentences, J beams or samples of one of them, T positions of one step, S those of the source,
V vocabulary.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

PyTree = Any
Batch = dict[str, np.ndarray]
Shapes = dict[str, Any]  # name -> anything with .shape and .dtype, of a global batch


class Initial(NamedTuple):
  """What a run begins with.

  params: learnt by gradients, nested dict of float32 arrays. variables: learnt without gradients (batch statistics,
  codebooks, target networks).
  """

  params: PyTree
  variables: PyTree = {}


class Loss(NamedTuple):
  """What one batch costs. The loop minimises value / weight of the global batch.

  value: sum over the batch, the objectives already weighted against each other. weight: what divides it (target tokens,
  pixels, graphs). sums: name -> (sum, weight), for reports; both add over batches, and rows of zeros add nothing.
  variables: what they become. carry: what each row hands to the same row of the next batch (the memory of
  Transformer-XL, the state of an LSTM).
  """

  value: Any
  weight: Any
  sums: dict[str, tuple[Any, Any]]
  variables: PyTree = {}
  carry: PyTree = {}


class Score(NamedTuple):
  """One figure of an evaluation. signature: how it was computed, so that another could; "" where the name says it.
  digits: after the point, as it is printed elsewhere; without a signature there are four."""

  name: str
  value: float
  signature: str = ""
  digits: int = 2

  @property
  def shown(self) -> str:
    """The value in a table."""
    return f"{self.value:.{self.digits if self.signature else 4}f}"


class Evaluation(NamedTuple):
  """scores: what a table shows. samples: (name, text) columns of each example, the first of which a page shows.
  record: JSON, kept in WORKDIR/eval/; it holds everything that another evaluation needs."""

  scores: list[Score]
  samples: list[dict[str, str]]
  record: dict


class Examples(NamedTuple):
  """What a person looks at while a model is trained. samples: as in Evaluation.
  figures: name -> content of a PNG file."""

  samples: list[dict[str, str]]
  figures: dict[str, bytes] = {}


class Runner(Protocol):
  """Trained parameters of one task: what `zoo.load` returns. Each kind adds its verbs: translate, sample, ..."""

  config: Any  # the run's; `evaluate` uses its `decode` as it is at that moment
  checkpoint: str
  step: int

  def evaluate(self, split: str, *, report: Callable[[int, int], None] | None = None) -> Evaluation: ...
  def page(self, evaluation: Evaluation, command: str = "") -> str: ...  # the HTML page about the run
  def dev_loss(self) -> float: ...  # of the dev split, in the units of training: what averages are compared by


class Task(Protocol):
  """A system as the training loop sees it, made from (config, workdir). What has a body here is the usual answer."""

  FIELDS: ClassVar[dict[str, dict]]  # its own part of the config: group -> name -> Field, beside model and the loop's
  GIVEN: ClassVar[tuple[str, ...]] = ()  # fields of the model's Config that the task knows from elsewhere
  # Letter of a parameter's dimension -> the field of the config that says what each place in it stands for.
  MEANINGS: ClassVar[Mapping[str, str]] = {}
  unit: ClassVar[str]  # "tokens", "pixels", "graphs": what a rate counts
  dev_score_names: tuple[str, ...] = ()  # of dev_scores
  defaults: dict[str, Any] = {}  # "group.field" of its config -> default; `tasks.make` sets it
  has_dev_samples: bool = False

  def init(self, rng) -> Initial: ...

  def known_params(self) -> dict[str, Callable]:
    """{path of a parameter: function of the value that was drawn, which returns the one to begin with}, for what a new
    run has out of files (vectors of words). Not under jit; called once, where a run begins."""
    return {}

  def carry(self, rows: int) -> PyTree:
    """What the first batch of `rows` rows is handed; leaves have the rows first. Under jit."""
    return {}

  def loss(self, params, variables, carry, batch, rng, step) -> Loss: ...  # rng None: as evaluated, without dropout

  def learning_rate_factor(self, path: str, step) -> Any:
    """Of the parameter at that path: freezing, gradual unfreezing, rates by layer."""
    return 1.0

  # This process's rows, from step `start`.
  def train_batches(self, start: int, parts: Sequence[int], count: int) -> Iterator[Batch]: ...
  def eval_batches(self, split: str) -> Iterable[Batch]: ...  # all rows, each once
  def batch_shapes(self) -> Shapes: ...  # of a global training batch, without data: for compiling
  def train_shapes(self) -> Sequence[Shapes]: ...  # of all training batches: several where they are bucketed

  def batch_units(self) -> int:
    """How many of its `unit`, padding counted, a batch of `batch_shapes` holds: for rates that are predicted."""
    return max(math.prod(x.shape) for x in self.batch_shapes().values())

  def summarize(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Figures for people: perplexity, bits per dimension, accuracy, ...;
    these are the means and the weight of the loss."""
    means = {name: sum / weight if weight else math.nan for name, (sum, weight) in sums.items()}
    return means | {"weight": sums["loss"][1]}

  def dev_scores(self, params, variables) -> dict[str, float]:
    """Figures of the dev split that the loss does not give (BLEU of a sample), with whole parameters on one device."""
    return {}

  def dev_samples(self, params, variables, count: int) -> Examples:
    """About `count` examples of what the model makes of the dev split, the same at every call;
    parameters as in dev_scores."""
    return Examples([])

  def claim(self) -> None:
    """Writes down what a new run has of its own beside its parameters (a vocabulary), and holds an old one to it. For
    training alone, at any time before the first batch; a second call changes nothing."""

  def check(self) -> None:
    """Raises UserError where what a trained run depends on beside its parameters (a vocabulary)
    is not as it was written."""

  def attachments(self) -> dict[str, Any]:
    """{"group.field": path} of the files that the config names and that trained parameters are used with."""
    return {}

  def fingerprint(self) -> str: ...  # of the training data; the loop guards it
  def runner(self, params, variables, *, checkpoint: str, step: int) -> Runner: ...


class Decoding(NamedTuple):
  """All that beam search, sampling and blockwise decoding see of a model.

  cache: any pytree. step: (tokens_BJT, t, cache) -> (logits_BJTV, cache): feeds the tokens of the positions t, t+1, ..,
  t+T-1 (t a traced int32 scalar) and returns the logits of what follows each; T = 1 in a search, more for a prompt or a
  block to verify. What stands in the cache at t and later is overwritten. reorder: (cache, parents_BJ) -> cache, beam j
  goes on from parents_BJ[:, j]; None gathers leaves [B, J, ...]. grow: (cache, length) -> cache with room for `length`
  positions; None where the cache has no length. max_length: the most positions that the model can take; None: any.
  coverage: cache -> attended_BJS, the attention that each place of the source has got in all steps so far, 1 where
  padding stands; None where the model does not say.
  """

  cache: PyTree
  step: Callable
  reorder: Callable | None = None
  grow: Callable | None = None
  max_length: int | None = None
  coverage: Callable | None = None


class PixelDecoding(NamedTuple):
  """All that the sampling of images sees of a model, for B images of [Y, X, 3] values from 0 to 255.

  order: NumPy int32, what each step is about: of a model with the head "categorical" numbers of values of [Y, X, 3],
  counted row by row, else numbers of pixels of [Y, X]. step: (pixels_BYX3, i, cache) -> (outputs_BP, cache): what the
  model expects (256 logits of the value, or the parameters of the pixel's mixture) at order[i] after everything at
  order[:i], which stands in pixels_BYX3; what else stands there is not looked at. i: a traced int32 scalar that goes
  up by one from 0. cache: any pytree, leaves with the rows first.
  """

  order: np.ndarray
  step: Callable
  cache: PyTree = {}
