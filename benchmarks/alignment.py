"""What a translation run aligns: pictures of its attention, and how often it looks where the truth is known.

  python -m benchmarks.alignment --run=WORKDIR --out=DIR

The phrasebook puts the same values (a date, a city, a name) into both sentences of a pair, so that it is known which
words belong together (`data/phrasebook.py`: aligned); of the other words of its sentences nothing is known, and they
are left out. Possible links are those between all words of a value on one side and on the other. Sure links are those
of the values that have one word on either side, and, within longer ones, of words with the same digits or letters,
each the only such one, and of what these leave where it is one word on either side ("May" and "Mai").

The run's attention, target words forced, is summed over the pieces of a source word and averaged over those of a target
word, `</s>` left out. Each target word of a value is linked to the source word that it looked at most:
  - accuracy: the share of these links that are possible; "sure": of the words with a sure link, the share that has it.
  - alignment error rate (Och and Ney 2003): 1 - (|A and S| + |A and P|) / (|A| + |S|).
Beside it stands what the diagonal scores: each target word linked to the source word at the same part of its sentence.

Written: alignment.json, alignment.md, and heat maps: of the sentence pair of Bahdanau et al. 2015, fig. 3, and of a
sentence of the phrasebook with a date.
"""

import argparse
import collections
import json
import pathlib
import re

import numpy as np

from attention_zoo import files
from attention_zoo.errors import UserError
from benchmarks import common

# Bahdanau et al. 2015, fig. 3 (a): English and French.
LECTURE = (
  "The agreement on the European Economic Area was signed in August 1992 .",
  "L' accord sur la zone économique européenne a été signé en août 1992 .",
)
END = "</s>"
BEGIN = "▁"  # of a word, in pieces
MOST = 14  # words of the sentence that is drawn
LONGEST = 256  # pieces of a sentence, where the model has no limit of its own


def words_of(pieces) -> list[str]:
  """The words that pieces make, </s> a word of its own."""
  words = []
  for piece, number in zip(pieces, _numbers(pieces), strict=True):
    text = piece.replace(BEGIN, "")
    if number == len(words):
      words.append(text)
    else:
      words[-1] += text
  return words


def of_words(weights_TS, target, source) -> np.ndarray:
  """Weights of pieces as those of words: summed over the pieces of a source word, the mean over a target word's."""
  sums = np.zeros((len(target), max(_numbers(source)) + 1))
  for s, number in enumerate(_numbers(source)):
    sums[:, number] += weights_TS[:, s]
  numbers = np.array(_numbers(target))
  return np.stack([sums[numbers == word].mean(0) for word in range(numbers.max() + 1)])


def _numbers(pieces) -> list[int]:
  """Of each piece, the number of its word."""
  numbers, at = [], -1
  for i, piece in enumerate(pieces):
    at += i == 0 or piece.startswith(BEGIN) or piece == END
    numbers.append(at)
  return numbers


def spans(text, start, end) -> range:
  """The numbers of the words that characters start to end of a text are in."""
  places = [match.span() for match in re.finditer(r"\S+", text)]
  inside = [i for i, (first, last) in enumerate(places) if first < end and start < last]
  return range(inside[0], inside[-1] + 1)


def links(source, target, slots) -> tuple[set, set, dict]:
  """(sure, possible, kind of each target word) of a pair; links are (target word, source word)."""
  sure, possible, kinds = set(), set(), {}
  for slot in slots:
    ours, theirs = spans(source, *slot.source), spans(target, *slot.target)
    possible |= {(t, s) for t in theirs for s in ours}
    kinds |= dict.fromkeys(theirs, slot.kind)
    sure |= _sure([(s, _bare(source.split()[s])) for s in ours], [(t, _bare(target.split()[t])) for t in theirs])
  return sure, possible, kinds


def _bare(word) -> str:
  """Without punctuation at its ends: "3," and "3." are one word."""
  return word.strip(".,:;?!¿«»%").lower()


def _sure(source, target) -> set:
  """Of the numbered words of a value."""
  count = lambda words: collections.Counter(word for _, word in words)
  ours, theirs = count(source), count(target)
  same = {(t, s) for t, word in target for s, other in source if word == other and ours[word] == theirs[word] == 1}
  left = [[i for i, _ in words if i not in {link[side] for link in same}] for side, words in ((1, source), (0, target))]
  return same | ({(left[1][0], left[0][0])} if len(left[0]) == len(left[1]) == 1 else set())


class Score:
  """Counts of links, of several pairs."""

  def __init__(self):
    self.found = self.possible = self.sure = self.sure_found = 0

  def add(self, found, sure, possible):
    self.found += len(found)
    self.possible += len(found & possible)
    self.sure += len(sure)
    self.sure_found += len(found & sure)

  def result(self) -> dict:
    return {
      "words": self.found,
      "sure links": self.sure,
      "accuracy": self.possible / self.found if self.found else None,
      "sure": self.sure_found / self.sure if self.sure else None,
      "error rate": 1 - (self.sure_found + self.possible) / (self.found + self.sure) if self.found else None,
    }


def measure(run, pairs) -> dict:
  """The figures of a run. pairs: of `phrasebook.aligned`. Raises UserError for a model without attention."""
  sources, targets, slots = zip(*pairs, strict=True)
  score, diagonal, by_kind, skipped = Score(), Score(), collections.defaultdict(Score), 0
  for source, target, known, (ours, theirs, weights_TS) in zip(
    sources, targets, slots, run.soft_align(sources, targets), strict=True
  ):
    S, T = len(source.split()), len(target.split())
    weights = of_words(weights_TS, theirs, ours)
    if weights.shape != (T + 1, S + 1):  # cut, or cut into other words by the vocabulary's normalisation
      skipped += 1
      continue
    sure, possible, kinds = links(source, target, known)
    look = weights[:T, :S].argmax(1)
    found = {(t, int(look[t])) for t in kinds}
    score.add(found, sure, possible)
    diagonal.add({(t, round(t * (S - 1) / max(T - 1, 1))) for t in kinds}, sure, possible)
    for kind in set(kinds.values()):
      mine = {t for t, name in kinds.items() if name == kind}
      by_kind[kind].add(*({link for link in part if link[0] in mine} for part in (found, sure, possible)))
  return {
    "pairs": len(sources) - skipped,
    "skipped": skipped,
    "all": score.result(),
    "diagonal": diagonal.result(),
    "by kind": {kind: by_kind[kind].result() for kind in sorted(by_kind)},
  }


def picture(run, source, target, title) -> tuple[bytes, dict]:
  """The heat map of a pair, words down and across, and what stands in it."""
  from attention_zoo.plots.attention import attention_png

  ((ours, theirs, weights_TS),) = run.soft_align([source], [target])
  weights = of_words(weights_TS, theirs, ours)
  unknown = sorted({piece.replace(BEGIN, "") for piece in (*ours, *theirs)} & {"<unk>", "⁇"})
  shown = {"source": words_of(ours), "target": words_of(theirs), "weights": weights.tolist(), "unknown": bool(unknown)}
  logprob = run.score([source], [target], alpha=0.0)[0].logprob
  cut = len(shown["source"]) <= len(source.split()) or len(shown["target"]) <= len(target.split())
  shown |= {"logprob": logprob, "pieces": len(theirs), "cut": cut}
  return attention_png(weights, shown["target"], shown["source"], title=title), shown


COLUMNS = ("words", "accuracy", "sure links", "sure", "error rate")


def table(results) -> str:
  """Markdown."""
  lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" + "|---:" * len(COLUMNS) + "|"]
  rows = {"all values": results["all"], "the diagonal": results["diagonal"]} | results["by kind"]
  for name, row in rows.items():
    cells = [f"{row[c]:,}" if isinstance(row[c], int) else "-" if row[c] is None else f"{row[c]:.1%}" for c in COLUMNS]
    lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
  return "\n".join(lines)


def page(results) -> str:
  """The whole Markdown file."""
  languages, pictures = " to ".join(results["languages"]), results["pictures"]
  nats = {name: -shown["logprob"] / shown["pieces"] for name, shown in pictures.items()}
  pairs = f'{results["pairs"]} pairs of the phrasebook\'s split "{results["split"]}"'
  if results["skipped"]:
    pairs += f", {results['skipped']} left out whose words the vocabulary cuts otherwise"
  lecture = "The French sentence is forced, and not what the run would say: it costs "
  lecture += f"{nats['lecture']:.2f} nats a piece."
  if pictures["lecture"]["unknown"]:
    lecture += " Characters that the vocabulary does not have are unknown pieces."
  if pictures["lecture"]["cut"]:
    lecture += " It is cut where the model has no more room."
  lecture += "\nA run on the phrasebook knows few of these words."
  if results["languages"] != ["en", "fr"]:
    lecture += f" This one translates {languages}: it never saw the pair's languages together,\nand the picture shows"
    lecture += " nothing but where its attention goes when these words are forced on it."
  return f"""# Alignment of {results["model"]}, {languages}

Checkpoint {results["checkpoint"]} (step {results["step"]}), {pairs}.
Command: `{results["environment"]["command"]}`

{table(results)}

What the columns are: `benchmarks/alignment.py`. A look at a neighbouring word is an error by these counts; what an
encoder holds there may hold the word, too.

## A date

![date](date.png)

The reference is forced; it costs {nats["date"]:.2f} nats a piece.

## The lectures' sentence (Bahdanau et al. 2015, fig. 3)

![lecture](lecture.png)

{lecture}
"""


def with_a_date(pairs):
  """The first pair with a whole date and not too many words to draw."""
  for source, target, slots in pairs:
    if any(slot.kind == "date" for slot in slots) and max(len(source.split()), len(target.split())) <= MOST:
      return source, target
  raise UserError("no sentence of this split has a date: raise --pairs")


def main(argv=None):
  options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  options.add_argument("--run", type=files.expand, required=True, help="work directory of a translation run")
  options.add_argument("--out", type=files.expand, required=True, help="directory of tables and pictures")
  options.add_argument("--checkpoint", help="average, latest or a step; as `evaluate` takes it")
  options.add_argument("--split", default="test", choices=("train", "dev", "test"), help="of the phrasebook")
  options.add_argument("--pairs", type=int, default=1000, help="how many of them")
  arguments = options.parse_args(argv)
  if arguments.pairs < 1:
    options.error(f"--pairs must be at least 1, not {arguments.pairs}")
  try:
    results = write(arguments)
  except UserError as error:
    options.error(str(error))
  print(table(results))
  print(f"written: {arguments.out}")


def write(arguments) -> dict:
  """Everything, into arguments.out."""
  from attention_zoo import api
  from attention_zoo.data import phrasebook

  run = api.load(arguments.run, arguments.checkpoint)
  if not hasattr(run, "soft_align"):
    raise UserError(f"{arguments.run} is no translation run (config.task = {run.config.task!r}): it aligns nothing")
  languages = tuple(run.config.data.languages)
  phrasebook.Phrasebook(languages)  # says what it does not speak
  with run.config.unlocked():  # in a vocabulary of other words, sentences are more pieces than those trained on
    run.config.data.max_length = max(run.config.data.max_length, min(LONGEST, run.task.longest or LONGEST))
  if not run.attends:
    raise UserError(f"config.model.name = {run.config.model.name!r} has no attention to its source to align by")
  pairs = list(phrasebook.aligned(*languages, arguments.split))[: arguments.pairs]
  environment = common.environment()
  results = {
    "model": run.config.model.name,
    "languages": list(languages),
    "checkpoint": run.checkpoint,
    "step": run.step,
    "split": arguments.split,
    **measure(run, pairs),
    "pictures": {},
    "environment": environment,
  }
  title = f"{results['model']}, {'-'.join(languages)}"
  for name, pair in (("date", with_a_date(pairs)), ("lecture", LECTURE)):
    image, results["pictures"][name] = picture(run, *pair, title=title)
    files.write_bytes(pathlib.Path(arguments.out) / f"{name}.png", image)
  files.write_text(arguments.out / "alignment.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
  files.write_text(arguments.out / "alignment.md", page(results))
  return results


if __name__ == "__main__":
  main()
