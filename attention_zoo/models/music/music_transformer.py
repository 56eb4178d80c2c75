"""Music Transformer: Huang et al. 2018 (arXiv:1809.04281), "Generating Music with Long-Term Structure".

A decoder-only Transformer whose attention knows how far apart two events are, at a cost of O(L D) memory by skewing
(`ops/relative.py`; `music_local(block_width=512)` in blocks). On chorales pitch_and_time=True adds how far apart they
are in pitch and in time (`ops/pitch_time.py`).

| what                    | the paper                        | here                                           |
|-------------------------|----------------------------------|------------------------------------------------|
| relative attention      | a vector a distance, skewed      | the same; past max_distance it is the last one |
| local attention         | blocks; own and previous one     | the same                                       |
| relative pitch and time | added to relative attention      | the same; a rest and the begin have no pitch   |
| absolute positions      | sinusoids, added or concatenated | none; or by positions= and position_mode=      |
| normalisation           | before each sub-layer            | the same; residual="post": after it            |
| output                  | a table of its own               | the embedding's table; tied=False: its own     |
| first values            | Tensor2Tensor's                  | tables N(0, 1/d_k), embeddings N(0, 1/d_model) |
"""

import dataclasses

import jax.numpy as jnp

from attention_zoo import grammar
from attention_zoo.models.language import transformer_lm
from attention_zoo.models.language.transformer_lm import BATCH, TransformerLM, output_table, parameter_count
from attention_zoo.ops.pitch_time import pitch_time
from attention_zoo.ops.variant import Sizes
from attention_zoo.protocols import Decoding

__all__ = ["BATCH", "Config", "Model", "decoding", "output_table", "parameter_count", "small"]


@dataclasses.dataclass(frozen=True)
class Config(transformer_lm.Config):
  """Six layers of 512, but for the vocabulary."""

  d_model: int = 512
  d_ff: int = 2048
  num_heads: int = 8
  attention_dropout: float = 0.0
  bias: bool = False
  activation: str = "relu"
  scale_embedding: bool = True
  positions: str = "none"
  num_layers: int = 6
  attention: str = "music(max_distance=1024)"
  pitch_and_time: bool = False  # of chorales: relative pitch and time besides music(max_distance=)
  voices: int = 4  # that take turns
  first_pitch_id: int = 5  # the token of pitch 0: `data/events.py`
  lowest_pitch: int = 30  # relative pitch is that of pitches from here
  highest_pitch: int = 90  # to here

  def variants(self, layers):
    if not self.pitch_and_time:
      return super().variants(layers)
    name, options = grammar.parse(self.attention)
    if name != "music" or set(options) != {"max_distance"}:
      raise ValueError(f"with pitch_and_time it must be music(max_distance=..), not {self.attention!r}")
    if self.lowest_pitch > self.highest_pitch:
      raise ValueError(f"lowest_pitch = {self.lowest_pitch} is above highest_pitch = {self.highest_pitch}")
    sizes = Sizes(self.d_model, self.num_heads, self.d_k, self.d_v, self.max_length, layers.causal)
    pitches = self.highest_pitch - self.lowest_pitch + 1
    return [pitch_time(sizes, **options, pitches=pitches, voices=self.voices)] * layers.number


def small() -> Config:
  """For tests: with relative pitch and time."""
  return Config(
    vocab_size=11, d_model=8, d_ff=14, num_heads=2, d_k=4, d_v=4, num_layers=2, dropout=0.0,
    attention="music(max_distance=3)", pitch_and_time=True, voices=2, first_pitch_id=1, lowest_pitch=1, highest_pitch=6,
  )  # fmt: skip


class MusicTransformer(TransformerLM):
  """Decoder-only. Tokens and segment ids are int32; segment 0 is padding; positions count within a segment."""

  config: Config

  def marks(self, tokens, positions):
    """(pitch, phase) of the token that is read at each position, which is the one before it: at position 0 the begin,
    at 1 the first voice."""
    c = self.config
    if not c.pitch_and_time:
      return None
    pitch = tokens - c.first_pitch_id
    has_pitch = (pitch >= c.lowest_pitch) & (pitch <= c.highest_pitch)
    return jnp.where(has_pitch, pitch - c.lowest_pitch, -1), -positions % c.voices


Model = MusicTransformer


def decoding(config: Config, params, inputs, *, num_beams) -> Decoding:
  """As `transformer_lm.decoding`."""
  return transformer_lm.decoding_of(MusicTransformer(config), params, inputs, num_beams=num_beams)
