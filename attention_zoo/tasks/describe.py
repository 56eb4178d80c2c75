"""What a model consists of: every parameter, every activation, and the operations of each part, without computing any.

The model is traced with shapes alone (jax.eval_shape and jax.make_jaxpr). Operations are those of matrix products and
convolutions in one forward pass, two for a multiplication with its addition; each is counted for the module in whose
scope Flax traced it, and for those around it.
"""

import collections
import dataclasses
import html
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_zoo import models
from attention_zoo.training.aot import products as products_of


@dataclasses.dataclass(frozen=True)
class Part:
  """A module or a parameter. path: names from the outside in, () for the model itself. kind: the module's class, ""
  for a parameter. shapes: of a parameter, or the first three of those that the module returned.

  parameters, flops: of all inside. flops is None for a parameter.
  """

  path: tuple[str, ...]
  kind: str
  shapes: tuple[str, ...]
  parameters: int
  flops: float | None


@dataclasses.dataclass(frozen=True, repr=False)
class Description:
  """parts: all of the model's, each before what it holds. rows, length: of the batch that was traced; length 0: of one
  that has no tokens."""

  name: str
  parts: list[Part]
  rows: int
  length: int

  @property
  def parameters(self) -> int:
    return self.parts[0].parameters

  @property
  def flops(self) -> float:
    return self.parts[0].flops

  def _head(self):
    batch = f"{self.rows} row{'s' * (self.rows > 1)}" + (f" of {self.length} tokens" if self.length else "")
    return f"{self.name}: {self.parameters:,} parameters; a forward pass of {batch}: {_short(self.flops)}FLOPs"

  def _lines(self):
    """(depth, name, kind, shapes, parameters, FLOPs) of each line of the table; equal layers in a row are one."""
    lines, alike = [], _alike(self.parts)
    for part in self.parts:
      if any(part.path[:i] in alike and alike[part.path[:i]] is None for i in range(1, len(part.path) + 1)):
        continue
      if part.kind == "Dropout":
        continue
      name, count = (part.path[-1] if part.path else self.name), alike.get(part.path, 1)
      if count > 1:
        name += f" (and {count - 1} more like it)"
      flops = "" if not part.flops else _short(part.flops)
      parameters = f"{part.parameters:,}" if part.parameters else ""
      lines.append((len(part.path), name, part.kind, part.shapes, parameters, flops))
    return lines

  def __repr__(self):
    rows = [("", "", "shape", "parameters", "FLOPs")]
    for depth, name, kind, shapes, parameters, flops in self._lines():
      rows.append(("  " * depth + name, kind, ", ".join(shapes), parameters, flops))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    sides = (str.ljust, str.ljust, str.ljust, str.rjust, str.rjust)
    table = ["  ".join(side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True)) for row in rows]
    return "\n".join([self._head(), "", *(line.rstrip() for line in table)])

  def _repr_html_(self):
    from attention_zoo.plots import theme

    body = []
    for depth, name, kind, shapes, parameters, flops in self._lines():
      label = f'<td style="padding-left:{depth * 16}px">{html.escape(name)}</td>'
      if kind:
        label = label.replace("<td", "<td class=module", 1)
      cells = f"<td>{html.escape(kind)}</td><td class=mono>{'<br>'.join(map(html.escape, shapes))}</td>"
      body.append(f"<tr>{label}{cells}<td class=n>{parameters}</td><td class=n>{flops}</td></tr>")
    head = "<tr><th></th><th></th><th>shape</th><th class=n>parameters</th><th class=n>FLOPs</th></tr>"
    css = ".zoo .module { font-weight: 600; } .zoo table.parts td { padding-top: 2px; padding-bottom: 2px; }"
    table = f'<table class="parts"><thead>{head}</thead><tbody>{"".join(body)}</tbody></table>'
    return theme.fragment(f'<p><b>{html.escape(self._head())}</b></p><div class="scroll">{table}</div>', css)


def describe(name: str, module, config, *, rows: int = 1, length: int = 32) -> Description:
  """The description of a model of `models/` with a config, traced with a batch of so many rows and tokens of each text.

  Raises what the model raises where the length is more than it can take.
  """
  model = module.Model(config)
  shapes = models.batch_shapes(module, config, rows=rows, length=length)
  batch = {field: jax.ShapeDtypeStruct(shape, jnp.int32) for field, shape in shapes.items()}
  params = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]
  modules, returned = {}, collections.defaultdict(lambda: collections.defaultdict(list))

  def note(next_method, args, kwargs, context):
    out, found = next_method(*args, **kwargs), context.module
    modules.setdefault(tuple(found.path), type(found).__name__)
    returned[tuple(found.path)][context.method_name].append(out)
    return out

  def forward(params, batch):
    with nn.intercept_methods(note):
      return model.apply({"params": params}, batch, mutable=["intermediates"])  # each layer is called, none scanned

  jaxpr = jax.make_jaxpr(forward)(params, batch).jaxpr
  leaves = [(tuple(key.key for key in path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]
  for path, _ in leaves:  # modules that only keep parameters
    for i in range(len(path)):
      modules.setdefault(path[:i], "")
  counts, products = collections.Counter(), collections.Counter()
  for path, leaf in leaves:
    for i in range(len(path)):
      counts[path[:i]] += math.prod(leaf.shape)
  for scope, number in products_of(jaxpr):
    path = _path_of(scope, modules)
    for i in range(len(path) + 1):
      products[path[:i]] += number
  order = _ordered(modules)
  parts = []
  for path in order:
    parts.append(Part(path, modules[path] or "parameters", _shapes(returned[path]), counts[path], products[path]))
    for leaf_path, leaf in leaves:
      if leaf_path[:-1] == path:
        parts.append(Part(leaf_path, "", (_shape(leaf),), math.prod(leaf.shape), None))
  in_tokens = any(shape == (rows, length) for shape in shapes.values())
  return Description(name, parts, rows, length if in_tokens else 0)


def _ordered(modules):
  """Paths as they were first called, each followed by what is in it."""
  children = collections.defaultdict(list)
  for path in modules:
    if path:
      children[path[:-1]].append(path)
  order, stack = [], [()]
  while stack:
    order.append(path := stack.pop())
    stack += reversed(children[path])
  return order


def _shapes(returned) -> tuple[str, ...]:
  """Of what the module is for, where it has one such method; else of its others, whose lists of parameters are none."""
  main = [name for name in ("hidden", "__call__") if name in returned]
  found = []
  for name in main or sorted(set(returned) - {"setup"}):
    for value in returned[name]:
      found += [_shape(x) for x in jax.tree.leaves(value) if getattr(x, "ndim", 0) > 2 or main and hasattr(x, "shape")]
  return tuple(dict.fromkeys(found))[:3]


def _shape(x):
  dtype = {"float32": "f32", "bfloat16": "bf16", "int32": "i32"}.get(str(x.dtype), str(x.dtype))
  return f"{dtype}[{', '.join(map(str, x.shape))}]"


def _path_of(scope, modules) -> tuple[str, ...]:
  """The innermost module that the scopes name. They may hold other names too, of methods and transformations."""
  path = ()
  for name in scope:
    name = name.rpartition("(")[2].rstrip(")").partition(".")[0]
    if (*path, name) in modules:
      path = (*path, name)
  return path


def _alike(parts) -> dict:
  """{path of a module: how many of its kind follow one another, None for those after the first}."""
  inside = collections.defaultdict(list)
  for part in parts:
    for i in range(1, len(part.path) + 1):
      inside[part.path[:i]].append((part.path[i:], part.kind, part.shapes, part.parameters, part.flops))
  found, last = {}, {}
  for part in parts:
    base, _, number = part.path[-1].rpartition("_") if part.path else ("", "", "")
    if not part.kind or not number.isdecimal():
      continue
    before = last.get((part.path[:-1], base))
    if before and inside[before[-1]] == inside[part.path]:
      before.append(part.path)
    else:
      last[part.path[:-1], base] = [part.path]
    group = last[part.path[:-1], base]
    found[part.path] = None
    found[group[0]] = len(group)
  return found


def _short(number):
  for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
    if number >= size:
      return f"{number / size:.3g} {letter}"
  return f"{number:.0f} "
