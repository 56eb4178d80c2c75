"""The lectures' table of translation results, with what each training cost, and ours at small scale beside it.

  python -m benchmarks.results_table                                        # the table alone: ours is "not run"
  python -m benchmarks.results_table --runs=bytenet=DIR,conv_s2s=DIR        # with runs of ours that were evaluated

A training's cost is GPUs x seconds x what a GPU sustains, as in "Attention Is All You Need", Table 2. "Counted" are
the matrix products of a training step of ours on a full batch, forward and backward, times the steps. BLEU of ours is
sacreBLEU's of the split "test", from WORKDIR/eval: of the average of checkpoints where there is one.
"""

import dataclasses
import importlib
import json
import pathlib

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training import distributed
from benchmarks import common

# Sustained TFLOPS of a GPU in float32: the footnote of "Attention Is All You Need", Table 2.
SUSTAINED = {"K80": 2.8, "K40": 3.7, "M40": 6.0, "P100": 9.5}


@dataclasses.dataclass(frozen=True)
class Training:
  """One cell of the table. bleu, flops: as printed, None where nothing is. gpus, gpu, days: where they are known."""

  bleu: float | None = None
  flops: float | None = None
  gpus: int | None = None
  gpu: str = ""
  days: float | None = None

  @property
  def cost(self) -> float | None:
    """By the formula."""
    return self.gpus and flops(self.gpus, self.days * 24 * 3600, SUSTAINED[self.gpu])


def flops(gpus, seconds, sustained_tflops) -> float:
  return gpus * seconds * sustained_tflops * 1e12


@dataclasses.dataclass(frozen=True)
class System:
  """A row. key: its name in --runs. The two trainings are WMT14 English-German and English-French, newstest2014.

  config: ours of the paper's English-German training, where its steps are published.
  """

  key: str
  name: str
  en_de: Training = Training()
  en_fr: Training = Training()
  config: str = ""


# What ran how long is from the papers of GNMT (English-French), ConvS2S and the Transformer; of GNMT's English-German
# and of the mixture of experts it is from memory. Each agrees with the cost that is printed.
SYSTEMS = (
  System("bytenet", "ByteNet", Training(23.75)),
  System("deep_att", "Deep-Att + PosUnk", en_fr=Training(39.2, 1.0e20)),
  System("gnmt", "GNMT + RL", Training(24.6, 2.3e19, 96, "K80", 1), Training(39.92, 1.4e20, 96, "K80", 6)),
  System("conv_s2s", "ConvS2S", Training(25.16, 9.6e18, 1, "M40", 18.5), Training(40.46, 1.5e20, 8, "M40", 37)),
  System("moe", "MoE", Training(26.03, 2.0e19, 64, "K40", 1), Training(40.56, 1.2e20, 64, "K40", 6)),
  System("deep_att_ensemble", "Deep-Att + PosUnk, ensemble", en_fr=Training(40.4, 8.0e20)),
  System("gnmt_ensemble", "GNMT + RL, ensemble", Training(26.30, 1.8e20), Training(41.16, 1.1e21)),
  System("conv_s2s_ensemble", "ConvS2S, ensemble", Training(26.36, 7.7e19), Training(41.29, 1.2e21)),
  System(
    "transformer_base", "Transformer base", Training(27.3, 3.3e18, 8, "P100", 0.5), Training(38.1, 3.3e18),
    "transformer_base",
  ),
  System(
    "transformer_big", "Transformer big", Training(28.4, 2.3e19, 8, "P100", 3.5), Training(41.8, 2.3e19),
    "transformer_big",
  ),
)  # fmt: skip
KEYS = tuple(system.key for system in SYSTEMS)


def parse_runs(text) -> dict:
  """{key: directory} of "bytenet=DIR,conv_s2s=DIR". Raises UserError."""
  runs = {}
  for part in text.split(",") if text else ():
    key, equals, directory = part.partition("=")
    if not equals or not directory:
      raise UserError(f"--runs: write NAME=DIR, not {part!r}")
    if key not in KEYS:
      raise UserError(f"--runs: no system is called {key!r}; there are {', '.join(KEYS)}")
    if key in runs:
      raise UserError(f"--runs: {key} is given twice")
    runs[key] = files.expand(directory)
  return runs


def read_run(directory) -> dict:
  """What our table says of a run: its model, text, steps, BLEU, operations and hours. Raises UserError."""
  from attention_zoo.training.workdir import read_config
  from launch.ablation_report import steps_per_second

  config, record = read_config(directory), evaluated(directory)
  bleu, speed, per_step = record["bleu"][0], steps_per_second(directory), counted_flops(config)
  step = int(record["step"])  # a text: of an average it is that of its newest checkpoint
  return {
    "model": config.model.name,
    "text": f"{config.data.source} {'-'.join(config.data.languages)}",
    "checkpoint": record["checkpoint"],
    "steps": step,
    "bleu": bleu["score"],
    "signature": bleu["signature"],
    "flops_per_step": per_step,
    "flops": per_step * step,
    "hours": step / speed / 3600 if speed else None,
  }


def evaluated(directory) -> dict:
  """The record of the split "test" that `evaluate` has left: of the average, else of the latest, else of another."""
  paths = sorted((directory / "eval").glob("test-*.json"))
  paths.sort(key=lambda path: (path.name != "test-average.json", path.name != "test-latest.json"))
  if not paths:
    raise UserError(f"{directory} has no eval/test-*.json: python -m attention_zoo.evaluate --workdir={directory}")
  record = files.read_json(paths[0], most=1 << 28)
  if missing := {"bleu", "checkpoint", "step"} - {*record}:
    raise UserError(f"{paths[0]} has no {', '.join(sorted(missing))}: it is no evaluation of a translation run")
  return record


def counted_flops(config) -> float:
  """Operations of the matrix products of one training step, padding of a full batch included."""
  import tempfile

  import jax

  from attention_zoo import tasks
  from attention_zoo.training.aot import matmul_flops

  task = tasks.make(config, tempfile.gettempdir())
  batch = task.batch_shapes()
  initial = jax.eval_shape(task.init, jax.random.key(0))
  carry = jax.eval_shape(lambda: task.carry(batch["targets"].shape[0]))

  def value(params, variables, carry, batch, rng):
    return task.loss(params, variables, carry, batch, rng, 0).value

  traced = jax.make_jaxpr(jax.grad(value))(*initial, carry, batch, jax.random.key(0))
  return matmul_flops(traced.jaxpr)


def table(results) -> str:
  """Markdown. results: {"systems": [..]}."""
  columns = (
    "system", "BLEU En-De", "En-Fr", "FLOPs En-De", "En-Fr", "by the formula En-De", "En-Fr", "counted En-De",
    "ours: text", "BLEU", "steps", "FLOPs counted", "hours",
  )  # fmt: skip
  lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
  for row in results["systems"]:
    cells = [row["name"]]
    cells += [plain(row[side]["bleu"]) for side in ("en_de", "en_fr")]
    cells += [power(row[side][name]) for name in ("flops", "cost") for side in ("en_de", "en_fr")]
    cells.append(power(row["counted"]))
    ours = row["ours"]
    if ours is None:
      cells += ["not run", "", "", "", ""]
    else:
      hours = "" if ours["hours"] is None else f"{ours['hours']:.2f}"
      cells += [ours["text"], f"{ours['bleu']:.1f}", f"{ours['steps']:,}", power(ours["flops"]), hours]
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines)


def plain(value) -> str:
  return "-" if value is None else str(value)


def power(value) -> str:
  return "-" if value is None else f"{value:.1e}".replace("e+", "e")


def page(results) -> str:
  """The whole Markdown file."""
  sustained = ", ".join(f"{gpu} {tflops}" for gpu, tflops in SUSTAINED.items())
  return f"""# Translation: the lectures' table of results, and ours at small scale

BLEU and FLOPs of WMT14 (newstest2014) are those that "Attention Is All You Need", Table 2, prints. By the formula: GPUs
x seconds x sustained TFLOPS ({sustained}), where it is known what ran how long. Counted: the
products of matrices of our config of that training, padding included. Ours: other text and far smaller models, whose
BLEU is not to be compared with that of WMT14.

{table(results)}

Command: `{results["command"]}`
"""


def gather(runs) -> list[dict]:
  rows = []
  for system in SYSTEMS:
    sides = {
      side: dataclasses.asdict(getattr(system, side)) | {"cost": getattr(system, side).cost}
      for side in ("en_de", "en_fr")
    }
    sides["counted"] = None
    if system.config:
      config = importlib.import_module(f"attention_zoo.configs.{system.config}").get_config()
      sides["counted"] = counted_flops(config) * config.train.steps
    ours = read_run(runs[system.key]) if system.key in runs else None
    rows.append({"key": system.key, "name": system.name} | sides | {"ours": ours})
  return rows


def main(argv=None):
  options = common.parser(__doc__)
  options.add_argument("--runs", default="", help="NAME=DIR,..: work directories of ours, trained and evaluated")
  arguments = options.parse_args(argv)
  distributed.hush_libtpu()
  try:
    runs = parse_runs(arguments.runs)
    results = {"systems": gather(runs)}
  except UserError as error:
    options.error(str(error))
  environment = common.environment()
  results |= {"command": environment["command"], "environment": environment}
  folder = pathlib.Path(arguments.out) / "results_table"
  files.write_text(folder / "results_table.json", json.dumps(results, indent=1) + "\n")
  files.write_text(folder / "results_table.md", page(results))
  print(table(results))
  print(f"written: {folder}")


if __name__ == "__main__":
  main()
