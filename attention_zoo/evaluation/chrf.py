"""chrF (Popovic 2015): F-score of character n-grams. It needs no words, so one figure serves every language."""

from collections.abc import Sequence

from attention_zoo.evaluation.pairs import check_pairs
from attention_zoo.protocols import Score


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
  """sacreBLEU's chrF2 of a corpus, from 0 to 100, with its signature.

  hypotheses, references: as many strings each. Raises UserError where the counts differ or there are none.
  """
  check_pairs("chrF", hypotheses, references)
  from sacrebleu.metrics import CHRF  # here: whoever translates need not wait for it

  metric = CHRF()
  found = metric.corpus_score(list(hypotheses), [list(references)])
  return Score(found.name, found.score, str(metric.get_signature()))
