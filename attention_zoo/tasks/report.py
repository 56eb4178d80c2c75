"""One HTML page about a trained translation run: settings, curve, scores, samples, attention."""

import json
from importlib import metadata

from etils import epath

from attention_zoo.plots.report import run_report

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "sentencepiece", "sacrebleu", "numpy")


def translation_report(run, result, *, command, num_samples=20, num_attentions=3) -> str:
  """HTML of a `tasks.translator.Translator` and what its `evaluate` returned."""
  workdir = run.task.workdir
  lines = (workdir / "metrics.jsonl").read_text().splitlines() if (workdir / "metrics.jsonl").exists() else []
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
    list(_flat(run.config)),
    [json.loads(line) for line in lines],
    [(row["name"], row["score"], row["signature"]) for row in result["bleu"]],
    triples[::stride][:num_samples],
    attentions,
    {package: metadata.version(package) for package in PACKAGES},
    command,
  )


def _flat(group, prefix=""):
  for name, value in group.items():
    if hasattr(value, "items"):
      yield from _flat(value, f"{prefix}{name}.")
    else:
      yield prefix + name, value
