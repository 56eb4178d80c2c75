"""Attentions by name: what a layer must know of one to carry its parameters and to decode with it.

A file of this room that has self-attentions for models ends in a function for each, of the sizes and its own options,
and lists them in VARIANTS. A config names them: decoder_attention="shaw(max_distance=16)".
"""

import ast
import dataclasses
import difflib
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import NamedTuple

from attention_zoo import ops
from attention_zoo.ops import masks


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The layer a variant is for. causal: it must not see the future. max_length: of what is indexed by position."""

  d_model: int
  num_heads: int
  d_k: int
  d_v: int
  max_length: int
  causal: bool


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
    masks. With `weights` it takes return_weights=True too and then returns (out_BTNH, weights_BNTS).
  step: (p, q_B1NK, k_BSNK, v_BSNH, index) -> out_B1NH, one position of a causal one; the cache is written up to index.
    None only for dot-product attention, of which decoding knows a faster way.
  parameters: name -> Parameter.
  weights: whether the weights can be asked for.
  packs: whether several segments in one row give what they give in rows of their own.
  query_depth, output_depth: of the heads' queries and outputs where they are not d_k and d_v.
  """

  attend: Callable
  step: Callable | None = None
  parameters: dict[str, Parameter] = dataclasses.field(default_factory=dict)
  weights: bool = False
  packs: bool = True
  query_depth: int | None = None
  output_depth: int | None = None


def masked(function, **parameters):
  """The Variant of a function (q, k, v, *parameters, mask=.., dropout=.., return_weights=..) that asks for no order."""

  def attend(p, q_BTNK, k_BTNK, v_BTNH, *, mask, segments_BT=None, **options):
    return function(q_BTNK, k_BTNK, v_BTNH, *p.values(), mask=mask, **options)

  def step(p, q_B1NK, k_BSNK, v_BSNH, index):
    return function(q_B1NK, k_BSNK, v_BSNH, *p.values(), mask=masks.step(k_BSNK.shape[1], index))

  return Variant(attend, step, parameters, weights=True)


def parse(text: str) -> tuple[str, dict]:
  """("name", options) of "name" or "name(option=value, ...)"; values are literals. Raises ValueError."""
  try:
    tree = ast.parse(text, mode="eval").body
    call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
    if call.args or not isinstance(call.func, ast.Name):
      raise ValueError
    return call.func.id, {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
  except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
    raise ValueError(f'{text[:200]!r} is not of the form "name" or "name(option=value, ...)"') from error


@functools.cache
def names() -> dict[str, Callable]:
  """Every variant of this room: name -> function of (sizes, options)."""
  modules = (importlib.import_module(f"{ops.__name__}.{file.name}") for file in pkgutil.iter_modules(ops.__path__))
  return {function.__name__: function for module in modules for function in getattr(module, "VARIANTS", ())}


def make(text: str, sizes: Sizes) -> Variant:
  """The Variant that a config's text names. Raises ValueError for an unknown name or option, or a bad value."""
  name, options = parse(text)
  if name not in names():
    near = difflib.get_close_matches(name, names(), 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"there is no attention {name!r}{hint}; there are {', '.join(sorted(names()))}")
  function = names()[name]
  known = [*inspect.signature(function).parameters][1:]
  for option in options:
    if option not in known:
      raise ValueError(f"{name} has no option {option!r}; it has {', '.join(known) or 'none'}")
  try:
    return function(sizes, **options)
  except TypeError as error:
    raise ValueError(f"{text}: {error}") from error
