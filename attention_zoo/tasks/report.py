"""One HTML page about a trained translation run: settings, curve, scores, samples, attention."""

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
    list(flat(run.config).items()),
    [_by_split(record) for record in read_metrics(workdir)],
    [(row["name"], row["score"], row["signature"]) for row in result["bleu"]],
    triples[::stride][:num_samples],
    attentions,
    versions(),
    command,
  )


def _by_split(record) -> dict:
  """{'split': 'dev', 'loss': l, 'step': s} -> {'dev/loss': l, 'step': s}, as the curves want it."""
  return {"step": record["step"]} | {
    f"{record['split']}/{name}": value for name, value in record.items() if name not in ("step", "split", "time")
  }

