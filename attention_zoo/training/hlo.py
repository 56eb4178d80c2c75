"""Reads the text of a program that XLA compiled for one TPU: what it sends, and what it moves from and to HBM.

A loop's body counts as often as the loop runs, and a collective that was split up, to run beside arithmetic,
once. Every size is of one device.
"""

import dataclasses
import functools
import math
import re

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "between slices")
_BYTES = {"pred": 1, "bf16": 2, "token": 0}  # the others have their bits in their names: f32, s8
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](\{[^{}]*\})?")
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)")
_CALLS = re.compile(r"(calls|body|condition|to_apply|\w+_computations?)=\{?(%[\w.\-]+(?:, %[\w.\-]+)*)")
_COLLECTIVE = re.compile(
  r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|send)(-start)?"
)
_NO_TRAFFIC = "parameter tuple get-tuple-element bitcast constant while conditional call after-all".split()
# Custom calls: the end of a collective that was split up, and buffers that are laid out side by side.
_NO_TRAFFIC += ["AsyncCollectiveDone", "ConcatBitcast", "AllocateBuffer"]
_ALIAS = re.compile(r"\{(\d*)\}: \((\d+), \{")  # (result, operand) that lie at one address
_PARTS = ("slice", "slice-start", "dynamic-slice", "gather")
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # which operand is new


@dataclasses.dataclass(frozen=True)
class Instruction:
  root: bool
  type: str
  op: str
  rest: str  # operands and attributes

  @functools.cached_property
  def operands(self) -> list[str]:
    return re.findall(r"%([\w.\-]+)", self.rest.partition(")")[0])

  @property
  def kind(self) -> str:
    """The operation; of a custom call its target."""
    target = re.search(r'custom_call_target="([^"]*)"', self.rest) if self.op == "custom-call" else None
    return target[1] if target else self.op

  @property
  def result(self) -> str:
    """The type of what it computes; what starts something has its operands and semaphores beside it."""
    if self.op == "all-reduce-start" or not self.op.endswith("-start"):
      return self.type
    return elements(self.type)[0 if self.op == "copy-start" else 1]

  def called(self) -> list[tuple[str, str]]:
    """(as what, computation) of each computation that it runs."""
    return [
      (how, name) for how, names in _CALLS.findall(self.rest) for name in re.findall(r"[\w.\-]+", names)
    ]


@dataclasses.dataclass(frozen=True)
class Collective:
  """bytes: of the whole array, scattered or gathered. group: devices that take part. times: a step."""

  kind: str
  bytes: int
  group: int
  times: int

  @property
  def sent(self) -> float:
    """Bytes that a device sends a step, if the devices of the group form a ring."""
    share = (self.group - 1) / self.group
    factors = {"all-reduce": 2 * share, "collective-permute": 1, "between slices": 1}
    return self.times * self.bytes * factors.get(self.kind, share)


def arrays(type: str) -> list[tuple[int, bool]]:
  """(bytes, does it lie in HBM and not on the chip) of each array of a type."""

  def width(dtype):
    return _BYTES.get(dtype) or max(1, int(re.search(r"\d+", dtype)[0]) // 8) if dtype != "token" else 0

  return [
    (
      width(dtype) * math.prod(int(size) for size in sizes.split(",") if size),
      not re.search(r"S\(\d", layout),
    )
    for dtype, sizes, layout in _ARRAY.findall(type)
  ]


def elements(type: str) -> list[str]:
  """The types that a tuple's type consists of."""
  found, depth = [""], 0
  for character in type[1:-1]:
    depth += (character in "([{") - (character in ")]}")
    if character == "," and not depth:
      found.append("")
    else:
      found[-1] += character
  return found


class Program:
  """The computations of a program's text, and how often a step runs each (`times`)."""

  def __init__(self, text: str):
    self.partitions = int((re.search(r"num_partitions=(\d+)", text) or [1, 1])[1])
    self.computations: dict[str, dict[str, Instruction]] = {}
    for line in text.splitlines():
      if found := _COMPUTATION.match(line):
        current = self.computations.setdefault(found[1], {})
      elif found := _INSTRUCTION.match(line):
        root, name, *parts = found.groups()
        current[name] = Instruction(bool(root), *parts)
    self.unknown_loops = 0
    # XLA writes what is called before what calls it; the entry comes last.
    self.times = dict.fromkeys(self.computations, 0)
    self.fused = set()
    self.times[list(self.computations)[-1]] = 1
    for name in reversed(self.computations):
      for instruction in self.computations[name].values():
        trips = self._trips(name, instruction) if instruction.op == "while" and self.times[name] else 1
        for how, callee in instruction.called():
          self.times[callee] += self.times[name] * trips
          if name in self.fused or how in ("calls", "to_apply") and instruction.op != "call":
            self.fused.add(callee)

  def _trips(self, caller: str, loop: Instruction) -> int:
    """How often a loop runs that counts from a constant in constant steps to below a constant; 1 for others."""
    called, computation = dict(loop.called()), self.computations[caller]
    body, condition = self.computations[called["body"]], self.computations[called["condition"]]
    carried = computation[loop.operands[0]]
    starts = [_term(computation, name) for name in carried.operands if carried.op == "tuple"]
    # What a loop only hands on is a constant where it came in as one.
    known = {
      index: start[1]
      for index, (start, name) in enumerate(zip(starts, _results(body), strict=False))
      if start and start[0] is None and _term(body, name) == (index, 0)
    }
    test = next(x for x in condition.values() if x.root)
    if test.op == "compare" and "direction=LT" in test.rest:
      counter, limit = (_term(condition, name, known) for name in test.operands)
      if counter and limit and limit[0] is None and counter[0] in range(len(starts)):
        start, step = starts[counter[0]], _term(body, _results(body)[counter[0]], known)
        if start and start[0] is None and step and step[0] == counter[0] and step[1] > 0:
          return max(0, math.ceil((limit[1] - counter[1] - start[1]) / step[1]))
    self.unknown_loops += 1
    return 1

  def collectives(self) -> list[Collective]:
    found = []
    for name, computation in self.computations.items():
      for instruction in computation.values():
        match = _COLLECTIVE.fullmatch(instruction.op)
        if not match or not self.times[name] or match[1] == "send" and "megascale" not in instruction.rest:
          continue
        if _continues(instruction, computation):
          continue
        group = self._group(instruction.rest)
        if match[1] == "send":
          kind, whole = "between slices", _size(elements(instruction.type)[0])
        else:
          # XLA scatters by an all-reduce of which it keeps a part.
          kind = "reduce-scatter" if name.startswith("all-reduce-scatter") else match[1]
          whole = _size(instruction.result) * (group if match[1] == "reduce-scatter" else 1)
        found.append(Collective(kind, whole, group, self.times[name]))
    return found

  def _group(self, rest: str) -> int:
    """The size of a collective's groups, of which XLA has three spellings."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
      return listed[1].count(",") + 1
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
      return int(counted[1])
    if named := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", rest):
      sizes = dict(axis.split("=") for axis in named[1].split(","))
      return math.prod(int(sizes[axis]) for axis in named[2].split(","))
    return self.partitions

  def hbm_bytes(self) -> int:
    """Bytes that a step must at least read from HBM and write to it.

    An instruction reads each operand once and writes its results once, without padding. Of what it slices or
    gathers from counts the part taken, of what it updates in place the new part, and nothing of what it hands
    on as it is. A collective that was split up counts with the piece that starts it. Not counted: what stays
    on the chip, what is read or written again, and what a custom call may leave alone, as result and operand
    are one.
    """
    return round(
      sum(
        self.times[name] * self._moved(computation, instruction)
        for name, computation in self.computations.items()
        if self.times[name] and name not in self.fused
        for instruction in computation.values()
      )
    )

  def _moved(self, computation, instruction) -> float:
    if instruction.kind in _NO_TRAFFIC or instruction.op.endswith("-done"):
      return 0
    operands = {name: computation[name] for name in instruction.operands if name in computation}
    if body := self._fused(instruction):
      parameters = _parameters(body)
    else:
      body = {name: dataclasses.replace(x, op="parameter") for name, x in operands.items()}
      body, parameters = body | {"": dataclasses.replace(instruction, root=True)}, instruction.operands
    needed, taken = self._needed(body), dict.fromkeys(instruction.operands, 0.0)
    for operand, parameter in zip(instruction.operands, parameters, strict=True):
      taken[operand] = max(taken[operand], needed.get(parameter, 0.0))
    if instruction.op == "custom-call":
      taken |= {instruction.operands[int(index)]: 0.0 for _, index in _ALIAS.findall(instruction.rest)}
    read = sum(taken[name] * _in_hbm(x.type) for name, x in operands.items())
    return read + self._written(instruction, body)

  def _written(self, instruction, body) -> int:
    results, sizes = _results(body), arrays(instruction.result)
    if instruction.op == "send":
      return 0
    if len(results) == len(sizes) and body[results[0]].op != "custom-call":
      new = [self._new(body, name) for name in results]
      return sum(min(a, b) for a, (b, in_hbm) in zip(new, sizes, strict=True) if in_hbm)
    aliases = [int(result or 0) for result, _ in _ALIAS.findall(instruction.rest)]
    return sum(x for index, (x, in_hbm) in enumerate(sizes) if in_hbm and index not in aliases)

  def _fused(self, instruction) -> dict[str, Instruction] | None:
    """What a fusion consists of."""
    return self.computations.get(dict(instruction.called()).get("calls"))

  def _in_place(self, body, name) -> tuple[int, str, list[str]]:
    """(new bytes, base, way) of a result: what it is without what is handed on and updated in place."""
    new, way = 0, []
    while True:
      x = body[name]
      if x.op in _UPDATES:
        new, below = new + _new_part(x, body), x.operands[0]
      elif x.op == "bitcast":
        below = x.operands[0]
      elif x.op == "fusion" and len(results := _results(inside := self._fused(x))) == 1:
        inner, base, _ = self._in_place(inside, results[0])
        if inside[base].op != "parameter":
          return new, name, way
        new, below = new + inner, x.operands[_parameters(inside).index(base)]
      else:
        return new, name, way
      way.append(name)
      name = below

  def _new(self, body, result) -> int:
    """Bytes of a result that a computation writes."""
    new, base, _ = self._in_place(body, result)
    kept = body[base].kind in _NO_TRAFFIC or _continues(body[base], body)
    return new + (0 if kept else _size(body[base].result))

  def _needed(self, body, in_place=True) -> dict[str, float]:
    """The share of each value that a computation's results are made of. in_place: not what they only hand on."""
    needed, ways = dict.fromkeys(body, 0.0), set()
    for result in _results(body):
      _, base, way = self._in_place(body, result) if in_place else (0, result, [])
      ways.update(way)
      needed |= dict.fromkeys(way, 1.0)
      if not in_place or body[base].op != "parameter":
        needed[base] = 1.0
    for name, x in reversed(body.items()):
      if needed[name]:
        share = 1.0 if _COLLECTIVE.fullmatch(x.op) else needed[name]
        for operand, part in zip(x.operands, self._parts(x, body, name in ways), strict=True):
          if operand in needed:
            needed[operand] = max(needed[operand], share * part)
    return needed

  def _parts(self, x, body, in_place) -> list[float]:
    """The share of each operand that an instruction needs for its result."""
    if x.op == "fusion":
      inside = self._fused(x)
      needed = self._needed(inside, in_place)
      return [needed[parameter] for parameter in _parameters(inside)]
    if x.kind == "AsyncCollectiveDone" or _continues(x, body):
      return [0.0] * len(x.operands)
    parts = [1.0] * len(x.operands)
    if x.op in _PARTS and x.operands[0] in body:
      parts[0] = min(1.0, _size(x.result) / max(1, _size(body[x.operands[0]].type)))
    if x.op in _UPDATES:
      parts[0] = max(0.0, 1 - _new_part(x, body) / max(1, _size(x.type)))
    if in_place:
      parts[0] = 0.0
    return parts


def _term(body, name, known=()) -> tuple[int | None, int] | None:
  """(index, number): that element of the tuple that a loop carries, or none, plus a number. None: anything else.

  known: elements that are constants, by index.
  """
  x = body[name]
  if x.op == "constant" and re.match(r"-?\d+\)", x.rest):
    return None, int(x.rest.partition(")")[0])
  if x.op in ("copy", "bitcast"):
    return _term(body, x.operands[0], known)
  if x.op == "get-tuple-element" and body[x.operands[0]].op == "parameter":
    index = int(re.search(r"index=(\d+)", x.rest)[1])
    return (None, known[index]) if index in known else (index, 0)
  if x.op == "add":
    terms = [_term(body, operand, known) for operand in x.operands]
    if None not in terms and None in (indices := [index for index, _ in terms]):
      return indices[indices[0] is None], sum(number for _, number in terms)
  return None


def _parameters(body) -> list[str]:
  """The names of a computation's parameters, in order."""
  numbers = {int(x.rest.partition(")")[0]): name for name, x in body.items() if x.op == "parameter"}
  return [numbers[index] for index in sorted(numbers)]


def _results(body) -> list[str]:
  root = next(name for name, x in body.items() if x.root)
  return body[root].operands if body[root].op == "tuple" else [root]


def _new_part(update, body) -> int:
  return _size(body[update.operands[_UPDATES[update.op]]].type)


def _continues(x, body) -> bool:
  """Is it a piece of a collective that was split up, and not the first?"""
  return "chain_id=" in x.rest and not any(y.kind == "AsyncCollectiveStart" for y in body.values())


def _size(type: str) -> int:
  return sum(size for size, _ in arrays(type))


def _in_hbm(type: str) -> int:
  return sum(size for size, in_hbm in arrays(type) if in_hbm)
