"""How good a trained translation run is on a split: perplexities, BLEU, chrF."""

from attention_zoo.errors import UserError
from attention_zoo.evaluation.bleu import bleu_report
from attention_zoo.evaluation.chrf import chrf
from attention_zoo.evaluation.languages import has_spaces
from attention_zoo.evaluation.perplexity import count_words, perplexity
from attention_zoo.protocols import Evaluation, Score


def read_pairs(task, split) -> tuple[list[str], list[str]]:
  """(sources, references) of a split; UserError where it has none."""
  pairs = list(task.source.pairs(split))
  if not pairs:
    raise UserError(f"the split {split!r} is empty")
  sources, references = zip(*pairs, strict=True)
  return list(sources), list(references)


def perplexities(task, summary, split, references) -> dict[str, float]:
  """Perplexities of a split, per subword and per word, with and without label smoothing.

  summary: what `make_evaluate` found, with loss, nll and weight. references: the target sentences of the split.
  The two per word are left out where the text has no spaces to count words by, and where sentences are longer than
  config.data.max_length: what was cut off or skipped has words, but no probability.
  """
  if not summary:
    raise UserError(f"no pair of the split {split!r} is left: all are longer than config.data.max_length")
  countable = task.config.data.tokenized or has_spaces(task.config.data.languages[1], references)
  words = count_words(references) if countable and not task.corpus(split).too_long else None
  tokens = summary["weight"]
  found = perplexity(nll=summary["nll"] * tokens, smoothed_loss=summary["loss"] * tokens, tokens=tokens, words=words)
  return {name: value for name, value in found._asdict().items() if value is not None}


def scores(config, hypotheses, references) -> dict:
  """{"bleu": the three dialects, "chrf": one score}, each as a dict of name, score and signature."""
  language, tokenized = config.data.languages[1], config.data.tokenized
  row = lambda found: {"name": found.name, "score": found.value, "signature": found.signature}
  return {
    "bleu": [row(found) for found in bleu_report(hypotheses, references, language=language, tokenized=tokenized)],
    "chrf": row(chrf(hypotheses, references)),
  }


def evaluation(record) -> Evaluation:
  """The Evaluation of what was found: record holds perplexity, bleu, chrf, sources, hypotheses, references."""
  scores = [Score(f"perplexity {name.replace('_', ' ')}", value) for name, value in record["perplexity"].items()]
  scores += [Score(row["name"], row["score"], row["signature"]) for row in (*record["bleu"], record["chrf"])]
  columns = zip(record["sources"], record["hypotheses"], record["references"], strict=True)
  samples = [{"source": s, "translation": h, "reference": r} for s, h, r in columns]
  return Evaluation(scores, samples, record)
