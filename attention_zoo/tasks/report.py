"""One HTML page about a trained translation run: scores, curves, samples, attention, settings."""

import fnmatch

from etils import epath

from attention_zoo.plots.report import run_report
from attention_zoo.training.config import flat
from attention_zoo.training.metrics import read_metrics
from attention_zoo.training.workdir import versions


def translation_report(run, result, *, command, num_samples=20, num_attentions=3) -> str:
  """HTML of a `tasks.translator.Translator` and what its `evaluate` returned."""
  workdir = run.task.workdir
  triples = list(zip(result["sources"], result["hypotheses"], result["references"], strict=True))
  # Sentences of ten words or so make maps that can be read; the longest of those reorder the most.
  drawn = sorted((s for s, hypothesis, _ in triples if hypothesis and len(s) <= 60), key=len)[-num_attentions:]
  attentions = []
  for sentence in drawn:
    seen = run.attention(sentence)
    attentions.append((sentence, seen.cross, seen.target, seen.source))
  stride = max(1, len(triples) // num_samples)
  return run_report(
    f"{epath.Path(workdir).name}: {'-'.join(run.config.data.languages)}, checkpoint {run.checkpoint}",
    used_fields(run.config, run.task.model_config.bounded),
    [_by_split(record) for record in read_metrics(workdir)],
    [(row["name"], row["score"], row["signature"]) for row in (*result["bleu"], result["chrf"])],
    triples[::stride][:num_samples],
    attentions,
    versions(),
    command,
  )


def language_report(run, evaluation, *, command) -> str:
  """HTML of a `tasks.language_model.LanguageModel` and what its `evaluate` returned."""
  workdir = run.task.workdir
  return run_report(
    f"{epath.Path(workdir).name}: {run.config.model.name}, checkpoint {run.checkpoint}",
    used_fields(run.config, getattr(run.task.model_config, "bounded", False)),
    [_by_split(record) for record in read_metrics(workdir)],
    versions=versions(),
    command=command,
  )


# (field, the value that turns something off, the fields that mean nothing then)
IDLE = (
  ("data.source", "phrasebook", ("data.name", "data.dir")),
  ("data.source", "text", ("data.name",)),
  ("optimizer.clip_norm", 0, ("optimizer.clip_norm",)),
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

