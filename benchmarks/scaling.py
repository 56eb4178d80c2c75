"""What the compiler says of training on TPU slices of every size: memory, traffic, and the fastest a step can be.

  python -m benchmarks.scaling [--only=REGEX]

Compiles the training step for each setting (minutes each; nothing is run, no TPU is needed, but libtpu is), keeps what
it found in benchmarks/scaling.json, goes on from there the next time, and writes benchmarks/scaling.md.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import re

import rich.console

from attention_zoo import files

HERE = pathlib.Path(__file__).parent
DAY = 24 * 3600


@dataclasses.dataclass(frozen=True)
class Setting:
  model: str  # base, big, 5B or 8.3B
  topology: str
  slices: int = 1
  rules: str = "data_parallel"
  fsdp: int = 1
  tensor: int = 1

  @property
  def chips(self) -> int:
    return self.slices * math.prod(map(int, self.topology.partition(":")[2].split("x")))

  def name(self) -> str:
    sizes = "".join(
      f" {axis}={getattr(self, axis)}" for axis in ("fsdp", "tensor") if getattr(self, axis) > 1
    )
    return f"{self.model}, {self.slices} x {self.topology}, {self.rules}{sizes}"


def published() -> list[Setting]:
  """The paper's two models and batch, data parallel."""
  slices = [("v5e:" + shape, 1) for shape in ("2x4", "4x4", "4x8", "8x8", "8x16", "16x16")]
  slices += [("v5e:2x4", 2), ("v5e:8x8", 2), ("v5p:2x2x2", 1), ("v5p:4x4x4", 1), ("v5p:2x2x2", 2)]
  slices += [("v6e:2x4", 1), ("v6e:8x8", 1), ("v6e:2x4", 2)]
  return [Setting(model, *where) for model in ("base", "big") for where in slices]


def large() -> list[list[Setting]]:
  """For models that one chip does not hold, by chip and rules: slices from small to large."""
  shapes = {
    "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8"),
    "v6e": ("2x2", "2x4", "4x4"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4"),
  }
  found = []
  for model in ("5B", "8.3B"):
    for chip, sizes in shapes.items():
      slices = [Setting(model, f"{chip}:{size}", rules="fsdp") for size in sizes]
      found.append([dataclasses.replace(x, fsdp=x.chips) for x in slices])
      # Heads are shared by at most 8: more chips would not make a chip's part smaller.
      found.append(
        [dataclasses.replace(x, rules="tensor_parallel", tensor=x.chips) for x in slices if x.chips <= 8]
      )
  return found


def make_config(setting: Setting):
  from attention_zoo.configs import transformer_base, transformer_big

  config = (transformer_big if setting.model == "big" else transformer_base).get_config()
  config.mesh.update(replica=setting.slices, rules=setting.rules, fsdp=setting.fsdp, tensor=setting.tensor)
  if setting.model in ("base", "big"):
    # The paper's batch in rows that the chips can share.
    length = next(length for length in (256, 192, 128, 96) if 24576 // length % setting.chips == 0)
    config.data.update(row_length=length, max_length=min(length, 128))
    return config
  wide = dict(d_model=1024, d_ff=131072, num_heads=96, d_k=256, d_v=256)  # 6 + 6 layers: 5.1e9
  deep = dict(
    d_model=3072, d_ff=12288, num_heads=24, d_k=128, d_v=128, num_encoder_layers=31, num_decoder_layers=31
  )  # 8.4e9
  config.model.update(wide if setting.model == "5B" else deep, remat=True)
  length, vocabulary = (256, 32000) if setting.model == "5B" else (1024, 51200)
  rows = setting.chips // setting.tensor  # one a group of chips
  config.data.update(vocab_size=vocabulary, row_length=length, max_length=length, batch_tokens=rows * length)
  return config


def compile_setting(setting: Setting) -> dict:
  from attention_zoo import tasks
  from attention_zoo.training import aot

  config = make_config(setting)
  devices, kind = aot.topology_devices(setting.topology, setting.slices)
  step = aot.compile_step(tasks.make(config, "."), config, devices, aot.CHIPS[kind])
  found = aot.report(step, aot.CHIPS[kind])
  found = {name.replace("units", "tokens"): value for name, value in found.items() if name != "unit"} | {
    "steps": config.train.steps,
    "row_length": config.data.row_length,
  }
  return found if found["fits"] else found | {"largest": aot.largest_buffers(step)}


def row(setting: Setting, found: dict | None) -> str:
  where = f"{setting.slices} x {setting.topology}" if setting.slices > 1 else setting.topology
  cells = [setting.model, where, str(setting.chips)]
  if setting.rules != "data_parallel":
    cells.append(setting.rules)
  if found is None:
    return " | ".join([*cells, "not compiled yet"])
  gib = lambda size: f"{size / 2**30:.2f}"
  state = found["parameter_bytes"] + found["optimizer_bytes"]
  cells += [str(found["row_length"]), gib(state)]
  if not found["fits"]:
    return " | ".join([*cells, "does not fit: " + found["complaint"].partition(". ")[0]])
  sent = "; ".join(
    f"{count} {kind}, {size / 2**20:,.0f} MiB" for kind, (count, size, _) in found["collectives"].items()
  )
  if found["unknown_loops"]:
    sent += f"; {found['unknown_loops']} loops of unknown length, counted once"
  bound = max(found["seconds"], key=found["seconds"].get)
  cells += [gib(found["activation_bytes"]), gib(found["peak_bytes"]), sent, bound]
  cells += [
    f"{1e3 * found['step_seconds']:.2f}",
    f"{found['mfu']:.0%}",
    f"{found['tokens_per_second']:,.0f}",
  ]
  if setting.model in ("base", "big"):
    seconds = found["steps"] * found["step_seconds"]
    cells.append(f"{seconds / 60:.0f} min" if seconds < DAY / 6 else f"{seconds / 3600:.1f} h")
  return " | ".join(cells)


def smallest(known: dict) -> list[Setting]:
  """Of each series of slices those up to the first that fits."""
  found = []
  for series in large():
    for setting in series:
      found.append(setting)
      if known.get(setting.name(), {"fits": True})["fits"]:
        break
  return found


def report(known: dict) -> str:
  """scaling.md."""
  from attention_zoo.training.aot import CHIPS

  columns = "tokens a row | state | activations | peak | collectives of a step | bound by | step, ms | MFU | tokens/s"
  chips = "\n".join(
    f"| {name} | {x.flops / 1e12:.0f} | {x.hbm / 2**30:.2f} | {x.hbm_bandwidth / 1e9:.0f} | {x.links / 1e9:.0f} "
    f"| {x.network / 1e9:.3g} |"
    for name, x in CHIPS.items()
  )

  def table(head, settings):
    lines = [row(setting, known.get(setting.name())) for setting in settings]
    return "\n".join(f"| {line} |" for line in (head, " | ".join(["---"] * (head.count("|") + 1)), *lines))

  return f"""# Scaling, predicted

**Predictions from the compiler: nothing here has been run.** Memory, collectives and HBM traffic are those of the
program that XLA's TPU compiler made of the training step; arithmetic is the step's matrix products. A step is taken to
last as long as the slowest of arithmetic, HBM, links between chips and network between slices at its published peak,
all at once: **a lower bound on time, so an upper bound on tokens/s and MFU.** HBM traffic is what each instruction must
read and write at least once, not what it only hands on. A loop counts as often as it runs; where the program does not
say how often, once, and the row says so. Memory is GiB of one chip; a collective's MiB are of the arrays on one chip.
`python -m benchmarks.scaling` makes these tables, `attention_zoo.compile` one line of them.

| chip | bf16 TFLOP/s | usable HBM, GiB | HBM, GB/s | links, GB/s one way | network, GB/s |
|---|---|---|---|---|---|
{chips}

## The paper's models, data parallel

The paper's batch, 24,576 target tokens over all chips, in rows short enough to be shared evenly; "training" is the
paper's 100,000 steps of base and 300,000 of big. That batch is small for a large slice: a chip of 256 has 96 tokens.

{table(f"model | slice | chips | {columns} | training", published())}

## Models that one chip does not hold

5B is as large and as wide as Mesh-TensorFlow's 5-billion-parameter Transformer (Shazeer et al. 2018), as encoder and
decoder of 6 layers each: d_model 1,024, d_ff 131,072, 96 heads of 256. 8.3B is Megatron-LM's (Shoeybi et al. 2019)
width, d_model 3,072 and 24 heads, in 31 + 31 layers. One row for each chip (fsdp) or group of chips (tensor_parallel).
Layers are computed again in the backward pass (`model.remat`), and MFU here counts that work too. For each chip and
rule set: slices up to the smallest that holds the model.

{table(f"model | slice | chips | rules | {columns}", smallest(known))}
"""


def main(argv=None):
  options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  options.add_argument("--only", default="", help="a regular expression: compiles these settings only")
  arguments = options.parse_args(argv)
  os.environ["JAX_PLATFORMS"] = "cpu"
  console = rich.console.Console(highlight=False)
  path = HERE / "scaling.json"
  # Read anew each time: with --only several may work on it.
  read = lambda: json.loads(path.read_text()) if path.exists() else {}
  while todo := [
    setting
    for known in [read()]
    for setting in [*published(), *smallest(known)]
    if setting.name() not in known and re.search(arguments.only, setting.name())
  ]:
    found = compile_setting(todo[0])
    known = read() | {todo[0].name(): found}
    files.write_text(path, json.dumps(known, indent=1, sort_keys=True) + "\n")
    files.write_text(HERE / "scaling.md", report(known))
    console.print(row(todo[0], found), soft_wrap=True)
  files.write_text(HERE / "scaling.md", report(read()))


if __name__ == "__main__":
  main()
