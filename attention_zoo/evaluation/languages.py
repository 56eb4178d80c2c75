"""What a metric has to know of a language: how sacreBLEU cuts its text into words,
and whether it has spaces to count them by.

BLEU counts n-grams of words. sacreBLEU's usual tokenizer (13a) goes by spaces and punctuation, so that a whole clause
of Chinese is one word, and two sentences that differ in one character have nothing in common.
"""

import itertools
import logging
import re
from collections.abc import Sequence

logger = logging.getLogger(__name__)

# Languages written without spaces between words, and Korean, whose words sacreBLEU wants split into morphemes.
_TOKENIZERS = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"} | dict.fromkeys(
  ("th", "lo", "km", "my", "bo", "dz"), "char"
)
_WITHOUT_SPACES = _TOKENIZERS.keys() - {"ko"}
# ISO 639-3 codes, and Chinese languages that have no other.
_TWO_LETTERS = {
  "zho": "zh", "chi": "zh", "cmn": "zh", "yue": "zh", "wuu": "zh", "lzh": "zh", "jpn": "ja", "kor": "ko",
  "tha": "th", "lao": "lo", "khm": "km", "mya": "my", "bur": "my", "bod": "bo", "tib": "bo", "dzo": "dz",
}  # fmt: skip
# Letters of those languages: Thai, Lao, Tibetan, Burmese, Khmer, kana, Chinese characters.
_LETTERS = re.compile(
  "[\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0edf\u0f40-\u0fbc\u1000-\u109f\u1780-\u17d3\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
  "\uf900-\ufaff\U00020000-\U0003ffff]"
)
_SAMPLE = 1000  # sentences that are looked at


def _code(language: str) -> str:
  """'zh-CN', 'zho_Hans' and 'cmn' are 'zh'; 'zh_Latn', which has spaces, is ''."""
  first, *rest = re.split("[-_]", language.lower())
  return "" if "latn" in rest else _TWO_LETTERS.get(first, first)


def has_spaces(language: str, texts: Sequence[str]) -> bool:
  """Whether words stand between spaces: by the language's code, and where that is not known,
  by the letters of the texts."""
  return _code(language) not in _WITHOUT_SPACES and not _looks_unspaced(texts)


def _looks_unspaced(texts) -> bool:
  text = "".join(itertools.islice(texts, _SAMPLE))
  return 2 * len(_LETTERS.findall(text)) > sum(map(str.isalpha, text))


def bleu_tokenizer(language: str, references: Sequence[str]) -> str:
  """The name of sacreBLEU's tokenizer for a target language; 13a for all that have spaces.

  Where the best one is not installed this is "char",
  and where the language is not known but the text has no spaces it is 13a; both are logged as a warning.
  """
  from sacrebleu.metrics import BLEU

  code = _code(language)
  name = _TOKENIZERS.get(code, "13a")
  if name == "13a" and _looks_unspaced(references):
    logger.warning(
      "the language %r is not known to be written without spaces, but the references are: BLEU takes whole clauses "
      "for words and means nothing here, so quote chrF; config.data.languages should name the language, "
      "for example 'zh', 'ja' or 'th'",
      language,
    )
  try:
    BLEU(tokenize=name)
  except (RuntimeError, AssertionError):  # no MeCab, or another dictionary than sacreBLEU wants
    logger.warning(
      "BLEU of %r is computed on characters, not comparable with others' figures: "
      "pip install 'sacrebleu[%s]' for words",
      language, code,
    )  # fmt: skip
    return "char"
  return name
