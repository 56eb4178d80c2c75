"""A trained translation run: translate, score, look at attention, evaluate."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable

import jax
import numpy as np

from attention_zoo.data.tokenizer import EOS, UNK
from attention_zoo.errors import UserError
from attention_zoo.protocols import Evaluation
from attention_zoo.tasks import arguments, programs, translation_scores
from attention_zoo.tasks.forced import Forced
from attention_zoo.tasks.rows import Rows, check_finite
from attention_zoo.tasks.run import Run
from attention_zoo.tasks.teacher_forcing import (
  Attention,
  alignment,
  attends,
  forced_scores,
  forced_weights,
  read_attention,
  soft_alignment,
)
from attention_zoo.tasks.translation_search import search, search_of
from attention_zoo.tasks.unknown_words import UnknownWords

logger = logging.getLogger(__name__)

Report = Callable[[int, int], None]  # (sentences done since the last call, all sentences)


@dataclasses.dataclass(frozen=True)
class Hypothesis:
  """One translation. score: log-probability over length penalty, plus config.decode.coverage_penalty's part; logprob:
  in nats; ids end with EOS if complete.

  missing: words that it was to hold and that found no room in it. With config.decode.replace_unknown the text has words
  of the source, or of the dictionary, where the ids have <unk>.
  """

  text: str
  score: float
  logprob: float
  ids: list[int]
  missing: tuple[str, ...] = ()


class Translator(Run):
  """What `attention_zoo.load` returns for a translation run. Work is spread over all devices of this process.

  Every verb takes any iterable of strings, and raises UserError for an argument that it cannot use.
  """

  def __init__(self, task, params, variables, *, checkpoint, step):
    super().__init__(task, params, variables, checkpoint=checkpoint, step=step)
    self._rows = Rows(self.config.decode, longest=task.longest)
    static = "beam_size", "n_best", "coverage_penalty", "segments"
    self._search = jax.jit(functools.partial(search, task), static_argnames=static)
    self._forced = jax.jit(functools.partial(forced_scores, task))
    self._weights = jax.jit(functools.partial(forced_weights, task))
    self._aligned = jax.jit(functools.partial(alignment, task), static_argnames="words")
    self._soft_aligned = jax.jit(functools.partial(soft_alignment, task))

  def _what(self):
    return f"{type(self).__name__} {' -> '.join(self.config.data.languages)}: {self.config.model.name}"

  # Translating

  def translate(
    self,
    sentences: Iterable[str],
    *,
    beam_size: int | None = None,
    alpha: float | None = None,
    prefixes: Iterable[str] | None = None,
    force_words: Iterable[Iterable[str]] | None = None,
    report: Report | None = None,
  ) -> list[str]:
    """The best translation of each sentence; an empty one stays empty. Options: see `hypotheses`."""
    options = {"beam_size": beam_size, "alpha": alpha, "prefixes": prefixes, "force_words": force_words}
    found = self.hypotheses(sentences, **options, report=report)
    return [hypotheses[0].text for hypotheses in found]

  def hypotheses(
    self,
    sentences: Iterable[str],
    *,
    beam_size: int | None = None,
    alpha: float | None = None,
    n_best: int = 1,
    prefixes: Iterable[str] | None = None,
    force_words: Iterable[Iterable[str]] | None = None,
    report: Report | None = None,
  ) -> list[list[Hypothesis]]:
    """The n_best translations of each sentence, best first.

    sentences: one longer than config.data.max_length pieces is cut there, which is logged as a warning.
    beam_size, alpha: the config's when None. report: called with the number of sentences just done and of all.
    prefixes: a text a sentence, "" for none, with which each of its translations begins. What is forced is the prefix's
    own pieces, as it is cut without what follows: a prefix that ends within a word can be completed otherwise than that
    word is usually cut. Scores count the probabilities of its pieces.
    force_words: a list of words or phrases a sentence that stand in each of its translations, each as the pieces that
    it is cut into by itself, which begin with a space. A beam wider than their pieces finds good ones. Where a
    translation could not be finished with them within its limit (source pieces + config.decode.extra_length), `missing`
    names those that it lacks and a warning is logged.
    The search is config.decode.search; "stochastic_beam" takes neither of the two.
    """
    decode = self.config.decode
    options, (segments, drawn) = arguments.search(decode, beam_size, alpha, n_best), search_of(decode)
    if segments and (prefixes is not None or force_words is not None):
      raise UserError('config.decode.search = "stochastic_beam" takes no prefixes and no force_words: set it to "beam"')
    sentences = arguments.sentences(sentences)
    found = [[Hypothesis("", 0.0, 0.0, [])] for _ in sentences]
    # First: what it may have to complain of would cost the translations.
    unknown = UnknownWords(self.task, self.attends) if decode.replace_unknown else None
    sources = self._encode(sentences, "sentences")
    forced = Forced(self.task, sources, prefixes, force_words)
    full = [i for i, source in enumerate(sources) if len(source) > 1]
    report = report or (lambda done, total: None)
    report(len(sentences) - len(full), len(sentences))
    beams = options.beam_size * (segments.samples if segments else 1)
    for indices, source in self._rows.batches([sources[i] for i in full], beam_size=beams):
      constraints = forced.constraints([full[i] for i in indices], rows=len(source[0]))
      with self._rows.enough_memory("decode"):
        result = jax.device_get(
          self._search(
            self.params, *source, options.alpha, self._rows.spread(constraints), drawn,
            beam_size=options.beam_size, n_best=options.n_best, coverage_penalty=decode.coverage_penalty,
            segments=segments,
          )
        )  # fmt: skip
      check_finite(result.scores_BJ[: len(indices)])
      for b, i in enumerate(indices):
        found[full[i]] = [
          self._hypothesis(result, b, j, functools.partial(forced.missing, full[i]))
          for j in range(options.n_best)
          if result.lengths_BJ[b, j]
        ]
      report(len(indices), len(sentences))
    if lacking := [(i, hypotheses[0].missing) for i, hypotheses in enumerate(found) if hypotheses[0].missing]:
      numbers = ", ".join(f"number {i + 1} ({', '.join(words)})" for i, words in lacking[:5]) + (
        ", ..." if lacking[5:] else ""
      )
      logger.warning(
        "%d of %d translations have no room for their force_words: %s", len(lacking), len(sentences), numbers
      )
    return self._without_unknown(unknown, sentences, found) if unknown else found

  def _without_unknown(self, unknown, sentences, found):
    """The same hypotheses with other words in the place of unknown ones."""
    places = [(i, j) for i, hypotheses in enumerate(found) for j, h in enumerate(hypotheses) if UNK in h.ids]
    aligned = self.align([sentences[i] for i, _ in places], [found[i][j] for i, j in places], words=True)
    for (i, j), positions in zip(places, aligned, strict=True):
      text = unknown.text(sentences[i], found[i][j].ids, positions)
      found[i][j] = dataclasses.replace(found[i][j], text=text)
    return found

  def too_long(self, sentences: Iterable[str]) -> list[int]:
    """The indices of sentences that `translate` will cut."""
    return self._too_long(arguments.sentences(sentences), self.task.tokenizer)

  def _too_long(self, sentences, tokenizer):
    limit = self.config.data.max_length - 1
    return [i for i, ids in enumerate(_pieces(tokenizer, sentences)) if len(ids) > limit]

  def encode(self, sentences: Iterable[str]) -> list[list[int]]:
    """Ids with EOS, cut to config.data.max_length. A sentence of nothing but spaces has EOS alone."""
    limit = self.config.data.max_length - 1
    return [ids[:limit] + [EOS] for ids in _pieces(self.task.tokenizer, arguments.sentences(sentences))]

  def _encode(self, sentences, name, refuse=False):
    """`encode` that says what it cuts; with refuse=True it raises UserError instead. name: "sources", "targets", .."""
    limit = self.config.data.max_length
    tokenizer = self.task.tokenizer
    pieces = _pieces(tokenizer.target if name.startswith("target") else tokenizer, sentences)
    if long := [i for i, ids in enumerate(pieces) if len(ids) >= limit]:
      numbers = ", ".join(f"number {i + 1} ({len(pieces[i])} pieces)" for i in long[:5]) + (", ..." if long[5:] else "")
      what = f"{len(long)} of {len(sentences)} {name} are longer than config.data.max_length = {limit} pieces with </s>"
      if refuse:
        raise UserError(f"{what}: {numbers}; shorten or leave them out (config.data.too_long is 'skip')")
      logger.warning("%s and cut there: %s", what, numbers)
    return [ids[: limit - 1] + [EOS] for ids in pieces]

  def _text(self, ids):
    return self.task.tokenizer.target.decode([[i for i in ids if i != EOS]])[0]

  def _hypothesis(self, result, b, j, missing):
    ids = [int(i) for i in result.tokens_BJT[b, j, : result.lengths_BJ[b, j]]]
    score, logprob = float(result.scores_BJ[b, j]), float(result.logprobs_BJ[b, j])
    return Hypothesis(self._text(ids), score, logprob, ids, missing(ids))

  # Scoring and looking

  def score(
    self, sources: Iterable[str], targets: Iterable[str], *, alpha: float | None = None
  ) -> list[Hypothesis]:
    """Log-probability and length-penalised score that the model gives to each target (force-decoding), without
    coverage penalty.

    What is longer than config.data.max_length pieces is cut there, which is logged as a warning,
    and `text` is what was scored; with config.data.too_long="skip" it is a UserError.
    """
    alpha = arguments.penalty(self.config.decode, alpha)
    sources, targets = arguments.sentences(sources, "sources"), arguments.sentences(targets, "targets")
    if len(sources) != len(targets):
      raise UserError(f"score needs as many targets as sources, got {len(targets)} and {len(sources)}")
    refuse = self.config.data.too_long == "skip"
    source_ids, target_ids = self._encode(sources, "sources", refuse), self._encode(targets, "targets", refuse)
    scored: list = [None] * len(sources)
    for indices, source, target in self._rows.batches(source_ids, target_ids):
      with self._rows.enough_memory("score"):
        scores_B, logprobs_B = jax.device_get(self._forced(self.params, *source, *target, alpha))
      check_finite(scores_B[: len(indices)])
      for b, i in enumerate(indices):
        scored[i] = Hypothesis(targets[i], float(scores_B[b]), float(logprobs_B[b]), target_ids[i])
    for i in self._too_long(targets, self.task.tokenizer.target):
      scored[i] = dataclasses.replace(scored[i], text=self._text(target_ids[i]))
    return scored

  def attention(self, source: str, target: str | None = None) -> Attention:
    """Every attention weight of one sentence pair; without a target, of the sentence and its own translation.

    The weights are read out of the very forward pass that gave the returned log-probability. What is returned has
    `show()` and `page("out.html")`, and shows itself in a notebook.
    """
    source = arguments.sentence(source, "source")
    (source_ids,) = self._encode([source], "sources")
    if target is None:
      target_ids = self.hypotheses([source])[0][0].ids or [EOS]
    else:
      target_ids = self._encode([arguments.sentence(target, "target")], "targets")[0]
    found = read_attention(self.task, self.params, source_ids, target_ids, self._weights)
    check_finite(found.logprob)
    return found

  @functools.cached_property
  def attends(self) -> bool:
    """Whether the model has an attention to its source that can be shown."""
    return attends(self.task)

  def align(
    self, sources: Iterable[str], hypotheses: Iterable[Hypothesis], *, words: bool = False
  ) -> list[list[int]]:
    """For each token (`ids`) of a hypothesis, the position among the pieces of its source that it looked at most.

    hypotheses: as many as sources. words: the position is never that of the source's </s>.
    See `teacher_forcing.alignment` for the heads that are asked.
    A hypothesis without tokens, such as that of an empty sentence, has none. Raises UserError where the model has no
    attention to its source (`attends`).
    """
    sources, hypotheses = arguments.sentences(sources, "sources"), list(hypotheses)
    if len(sources) != len(hypotheses):
      raise UserError(f"align needs as many hypotheses as sources, got {len(hypotheses)} and {len(sources)}")
    found: list = [[] for _ in sources]
    full = [i for i, hypothesis in enumerate(hypotheses) if hypothesis.ids]
    pairs = self.encode(sources[i] for i in full), [hypotheses[i].ids for i in full]
    read = functools.partial(self._aligned, words=words)
    for i, (_, target_ids, positions_T) in zip(full, self._attended(read, *pairs), strict=True):
      found[i] = positions_T[: len(target_ids)].tolist()
    return found

  def soft_align(self, sources: Iterable[str], targets: Iterable[str]) -> list[tuple[list[str], list[str], np.ndarray]]:
    """Of each pair its pieces, with </s>, and how much each of the target looked at each of the source (rows sum to 1).

    The targets are given, not translations (force-decoding); sentences of more than config.data.max_length pieces are
    cut. See `teacher_forcing.soft_alignment` for the heads that are asked. Raises UserError as `align` does.
    """
    sources, targets = arguments.sentences(sources, "sources"), arguments.sentences(targets, "targets")
    if len(sources) != len(targets):
      raise UserError(f"soft_align needs as many targets as sources, got {len(targets)} and {len(sources)}")
    pieces = self.task.tokenizer.pieces
    return [
      (pieces(source_ids), pieces(target_ids), weights_TS[: len(target_ids), : len(source_ids)])
      for source_ids, target_ids, weights_TS in self._attended(
        self._soft_aligned, self._encode(sources, "sources"), self._encode(targets, "targets")
      )
    ]

  def _attended(self, read, source_ids, target_ids) -> list:
    """(ids of the source, of the target, its row of what `read` finds in a batch) for each pair."""
    if not self.attends:
      raise UserError(f"config.model.name = {self.config.model.name!r} has no attention to its source to align by")
    found: list = [None] * len(source_ids)
    for indices, source, target in self._rows.batches(source_ids, target_ids):
      with self._rows.enough_memory("align"):
        rows = jax.device_get(read(self.params, *source, *target))
      for b, i in enumerate(indices):
        found[i] = source_ids[i], target_ids[i], rows[b]
    return found

  def programs(self) -> programs.Programs:
    """What the model computes, for export."""
    return programs.translation(self.task)

  # Evaluating

  def perplexity(self, split: str) -> dict[str, float]:
    """Perplexities of a split: see `translation_scores.perplexities`."""
    _, references = translation_scores.read_pairs(self.task, arguments.split_name(split))
    return self._perplexities(split, references)

  def _perplexities(self, split, references):
    return translation_scores.perplexities(
      self.task, self._evaluate(self.params, self.variables, split), split, references
    )

  def evaluate(
    self,
    split: str,
    *,
    beam_size: int | None = None,
    alpha: float | None = None,
    report: Report | None = None,
  ) -> Evaluation:
    """Perplexities, the three BLEUs and chrF of a split, with the translations they were computed from."""
    options = arguments.search(self.config.decode, beam_size, alpha)
    sources, references = translation_scores.read_pairs(self.task, arguments.split_name(split))
    # First: what it may have to complain of would cost the translations.
    perplexities = self._perplexities(split, references)
    hypotheses = self.translate(sources, beam_size=options.beam_size, alpha=options.alpha, report=report)
    record = {
      "perplexity": perplexities,
      **translation_scores.scores(self.config, hypotheses, references),
      "sources": sources,
      "hypotheses": hypotheses,
      "references": references,
    }
    return translation_scores.evaluation(record)

  def page(self, evaluation: Evaluation, command: str = "") -> str:
    """The HTML page about the run."""
    from attention_zoo.tasks.report import translation_report

    return translation_report(self, evaluation, command=command)


def _pieces(tokenizer, sentences):
  return tokenizer.encode([s if s.strip() else "" for s in sentences])
