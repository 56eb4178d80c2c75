"""chrF as sacreBLEU computes it."""

import pytest
import sacrebleu

from attention_zoo.errors import UserError
from attention_zoo.evaluation.chrf import chrf


def test_it_is_sacrebleus_in_any_language():
  for hypotheses, references in ((["der Hund"], ["der Hut"]), (["我们今天去商店。"], ["我们今天去学校。"])):
    found = chrf(hypotheses, references)
    assert found.value == sacrebleu.corpus_chrf(hypotheses, [references]).score
    assert found.name == "chrF2" and f"nc:6|nw:0|space:no|version:{sacrebleu.__version__}" in found.signature
  assert chrf(["我们"], ["我们"]).value == 100


def test_bad_input():
  with pytest.raises(UserError, match="chrF needs one hypothesis per reference: 1 hypotheses, 2 references"):
    chrf(["a"], ["a", "b"])
  with pytest.raises(UserError, match="no references"):
    chrf([], [])
