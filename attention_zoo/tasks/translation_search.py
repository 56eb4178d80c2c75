"""Search with an encoder-decoder: how beam search, and the stochastic one, see the model of a translation run."""

import functools
from typing import NamedTuple

import jax.numpy as jnp

from attention_zoo import grammar
from attention_zoo.data.tokenizer import BOS, EOS, PAD
from attention_zoo.decoding import score
from attention_zoo.decoding.beam import beam_search, gather_beams
from attention_zoo.decoding.stochastic_beam import keys_of, stochastic_beam_search
from attention_zoo.errors import UserError


class Segments(NamedTuple):
  """The sizes of `stochastic_beam_search`."""

  samples: int
  segment_length: int


def beam() -> tuple[None, tuple[float, int]]:
  """Beam search, which draws nothing."""
  return None, (1.0, 0)


def stochastic_beam(
  samples: int = 4, segment_length: int = 10, temperature: float = 1.0, seed: int = 0
) -> tuple[Segments, tuple[float, int]]:
  """`decoding/stochastic_beam.py`: its sizes, and what it draws with. Raises ValueError for an option out of range."""
  if not (1 <= samples <= 128 and segment_length >= 1 and temperature >= 0 and 0 <= seed < 2**31):
    raise ValueError(
      "stochastic_beam wants samples from 1 to 128, segment_length from 1, temperature from 0 and seed from 0 to "
      f"2^31 - 1, got {samples}, {segment_length}, {temperature} and {seed}"
    )
  return Segments(samples, segment_length), (temperature, seed)


SEARCHES = {function.__name__: function for function in (beam, stochastic_beam)}


def search_of(decode) -> tuple[Segments | None, tuple[float, int]]:
  """(`segments`, `drawn`) of `search` for config.decode.search. Raises UserError for a text that names no search."""
  try:
    function, options = grammar.bind(decode.search, SEARCHES, "search", num_given=0)
    return function(**options)
  except ValueError as error:
    raise UserError(f"config.decode.search: {error}") from error


def search(
  task, params, source_BS, lengths_B, alpha, constraints, drawn=(1.0, 0), *, beam_size, n_best, coverage_penalty=0.0,
  segments=None,
):  # fmt: skip
  """`beam_search` of a batch: source_BS ids with EOS and padding, lengths_B how many; returns a BeamResult.

  constraints: what the translations must hold, see `decoding/constraints.py`. coverage_penalty: beta of
  `decoding/score.py`; raises UserError where it is above 0 and the model does not say what it attends to.
  segments: `Segments` for `stochastic_beam_search`, which knows no constraints; drawn: its (temperature, seed).
  """
  B, S = source_BS.shape
  extra = task.config.decode.extra_length
  positions_BS = jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32), (B, S))
  segments_BS = (positions_BS < lengths_B[:, None]).astype(jnp.int32)
  source = {"source": source_BS, "source_segments": segments_BS, "source_positions": positions_BS}
  decoding = task.decoding(params, source, num_beams=beam_size * (segments.samples if segments else 1))
  coverage = None
  if coverage_penalty:
    check_coverage(task, decoding)
    coverage = lambda cache: score.coverage_penalty(decoding.coverage(cache), coverage_penalty)

  def step(tokens_BJ, t, cache):
    logits_BJTV, cache = decoding.step(tokens_BJ[:, :, None], t, cache)
    return logits_BJTV[:, :, 0], cache

  if segments:
    find = functools.partial(
      stochastic_beam_search, temperature=drawn[0], keys_B=keys_of(drawn[1], source_BS), **segments._asdict()
    )
  else:
    find = functools.partial(beam_search, constraints=constraints)
  return find(
    step,
    decoding.cache,
    batch_size=B,
    beam_size=beam_size,
    max_lengths_B=jnp.where(lengths_B > 0, lengths_B + extra, 0),
    max_length=S + extra if decoding.max_length is None else min(S + extra, decoding.max_length),
    bos=BOS,
    eos=EOS,
    pad=PAD,
    alpha=alpha,
    n_best=n_best,
    reorder=decoding.reorder or gather_beams,
    grow=decoding.grow,
    coverage=coverage,
  )


def check_coverage(task, decoding) -> None:
  """Raises UserError where a coverage penalty is asked for and the model does not say what it attends to."""
  if decoding.coverage is None:
    raise UserError(
      f"config.decode.coverage_penalty = {task.config.decode.coverage_penalty} needs to know what each step attends "
      f"to, which config.model.name = {task.config.model.name!r} does not say: set it to 0"
    )
