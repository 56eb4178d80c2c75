"""Music: language modelling on the events of performances and chorales (`data/events.py`), in other keys and speeds.

What a model for it has is what `tasks/language_modeling.py` asks for; `tasks/musician.py` holds what a user does with
trained parameters.
"""

import functools

from attention_zoo import grammar
from attention_zoo.data import events
from attention_zoo.data.augment import Augmented
from attention_zoo.data.music import make_scores
from attention_zoo.errors import UserError
from attention_zoo.protocols import Examples
from attention_zoo.tasks.language_modeling import LanguageModeling
from attention_zoo.tasks.musician import Musician
from attention_zoo.training.config import NATURAL, Field

_OF_TEXT = ("normalization", "split_digits")  # fields
_SHOWN = 256  # events of a sample while a model is trained


class Music(LanguageModeling):
  """The task as the loop sees it, made from a config and a work directory."""

  unit = "events"
  inherits = False  # nothing is learnt: config.data.tokenizer says all
  FIELDS = LanguageModeling.FIELDS | {
    "data": {
      **{name: field for name, field in LanguageModeling.FIELDS["data"].items() if name not in _OF_TEXT},
      "tokenizer": Field(str, choices=tuple(events.VOCABULARIES)),
      "transpose": NATURAL,  # semitones
      "stretch": Field(float, low=0.0, high=0.5),  # 0.05: times 0.95 to 1.05
    }
  }

  def __init__(self, config, workdir):
    super().__init__(config, workdir)
    data = config.data
    if data.stretch and (data.tokenizer == "chorales" or data.batching == "contiguous"):
      why = "chorales have a fixed grid" if data.tokenizer == "chorales" else "contiguous rows have a fixed length"
      raise UserError(f"config.data.stretch = {data.stretch}, but {why}: set it to 0.0")
    if data.transpose and grammar.parse(data.source)[1].get("drums"):
      raise UserError(f"config.data.transpose = {data.transpose}, but drums have no pitch: set it to 0")
    name, options = grammar.parse(data.source)
    quarter = events.VOCABULARIES[data.tokenizer].quarter
    if name == "midi" and quarter and options.get("quarter") != quarter:
      raise UserError(
        f"config.data.source = {data.source!r}: chorales are written in sixteenths of a quarter note of {quarter} s; "
        f"write midi(quarter={quarter})"
      )
    if getattr(self.model_config, "pitch_and_time", False):
      if data.tokenizer != "chorales" or data.batching != "packed" or data.row_length % self.model_config.voices:
        raise UserError(
          "config.model.pitch_and_time is for chorales in rows that begin with a soprano: config.data.tokenizer="
          f'"chorales", batching="packed" and a row_length that is a multiple of {self.model_config.voices}'
        )

  @functools.cached_property
  def source(self):
    return make_scores(self.config.data, self.text_directory)

  def _learn(self, tokenizer, vocab_size) -> bytes:
    return events.learn(tokenizer, vocab_size=vocab_size)

  @functools.cached_property
  def batches(self):
    """Those of language modelling, transposed and stretched."""
    data = self.config.data
    options = {"transpose": data.transpose, "stretch": data.stretch, "seed": data.seed}
    return Augmented(super().batches, self.tokenizer, **options)

  def dev_samples(self, params, variables, count) -> Examples:
    """Piano rolls, and the events, of samples of nothing but the beginning."""
    with self.lent(params, variables) as run:
      drawn = run.sample(num_samples=count, max_tokens=min(self.config.decode.max_tokens, _SHOWN))
    figures = {f"sample_{i}": sample.roll() for i, sample in enumerate(drawn)}
    return Examples([{"sample": sample.text} for sample in drawn], figures)

  def runner(self, params, variables, *, checkpoint, step) -> Musician:
    return Musician(self, params, variables, checkpoint=checkpoint, step=step)
