"""Attentions by name: what a layer must know of one to carry its parameters and to decode with it.

A file of this room that has self-attentions for models ends in a function for each, of the sizes and its own options,
and lists them in VARIANTS. A config names them: decoder_attention="shaw(max_distance=16)".
"""

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import NamedTuple

from attention_zoo import grammar, ops


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The layer a variant is for. causal: it must not see the future. max_length: of what has a row for each position."""

  d_model: int
  num_heads: int
  d_k: int
  d_v: int
  max_length: int | None = None
  causal: bool = False


class Parameter(NamedTuple):
  """What it is at the start: drawn from a normal distribution."""

  shape: tuple[int, ...]
  deviation: float
  mean: float = 0.0


@dataclasses.dataclass(frozen=True)
class Variant:
  """A self-attention with its options bound.

  attend: (p, q_BTNK, k_BTNK, v_BTNH, *, mask, segments_BT, dropout) -> out_BTNH, with p the parameters by name, mask
    (broadcasts to BNTS) the segments and, if causal, the past, and segments_BT the same for what does not look at
    masks, or only at times. With `weights` it takes return_weights=True too and then returns (out_BTNH, weights_BNTS).
  parameters: name -> Parameter. A name ends in its dimensions, by which it is placed on devices.
  A model may have marks, what it says of each position: any pytree of ints [B, T]. `attend` takes them as marks=, and
    `step` those of its new positions, [B, J, T]. Only an attention that is made for them does.
  weights: whether the weights can be asked for.
  packs: whether several segments in one row give what they give in rows of their own.
  max_length: the most positions that it can compute; None: any number.
  query_depth, output_depth: of the heads' queries and outputs where they are not d_k and d_v.
  name: as a config has it.

  Cached decoding, of a causal one; None where there is none (`cache.start` says so):
  init_cache: (batch, beams, length, dtype) -> cache with room for `length` positions, any pytree.
    A longer one begins with the shorter one in every dimension.
  step: (p, q_BJTNK, k_BJTNK, v_BJTNH, t, cache, ancestry_BJZ) -> (out_BJTNH, cache), the positions t .. t + T - 1 (t
    may be traced) of J hypotheses. ancestry_BJZ: see `cache`; these positions are in it already.
  reorder: (cache, parents_BJ) -> cache, hypothesis j goes on from parents_BJ[:, j];
    None where `ancestry_BJZ` tells `step` all.
  """

  attend: Callable
  init_cache: Callable | None = None
  step: Callable | None = None
  reorder: Callable | None = None
  parameters: dict[str, Parameter] = dataclasses.field(default_factory=dict)
  weights: bool = False
  packs: bool = True
  max_length: int | None = None
  query_depth: int | None = None
  output_depth: int | None = None
  name: str = ""


@functools.cache
def by_name() -> dict[str, Callable]:
  """The functions of all files' VARIANTS: name -> function of (sizes, options) that makes the Variant."""
  modules = (importlib.import_module(f"{ops.__name__}.{file.name}") for file in pkgutil.iter_modules(ops.__path__))
  return {function.__name__: function for module in modules for function in getattr(module, "VARIANTS", ())}


def make(text: str, sizes: Sizes, more=()) -> Variant:
  """The Variant that a config's text names. more: functions beside those of VARIANTS, which only some models take.
  Raises ValueError for an unknown name or option, or a bad value."""
  known = by_name() | {function.__name__: function for function in more}
  function, options = grammar.bind(text, known, "attention")
  try:
    variant = function(sizes, **options)
  except TypeError as error:
    raise ValueError(f"{text}: {error}") from error
  # What sees the future cannot decode, whatever its file says.
  decoding = {} if sizes.causal else {"init_cache": None, "step": None, "reorder": None}
  return dataclasses.replace(variant, name=text, **decoding)
