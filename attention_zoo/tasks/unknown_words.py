"""PosUnk (Luong et al. 2015, "Addressing the Rare Word Problem in Neural Machine Translation", who learn the position;
Jean et al. 2015, who take it from the attention, as is done here):
an unknown word of a translation becomes the word of the source that the attention weighed most where it was predicted,
through a dictionary where it is there, else as it is.

On word pieces <unk> may be a part of a word. The word that holds it is then replaced as a whole. Words stand between
spaces; the punctuation around a word is none of it.
"""

import itertools
import re

from attention_zoo.data.textfiles import lines
from attention_zoo.data.tokenizer import UNK
from attention_zoo.errors import UserError
from attention_zoo.evaluation.languages import has_spaces

MOST_WORDS = 1 << 22
_MARK = "\ufdd0"  # stands for <unk>: no character


def check_unknown(task, attends: bool) -> dict[str, str]:
  """The dictionary of config.decode.unknown_dictionary, empty where none is named.

  attends: whether the run's model shows its attention to the source. Raises UserError where it does not, for a source
  language whose words do not stand between spaces, and for a dictionary that cannot be read.
  """
  data, name = task.config.data, task.config.model.name
  if not attends:
    raise UserError(
      f"config.decode.replace_unknown needs an attention to the source, which config.model.name = {name!r} does not "
      "show: set it to False"
    )
  if not _spaced(data, data.languages[0]):
    raise UserError(
      f"config.decode.replace_unknown needs words between spaces, which {data.languages[0]!r} does not have: "
      "set it to False"
    )
  path = task.attachments().get("decode.unknown_dictionary")
  return read_dictionary(path) if path else {}


class UnknownWords:
  """What config.decode.replace_unknown asks for. Raises UserError as `check_unknown` does."""

  def __init__(self, task, attends: bool):
    self._words = check_unknown(task, attends)
    self._tokenizer, self._spaced = task.tokenizer, _spaced(task.config.data, task.config.data.languages[1])

  def text(self, source: str, ids, positions) -> str:
    """The text of a translation (`ids`), without unknown words.

    positions: of the piece of the source that each token looked at most.
    """
    words = iter([self._translated(source, at) for i, at in zip(ids, positions, strict=True) if i == UNK])
    (text,) = self._tokenizer.target.decode([ids], unknown=_MARK)
    return re.sub(rf"\S*{_MARK}\S*" if self._spaced else rf"{_MARK}+", lambda found: _replaced(found[0], words), text)

  def _translated(self, source, position) -> str:
    word = self._word(source, position)
    return self._words.get(word, word)

  def _word(self, source, position) -> str:
    """The word of the source that holds the piece at that position."""
    words = re.findall(r"\s*\S+", source)  # with the spaces before them, which some vocabularies keep
    pieces = self._tokenizer.encode([words[0], *(word[1:] for word in words[1:])])  # it puts a space before each text
    words, ends = [word.lstrip() for word in words], list(itertools.accumulate(map(len, pieces)))
    at = next((i for i, end in enumerate(ends) if position < end), len(words) - 1)
    before, core, after = _parts(words[at])
    return core or before + after


def read_dictionary(path) -> dict[str, str]:
  """{source: target} of a file of lines source<TAB>target; of several lines for a word, the first counts.
  Raises UserError that names the line which has no such form, and for more than MOST_WORDS lines."""
  found = {}
  for number, line in enumerate(lines(path), 1):
    if number > MOST_WORDS:
      raise UserError(f"{path} has more than {MOST_WORDS:,} lines: more than any dictionary of unknown words")
    source, tab, target = line.partition("\t")
    if not tab or "\t" in target or not source.strip() or not target.strip():
      raise UserError(f"{path}, line {number}: wanted a word, a tab and its translation, not {line[:80]!r}")
    found.setdefault(source.strip(), target.strip())
  return found


def _spaced(data, language) -> bool:
  return data.tokenized or has_spaces(language, [])


def _parts(word):
  """(what stands before it, the word, what stands behind it): marks and letters are the word's, and what is between."""
  inside = [i for i, character in enumerate(word) if character.isalnum() or character == _MARK]
  first, last = (inside[0], inside[-1] + 1) if inside else (len(word), len(word))
  return word[:first], word[first:last], word[last:]


def _replaced(word, words) -> str:
  """words: an iterator over those of all marks of the text, in order. Marks that mean the same word make it once."""
  before, core, after = _parts(word)
  meant = [next(words, "") for _ in range(core.count(_MARK))]
  return before + " ".join(dict.fromkeys(meant)) + after
