"""The HTML page about a trained run: what every task's page has,
and what those of translation and language modelling add."""

import fnmatch

from etils import epath

from attention_zoo.plots.report import run_report
from attention_zoo.training.config import flat
from attention_zoo.training.metrics import read_metrics
from attention_zoo.training.workdir import versions

# Of a record of the dev split: what places it, and what the loss and the perplexity show already.
KNOWN = ("step", "split", "time", "weight", "loss", "nll", "perplexity")


def task_report(run, name, evaluation, *, headline=(), **parts) -> str:
  """HTML of a Runner and what its `evaluate` returned. name: what the run does, for the title; parts: of `run_report`.

  headline: scores that stand on top, before the perplexity and the rate.
  """
  task = run.task
  rate = f"{task.unit}_per_second"
  parts = {"scores": evaluation.scores, "samples": evaluation.samples} | parts
  records = read_metrics(task.workdir)
  figures = {name: None for record in records if record["split"] == "dev" for name in record if name not in KNOWN}
  return run_report(
    f"{epath.Path(task.workdir).name}: {name}, checkpoint {run.checkpoint}",
    used_fields(run.config, task.longest is not None),
    [_by_split(record) for record in records],
    curve_names=("loss", "perplexity", *figures, "learning_rate", rate),
    headline=(*headline, "perplexity", rate),
    versions=versions(),
    **parts,
  )


def translation_report(run, evaluation, *, command, num_samples=20, num_attentions=3) -> str:
  """HTML of a `tasks.translator.Translator` and what its `evaluate` returned."""
  samples = evaluation.samples
  # Sentences of ten words or so make maps that can be read; the longest of those reorder the most.
  short = [s["source"] for s in samples if s["translation"] and len(s["source"]) <= 60]
  drawn = [(sentence, run.attention(sentence)) for sentence in sorted(short, key=len)[-num_attentions:]]
  stride = max(1, len(samples) // num_samples)
  return task_report(
    run,
    "-".join(run.config.data.languages),
    evaluation,
    headline=[row["name"] for row in evaluation.record["bleu"][:2]],
    samples=samples[::stride][:num_samples],
    compare=("translation", "reference"),
    attentions=[(sentence, seen.cross, seen.target, seen.source) for sentence, seen in drawn if seen.cross is not None],
    attention_note="Cross-attention: rows are the tokens produced, columns the source tokens they look at.",
    command=command,
  )


def language_report(run, evaluation, *, command, num_attentions=2) -> str:
  """HTML of a `tasks.language_model.LanguageModel` and what its `evaluate` returned."""
  lines = (next(iter(sample["sample"].splitlines()), "")[:40] for sample in evaluation.samples)
  drawn = [(line, run.attention(line)) for line in [line for line in lines if line.strip()][:num_attentions]]
  return task_report(
    run,
    run.config.model.name,
    evaluation,
    attentions=[(line, seen.weights, seen.target, seen.inputs) for line, seen in drawn if seen.weights is not None],
    attention_note="Rows are the tokens predicted, columns the tokens before them.",
    command=command,
  )


# (field, the value that turns something off, the fields that mean nothing then)
IDLE = (
  ("data.source", "phrasebook", ("data.dir",)),
  ("optimizer.clip_norm", 0, ("optimizer.clip_norm",)),
  ("decode.coverage_penalty", 0, ("decode.coverage_penalty",)),
  ("model.positions", "none", ("model.position_mode",)),
  ("mesh.replica", 1, ("mesh.replica",)),
  ("mesh.fsdp", 1, ("mesh.fsdp",)),
  ("mesh.tensor", 1, ("mesh.tensor",)),
  ("train.ema", 0, ("train.ema",)),
  ("train.best_metric", "", ("train.best_*", "train.patience")),
)


def used_fields(config, bounded) -> list[tuple]:
  """(name, value) of the fields that the run uses: without empty ones, and without those that others make idle.

  bounded: whether model.max_length limits what the model can take.
  """
  fields = flat(config)
  idle = [] if bounded else ["model.max_length"]
  for field, value, names in IDLE:
    idle += names if fields.get(field) == value else ()
  return [
    (name, value)
    for name, value in fields.items()
    if value not in ("", ()) and not any(fnmatch.fnmatch(name, pattern) for pattern in idle)
  ]


def _by_split(record) -> dict:
  """{'split': 'dev', 'loss': l, 'step': s} -> {'dev/loss': l, 'step': s}, as the curves want it."""
  return {"step": record["step"]} | {
    f"{record['split']}/{name}": value for name, value in record.items() if name not in ("step", "split", "time")
  }

