"""Translations as lines of text: the best, the n best, or JSON with scores and alignments."""

import json


def best(found) -> list[str]:
  """found: what `Translator.hypotheses` returned. One line a sentence."""
  return [hypotheses[0].text for hypotheses in found]


def n_best(found) -> list[str]:
  """NUMBER ||| TRANSLATION ||| SCORE, the number counted from 0."""
  return [f"{i} ||| {h.text} ||| {h.score:.4f}" for i, hypotheses in enumerate(found) for h in hypotheses]


def json_lines(run, records, field, found) -> list[str]:
  """One object a sentence: the record that came in, with `source_tokens` and `translations`, best first.

  Each of those has text, score, logprob, tokens, and alignment: for each token the index of the source token that it
  looked at most (see `tasks/teacher_forcing.py`), null if the model has no attention to its source; `missing` only
  where it lacks words that were forced. records: dicts with the sentence under `field`.
  """
  sentences = [record[field] for record in records]
  pieces = run.task.tokenizer.pieces
  repeated = [sentence for sentence, hypotheses in zip(sentences, found, strict=True) for _ in hypotheses]
  flat = [h for hypotheses in found for h in hypotheses]
  alignments = iter(run.align(repeated, flat) if run.attends else [None] * len(flat))
  lines = []
  for record, source_ids, hypotheses in zip(records, run.encode(sentences), found, strict=True):
    translations = [
      {"text": h.text, "score": h.score, "logprob": h.logprob, "tokens": pieces(h.ids), "alignment": next(alignments)}
      | ({"missing": h.missing} if h.missing else {})
      for h in hypotheses
    ]
    line = record | {"source_tokens": pieces(source_ids), "translations": translations}
    lines.append(json.dumps(line, ensure_ascii=False))
  return lines
