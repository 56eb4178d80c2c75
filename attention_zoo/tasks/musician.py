"""A trained model of music: continue a motif, hear it, see it, score it.

Letters: T, S events of a piece.
"""

import dataclasses
import logging
import os
import re

import jax
import numpy as np

from attention_zoo import files, grammar
from attention_zoo.data import midi
from attention_zoo.data.characters import FIRST
from attention_zoo.data.events import SIXTEENTH, VOCABULARIES
from attention_zoo.errors import UserError
from attention_zoo.evaluation.perplexity import exp
from attention_zoo.plots import piano_roll, sound, theme
from attention_zoo.tasks import arguments
from attention_zoo.tasks.language_model import LanguageModel
from attention_zoo.tasks.report import task_report

logger = logging.getLogger(__name__)

_PLAYED = 2  # samples that a page plays


@dataclasses.dataclass(frozen=True)
class Continuation:
  """A motif and what follows it. prompt, events: both as texts of a vocabulary (`data/events.py`), kind: its name.

  logprobs: of the new events (`ids`), in nats. ended: at the end of a piece or after the seconds that were asked for,
  and not because max_tokens were drawn. seconds: where it ends, motif included.
  """

  kind: str
  prompt: str
  events: str
  ids: list[int]
  logprobs: list[float]
  ended: bool
  seconds: float

  @property
  def text(self) -> str:
    """The new events in words."""
    vocabulary = VOCABULARIES[self.kind]
    return ", ".join(vocabulary.pieces(vocabulary.encode([self.events])[0]))

  @property
  def begins(self) -> float:
    """The second at which the motif ends and its continuation begins."""
    return VOCABULARIES[self.kind].duration(self.prompt)

  @property
  def notes(self) -> np.ndarray:
    """[n, 4]: start, end, pitch, velocity of motif and continuation, see `data/midi.py`."""
    notes = VOCABULARIES[self.kind].to_notes(self.prompt + self.events)
    notes[:, 1] = np.minimum(notes[:, 1], np.maximum(self.seconds, notes[:, 0] + 0.05))
    return notes

  def midi(self) -> bytes:
    return midi.write(self.notes, quarter=VOCABULARIES[self.kind].quarter or 0.5)

  def wav(self) -> bytes:
    return sound.wav(self.notes, self.midi())

  def roll(self, title="") -> bytes:
    """A piano roll as a PNG file."""
    return piano_roll.png(piano_roll.roll_figure(self.notes, self.begins, title))

  def save(self, path: str | os.PathLike) -> list[str]:
    """Writes PATH.mid, .png and .wav, PATH without its ending .mid; returns their names."""
    stem = re.sub(r"\.midi?$", "", str(path))
    contents = {".mid": self.midi(), ".png": self.roll(os.path.basename(stem)), ".wav": self.wav()}
    for ending, content in contents.items():
      files.write_bytes(stem + ending, content)
    return [stem + ending for ending in contents]

  def _repr_html_(self):
    how = f"{self.seconds:.1f} s" + (f", the first {self.begins:.1f} s are the motif" if self.prompt else "")
    return theme.fragment(piano_roll.listening("Sample", self.notes, self.begins, self.wav(), how))


class Musician(LanguageModel):
  """What `attention_zoo.load` returns for a model of music."""

  SAMPLE_OPTIONS = ("prime", "seconds")  # of the command, beside those of every model

  def sample(self, prime=None, *, seconds: float | None = None, max_tokens=None, **options) -> list[Continuation]:
    """Continuations of a motif, or pieces of nothing.

    prime: a MIDI file (its path or its content), notes [n, 4] or a Continuation; silence before the first note is left
    out. A model of chorales takes a file by its quarter notes, whatever its tempo. seconds: how long what is added
    lasts at most. max_tokens: events that are added at most. options: those of `LanguageModel.sample`. Raises UserError
    as that does, and for a prime that is no music.
    """
    vocabulary, prompt = self.task.tokenizer, self.prime(prime)
    begins = vocabulary.duration(prompt)
    stop = ()
    if seconds is not None:
      seconds = arguments.real(seconds, "seconds", 0.1, 36_000)

      def stop(text):
        over = np.flatnonzero(vocabulary.times(prompt + text)[len(prompt) :] >= begins + seconds - 1e-9)
        return int(over[0]) if len(over) else None

      if max_tokens is None:
        max_tokens = int(np.ceil(seconds * vocabulary.per_second)) + 1
        if self.task.longest is not None:
          room = self.task.longest - len(self._prompt(prompt))
          max_tokens = max(min(max_tokens, room), 1)
    return [
      self._continuation(prompt, sample, None if seconds is None else begins + seconds)
      for sample in super().sample(prompt, max_tokens=max_tokens, stop=stop, **options)
    ]

  def _continuation(self, prompt, sample, until) -> Continuation:
    vocabulary = self.task.tokenizer
    last = vocabulary.duration(prompt + sample.text)
    sounding = vocabulary.to_notes(prompt + sample.text)
    end = max(last, sounding[:, 1].max(initial=0.0))
    seconds = end if until is None else min(end, until)
    # A model may draw special ids, which are no events.
    drawn = [pair for pair in zip(sample.ids, sample.logprobs, strict=True) if pair[0] >= FIRST][: len(sample.text)]
    ids, logprobs = [i for i, _ in drawn], [logprob for _, logprob in drawn]
    return Continuation(vocabulary.kind, prompt, sample.text, ids, logprobs, sample.ended, seconds)

  @property
  def _read_as(self) -> dict:
    """Options of `midi.read`: those that the run's own files were read with."""
    options = grammar.parse(self.config.data.source)[1]
    return {"quarter": self.task.tokenizer.quarter} | {k: options[k] for k in ("drums", "quarter") if k in options}

  def prime(self, prime) -> str:
    """A motif as the text of its events: see `sample`."""
    vocabulary = self.task.tokenizer
    if prime is None or (isinstance(prime, str) and not prime):
      return ""
    if isinstance(prime, Continuation):
      if prime.kind == vocabulary.kind:
        return prime.prompt + prime.events
      prime = prime.notes
    elif isinstance(prime, (str, os.PathLike)):
      prime = midi.read(files.read_bytes(prime, midi.MOST), prime, **self._read_as)
    elif isinstance(prime, (bytes, bytearray)):
      prime = midi.read(bytes(prime), "the prime", **self._read_as)
    try:
      notes = np.asarray(prime)
    except ValueError:  # rows of several lengths
      notes = np.zeros(())
    if notes.ndim != 2 or notes.shape[-1] != 4 or not np.issubdtype(notes.dtype, np.number):
      raise UserError("prime must be a MIDI file, its content, or notes [n, 4]: start, end, pitch, velocity")
    notes = notes.astype(np.float64)
    wrong = ~np.isfinite(notes).all() or (notes[:, 2] < 0).any() or (notes[:, 2] > 127).any()
    wrong |= (np.abs(notes[:, :2]) > 7200).any() or (notes[:, 2] % 1).any()
    if wrong or (notes[:, 1] <= notes[:, 0]).any():
      raise UserError("prime has notes that are none: their ends must be behind their starts, their pitches "
        "whole numbers of 0 to 127, their times below two hours")
    notes[:, :2] -= notes[:, 0].min(initial=np.inf) if len(notes) else 0
    if vocabulary.kind == "chorales" and (np.abs(off := notes[:, 0] / SIXTEENTH % 1 - 0.5) < 0.25).any():
      logger.warning(
        "%d of %d notes of the motif do not begin at a sixteenth (of %g s; of a file's quarter notes): they are moved "
        "to one", (np.abs(off) < 0.25).sum(), len(notes), SIXTEENTH,
      )  # fmt: skip
    text = vocabulary.from_notes(midi.separate(notes))
    if not text:
      raise UserError("the prime has no notes that the model's events can write")
    return text

  def save_samples(self, output, prime=None, **options) -> list[Continuation]:
    """Writes each sample as OUTPUT.mid, .png and .wav; the second and later ones as OUTPUT-2.mid and so on."""
    if not output:
      raise UserError("samples of music need --output=FILE.mid")
    stem = re.sub(r"\.midi?$", "", str(output))
    number = arguments.whole(options.get("num_samples", 1), "num_samples", 1, 10_000)
    stems = [stem if i == 1 else f"{stem}-{i}" for i in range(1, number + 1)]
    if isinstance(prime, (str, os.PathLike)) and prime:
      if os.path.realpath(prime) in (os.path.realpath(f"{stem}.mid") for stem in stems):
        raise UserError(f"--output={output} would overwrite the motif: give it another name")
    samples = self.sample(prime, **options)
    for stem, sample in zip(stems, samples, strict=True):
      sample.save(stem)
    return samples

  # Scoring and looking

  def score(self, primes):
    """`LanguageModel.score` of pieces, each as `sample` takes a prime."""
    return super().score([self.prime(piece) for piece in arguments.items(primes, "primes", "pieces", "[piece]")])

  def attention(self, prime):
    """`LanguageModel.attention` of a piece."""
    return super().attention(self.prime(prime))

  def arcs(self, prime, *, layer: int = -1, queries=None):
    """A matplotlib figure: what some events of a piece look at, as arcs over its piano roll, a colour a head.

    layer: counted from 0. queries: the numbers of these events, by default the last note that is struck and one in the
    middle. Raises UserError where the model has no attention weights.
    """
    vocabulary, text = self.task.tokenizer, self.prime(prime)
    weights = super().attention(text).weights
    if weights is None:
      raise UserError(f"{self.config.model.name} has no attention weights of all its layers in one array")
    if not -len(weights) <= layer < len(weights):
      raise UserError(f"layer must be from {-len(weights)} to {len(weights) - 1}, not {layer}")
    # Row t reads event t - 1.
    weights_NTS = weights[layer][:, 1:, 1:]
    pitches = vocabulary.pitches(text)
    struck = np.flatnonzero(pitches >= 0)
    if queries is not None:
      queries = [arguments.whole(t, "queries", 0, len(text) - 1) for t in queries]
    else:
      queries = sorted({int(struck[len(struck) // 2]), int(struck[-1])}) if len(struck) else []
    times, notes = vocabulary.times(text), vocabulary.to_notes(text)
    title = f"layer {layer % len(weights) + 1}: what the marked events look at"
    return piano_roll.arcs_figure(notes, times, pitches, weights_NTS, queries, title)

  # Evaluating

  def _perplexity(self, split, found):
    return {"nats_per_event": found["nll"], "perplexity_per_event": exp(found["nll"])}

  def page(self, evaluation, command: str = "") -> str:
    """The HTML page about the run, with samples to listen to."""
    samples = self.sample(num_samples=_PLAYED)
    played = "".join(piano_roll.listening(f"Sample {i}", s.notes, 0.0, s.wav()) for i, s in enumerate(samples, 1))
    more = [("music", "Music", played)]
    return task_report(self, self.config.model.name, evaluation, command=command, more=more)


def comparison(runs, prime, command="", **options) -> str:
  """A self-contained HTML page on which these runs continue the same motif. options: of `Musician.sample`."""
  rows, pieces = [], []
  for run in runs:
    if not isinstance(run, Musician):
      raise UserError(f"{run.task.workdir} is a run of the task {run.config.task!r}, which is no music")
    (found,) = run.sample(prime, **options)
    nats = -sum(found.logprobs) / max(len(found.logprobs), 1)
    size = sum(leaf.size for leaf in jax.tree.leaves(run.params))
    name, model = os.path.basename(str(run.task.workdir)), run.config.model.name
    rows.append([name, model, f"{size:,}", str(run.step), str(len(found.ids)), f"{nats:.3f}"])
    pieces.append((f"{name}: {model}", found.notes, found.begins, found.wav()))
  head = ["Run", "Model", "Parameters", "Step", "Events added", "Nats an event of them"]
  return piano_roll.comparison_page("One motif, continued", (head, rows), pieces, command)
