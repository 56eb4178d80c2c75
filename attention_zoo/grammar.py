"""The texts by which a config names a function and its options: "shaw(max_distance=16)",
"adam(b1=0.9, b2=0.98)", "cosine"."""

import ast
import difflib
import inspect
import math
from collections.abc import Callable, Mapping


def nearest(name, names) -> str:
  """' (did you mean X?)', or nothing where no name is near."""
  near = difflib.get_close_matches(str(name), list(names), n=1)
  return f" (did you mean {near[0]!r}?)" if near else ""


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


def split(text: str) -> list[str]:
  """["local(block_width=256)", "memory_compressed"] of "local(block_width=256), memory_compressed"."""
  try:
    tree = ast.parse(text.strip(), mode="eval").body
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return [text]  # `parse` says what is wrong with it.
  if not isinstance(tree, ast.Tuple) or not tree.elts:
    return [text]
  return [ast.get_source_segment(text.strip(), part) for part in tree.elts]


def bind(text: str, functions: Mapping[str, Callable], kind: str, num_given=1) -> tuple[Callable, dict]:
  """(function, options) that a text names. The options are keyword arguments of the function.

  functions: name -> function. kind: what they are, for the messages. num_given: how many of a function's first
  parameters are not options. Raises ValueError for an unknown name or option, a missing option, and a value that
  is not of its annotated type (an int may stand for a float; floats are finite).
  """
  name, options = parse(text)
  if name not in functions:
    raise ValueError(
      f"there is no {kind} {name!r}{nearest(name, functions)}; there are {', '.join(sorted(functions))}"
    )
  known = dict(list(inspect.signature(functions[name]).parameters.items())[num_given:])
  for option, value in options.items():
    if option not in known:
      raise ValueError(
        f"{name} has no option {option!r}{nearest(option, known)}; it has {', '.join(known) or 'none'}"
      )
    wanted = known[option].annotation
    good = type(value) is wanted or (wanted is float and type(value) is int)
    if wanted in (int, float, bool, str, tuple) and not good:
      raise ValueError(f"{name}({option}=..) must be {wanted.__name__}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
      raise ValueError(f"{name}({option}=..) must be finite, not {value!r}")
  for option, parameter in known.items():
    if parameter.default is inspect.Parameter.empty and option not in options:
      raise ValueError(f"{name} needs the option {option}: {name}({option}=..)")
  return functions[name], options
