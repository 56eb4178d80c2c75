"""BLEU (Papineni et al. 2002) in the three dialects that papers on translation print.

One output scores up to two points apart in them, so a number is worth nothing without its dialect:

  sacreBLEU        what one quotes today: of detokenised text, mteval-v13a tokens, cased.
  tokenised        multi-bleu.perl: of tokens, cased, no smoothing. Data that comes as tokens is scored as it
                   is, which is how Multi30k is published (lower-cased tokens). Raw text gets 13a tokens, so
                   that only the smoothing is left to differ from sacreBLEU.
  compounds split  "Attention Is All You Need", GNMT and ConvS2S on WMT 2014: as before, after hyphens within
                   words were split off in hypothesis and reference (tensor2tensor, utils/get_ende_bleu.sh).
                   Rewards a hit on half a compound.

The script tokenised raw text with Moses' tokenizer.perl; 13a stands in for it here (both keep hyphens inside
words, which the split relies on, but 13a leaves typographic quotes on their words, where the script first replaces
Unicode punctuation in the hypotheses and escapes special characters in both); the row's name says so.
Where the target language has no spaces between words, sacreBLEU's tokenizer for it takes the place of 13a.
"""

import re
from collections.abc import Sequence

from attention_zoo.evaluation.languages import bleu_tokenizer
from attention_zoo.evaluation.pairs import check_pairs
from attention_zoo.protocols import Score


def split_compounds(tokenised):
  """perl -ple 's{(\\S)-(\\S)}{$1 ##AT##-##AT## $2}g': on bytes, as Perl does; one hyphen of a-b-c only."""
  return re.sub(rb"(\S)-(\S)", rb"\1 ##AT##-##AT## \2", tokenised.encode()).decode()


def bleu_report(
  hypotheses: Sequence[str], references: Sequence[str], *, language="", tokenized=False
) -> list[Score]:
  """Corpus BLEU with one reference, in three dialects: sacreBLEU, tokenised, tokenised with compounds split.

  Each score's signature is sacreBLEU's, with `tok` what was really done, and `hyp` saying what text was scored.

  Args:
    hypotheses: output, one string a sentence; may be empty strings.
    references: as many.
    language: the code of the target language, such as "de" or "zh"; it decides the tokenizer.
    tokenized: both are tokens between spaces (nothing is detokenised: the sacreBLEU row then scores tokens as
      if they were text, and is comparable with other systems on the same data only).

  Raises:
    UserError: the counts differ, or there are no sentences.
  """
  from sacrebleu.metrics import BLEU  # here: whoever translates need not wait for it

  check_pairs("BLEU", hypotheses, references)
  name = bleu_tokenizer(language, references)
  if tokenized:
    tokenise, tokens, source = str, "none", "tokens-as-is"
    names = "sacreBLEU (of pre-tokenised text)", "tokenised (as is)", "tokenised (as is), compounds split"
  else:
    tokenise, source = BLEU(tokenize=name).tokenizer, "detokenised"
    tokens, stand_in = tokenise.signature(), " for Moses" if name == "13a" else ""
    names = "sacreBLEU", f"tokenised ({name})", f"tokenised ({name}{stand_in}), compounds split"

  def row(title, prepare, label, **options):
    metric = BLEU(force=True, **options)  # force: no warning that text looks tokenised
    score = metric.corpus_score([prepare(h) for h in hypotheses], [[prepare(r) for r in references]]).score
    signature = str(metric.get_signature()).replace("|tok:none|", f"|tok:{label}|")
    return Score(title, score, f"{signature}|hyp:{source}")

  multi_bleu = {"tokenize": "none", "smooth_method": "none"}
  return [
    row(names[0], str, name, tokenize=name),
    row(names[1], tokenise, tokens, **multi_bleu),
    row(names[2], lambda text: split_compounds(tokenise(text)), f"{tokens}+compounds", **multi_bleu),
  ]
