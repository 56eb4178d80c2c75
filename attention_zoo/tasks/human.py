"""Runs of super-resolution and people: the published table with our scores in it, and the page that asks them."""

from attention_zoo import grammar
from attention_zoo.errors import UserError
from attention_zoo.evaluation import human
from attention_zoo.plots import forced_choice
from attention_zoo.tasks import arguments
from attention_zoo.tasks.upscaler import Upscaling

TITLE = "Taken for the real photograph, % of people's answers (CelebA, 8 x 8 to 32 x 32; Parmar et al. 2018, table 3)"


def table(runs) -> list[tuple[str, str, str]]:
  """(system, printed, ours) rows: the published table, and how near each run comes to the first images of its dev
  split, in the row of its system and temperature, or else in one of its own. Raises UserError for a run that enlarges
  no images."""
  notes, others = {row: [] for row in human.TABLE}, []
  for run in _checked(runs):
    data = run.config.data
    scores = ", ".join(f"{score.name} {score.shown}" for score in run.nearness("dev"))
    sizes = f"{data.low_size} x {data.low_size} to {data.size} x {data.size}"
    note = f"{run.task.workdir}: {scores} ({data.source}, {sizes})"
    if row := _row(run):
      notes[row].append(note)
    else:
      others.append((run.config.model.name, "-", note))
  return [(row.name, row.shown, "; ".join(notes[row])) for row in human.TABLE] + others


def page(runs, *, trials: int, seconds: float, seed: int, command: str = "") -> str:
  """A self-contained HTML page that shows real images of the runs' dev splits and enlarged ones in pairs, and asks
  which is real.

  trials: pairs of each run, each of another image of the split, so that none is seen twice. seconds: how long a pair is
  seen. seed: of order and places. Raises UserError for a run that enlarges no images, and for splits of too few.
  """
  trials = checked_trials(runs, trials)
  systems, pairs = [], []
  for i, run in enumerate(runs):
    row = _row(run)
    _, drawn, real = run.enlarged("dev", trials, start=i * trials)
    systems.append((f"{run.task.workdir}: {run.config.model.name}", row.shown if row else ""))
    pairs += [forced_choice.Pair(i, i * trials + j, *pair) for j, pair in enumerate(zip(real, drawn, strict=True))]
  return forced_choice.forced_choice_page(systems, pairs, seconds=seconds, seed=seed, command=command)


def checked_trials(runs, trials) -> int:
  """trials, or the errors of `page`, before an image is enlarged."""
  trials = arguments.whole(trials, "trials", 1, 10_000)
  for run in _checked(runs):
    if (there := len(run.task.pictures("dev")[0])) < trials * len(runs):
      raise UserError(
        f"{run.task.workdir}: the dev split has {there} images, fewer than {trials} for each of {len(runs)} runs: "
        f"take --trials={max(there // len(runs), 1)} or fewer runs"
      )
  return trials


def _checked(runs):
  for run in runs:
    if not isinstance(run, Upscaling):
      raise UserError(f"{run.task.workdir} is a run of the task {run.config.task!r}, which enlarges no images")
  return runs


def _row(run):
  attention = grammar.parse(run.config.model.get("attention") or "none")[0]
  return human.row_of(run.config.model.name, attention, run.config.decode.get("temperature"))
