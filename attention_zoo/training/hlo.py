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


@dataclasses.dataclass(frozen=True)
class Instruction:
  root: bool
  type: str
  op: str
  rest: str  # operands and attributes

  @functools.cached_property
  def operands(self) -> list[str]:
    return re.findall(r"%([\w.\-]+)", self.rest.partition(")")[0])

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
        trips = self._trips(instruction) if instruction.op == "while" and self.times[name] else 1
        for how, callee in instruction.called():
          self.times[callee] += self.times[name] * trips
          if name in self.fused or how in ("calls", "to_apply") and instruction.op != "call":
            self.fused.add(callee)

  def _trips(self, loop: Instruction) -> int:
    """How often a loop runs that counts up from 0 to the constant in its condition."""
    condition = self.computations[dict(loop.called())["condition"]]
    limits = [
      x.rest.partition(")")[0]
      for x in condition.values()
      if x.op == "constant" and x.type.startswith("s32[]")
    ]
    if len(limits) == 1:
      return int(limits[0])
    self.unknown_loops += 1
    return 1

  def collectives(self) -> list[Collective]:
    found, chains = [], set()
    for name, computation in self.computations.items():
      for instruction in computation.values():
        match = _COLLECTIVE.fullmatch(instruction.op)
        if not match or not self.times[name] or match[1] == "send" and "megascale" not in instruction.rest:
          continue
        # The parts of one collective that was split up bear the same number.
        if chain := re.search(r'chain_id="(\d+)"', instruction.rest):
          if chain[1] in chains:
            continue
          chains.add(chain[1])
        sizes = [size for size, _ in arrays(instruction.type)]
        if match[1] == "send":
          kind, sizes = "between slices", sizes[:1]
        else:
          # XLA scatters by an all-reduce of which it keeps a part.
          kind = "reduce-scatter" if name.startswith("all-reduce-scatter") else match[1]
        if match[2] and kind != "all-reduce":
          sizes = sizes[len(sizes) // 2 :]  # operands and results
        group = self._group(instruction.rest)
        whole = sum(sizes) * (group if match[1] == "reduce-scatter" else 1)
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
    """Bytes that instructions read from HBM and write to it; what stays on the chip is free."""
    return sum(
      self.times[name] * self._moved(computation, instruction)
      for name, computation in self.computations.items()
      if self.times[name] and name not in self.fused
      for instruction in computation.values()
    )

  def _moved(self, computation, instruction) -> int:
    if instruction.op in _NO_TRAFFIC or instruction.op.endswith("-done"):
      return 0
    if instruction.op in ("copy-start", "slice-start"):
      return arrays(instruction.type)[-2][0]  # to or from the chip: once; the last is a semaphore
    inside = self.computations.get(dict(instruction.called()).get("calls"), {})
    parameters = {int(x.rest.partition(")")[0]): name for name, x in inside.items() if x.op == "parameter"}
    total = 0
    for index, operand in enumerate(instruction.operands):
      if operand in computation and (size := _in_hbm(computation[operand].type)):
        users = [x for x in inside.values() if parameters.get(index) in x.operands]
        slices = [_slice(inside, x) for x in users if x.operands[0] == parameters[index]]
        total += size if None in slices or not users or len(slices) < len(users) else min(size, sum(slices))
    roots = [x for x in inside.values() if x.root and x.op == "dynamic-update-slice"]
    return total + (_slice(inside, roots[0]) if roots else _in_hbm(instruction.type))


def _in_hbm(type: str) -> int:
  return sum(size for size, in_hbm in arrays(type) if in_hbm)


def _slice(computation, instruction) -> int | None:
  """The bytes that an instruction touches of its first operand, where that is a part of it."""
  if instruction.op in ("dynamic-slice", "gather"):
    return sum(size for size, _ in arrays(instruction.type))
  if instruction.op == "dynamic-update-slice":
    return sum(size for size, _ in arrays(computation[instruction.operands[1]].type))
  return None
