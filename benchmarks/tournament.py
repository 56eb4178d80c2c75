"""The attention tournament: every causal attention of ops/ in the same language model,
on the same text, with the same budget.

  python -m benchmarks.tournament --text=FILE                 # on two CPU cores: under an hour
  python -m benchmarks.tournament                             # on the embedded phrasebook
  python -m benchmarks.tournament --only=rotary,local --steps=2000

Each has the same widths, depth, data order, optimizer and number of steps; what a competitor brings of its own
parameters is in the table. Attentions that know positions by themselves get no others; the rest get sinusoids.
Measured: loss on dev in nats a token, at the training length and in windows of twice and four times that; temporary
memory of the training step, as the compiler states it; and, when all are trained, tokens/s of the steps, in turn. What
is done is kept in DIR/tournament.json: the same command goes on.
"""

import functools
import json
import pathlib
import tempfile
import time

from attention_zoo import files
from benchmarks import common

# Text in a config -> whether it knows positions by itself. LSTM is what they are compared with.
CAUSAL = {
  "dot_product": False,
  "additive(width=32)": False,
  "general": False,
  "query_key_norm": False,
  "shaw(max_distance=16)": True,
  "music": True,
  "transformer_xl": True,
  "t5": True,
  "alibi": True,
  "rotary": True,
  "local(block_width=32)": False,
  "music_local(block_width=32)": True,
  "sliding_window(width=32)": False,
  "time_restricted(left=15)": True,
  "memory_compressed(width=3, stride=3)": False,
  "local(block_width=32), memory_compressed(width=3, stride=3)": False,
}
LSTM = "lstm"
TINY = dict(d_model=16, d_ff=32, num_heads=2, d_k=8, d_v=8, num_layers=1)
SIZES = dict(d_model=128, d_ff=512, num_heads=4, d_k=32, d_v=32, num_layers=2)


def make_config(name, text, steps, tiny):
  """The config of one competitor."""
  from attention_zoo.configs.language import shakespeare_char

  config = shakespeare_char.get_config()
  config.data.update(batch_tokens=2048, row_length=128)
  if text:
    config.data.update(dir=str(text), vocab_size=_vocabulary(text))
  else:
    config.data.update(source="phrasebook", tokenizer="bytes", vocab_size=260)
  if tiny:
    config.data.update(batch_tokens=256, row_length=16)
  schedule = f"cosine(decay_steps={max(steps - 50, 1)}, end_factor=0.1)"
  config.optimizer.update(schedule=schedule, warmup_steps=min(50, steps))
  config.train.update(steps=steps, eval_every=steps, checkpoint_every=steps, log_every=max(steps // 10, 1), keep=1)
  if name == LSTM:
    width = 16 if tiny else 256
    config.model = type(config)(
      dict(name="lstm_lm", d_model=width, d_hidden=width, num_layers=2, dropout=0.1, tied=True)
    )
  else:
    positions = "none" if CAUSAL[name] else "sinusoidal"
    config.model.update(**(TINY if tiny else SIZES), attention=name, positions=positions, max_length=1024)
  return config


@functools.cache
def _vocabulary(text):
  from attention_zoo.data.characters import FIRST

  content = pathlib.Path(text).read_text()
  return FIRST + len(set(content[: round(len(content) * 0.9)]))


def compete(name, config, workdir):
  """Trains one and measures it."""
  import jax

  from attention_zoo import tasks
  from attention_zoo.training import loop, sharding
  from attention_zoo.training import step as step_lib
  from attention_zoo.training.optimizer import make_optimizer

  tasks.validate(config)
  start = time.perf_counter()
  task = tasks.make(config, workdir)
  state = loop.train(task, config, workdir, quiet=True)
  seconds = time.perf_counter() - start
  params = jax.device_get(state.params)

  mesh = sharding.make_mesh(config.mesh)
  optimizer = make_optimizer(config.optimizer)
  abstract = step_lib.abstract_state(task, optimizer, config, mesh)
  rows = sharding.batch_sharding(mesh)
  batch = {n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=rows) for n, s in task.batch_shapes().items()}
  flags = jax.ShapeDtypeStruct((mesh.size,), jax.numpy.int32, sharding=rows)
  with jax.set_mesh(mesh):
    step = step_lib.make_train_step(task, optimizer, config, abstract, mesh).lower(abstract, batch, flags)
  memory = step.compile().memory_analysis().temp_size_in_bytes

  losses = {}
  for factor in (1, 2, 4):
    longer_config = config.copy_and_resolve_references()  # the task reads it when it makes batches
    with longer_config.unlocked():
      longer_config.data.row_length *= factor
    longer = tasks.make(longer_config, workdir)
    # Rows are as many as the budget allows, so that every window of dev is seen whatever its length.
    losses[factor] = step_lib.make_evaluate(longer, mesh)(params, {}, "dev")["nll"]
  return {
    "name": name,
    "parameters": sum(x.size for x in jax.tree.leaves(params)),
    "dev_nll": losses[1],
    "dev_nll_2x": losses[2],
    "dev_nll_4x": losses[4],
    "temporary_bytes": memory,
    "seconds": seconds,
  }


def rates(names, make, rounds):
  """{name: tokens/s of a training step, the median of rounds}, in turn."""
  import jax
  import numpy as np

  from attention_zoo import tasks
  from benchmarks import train_step

  sides, tokens = {}, {}
  rng = np.random.default_rng(0)
  for name in names:
    config = make(name)
    tasks.validate(config)
    shapes = tasks.make(config, tempfile.gettempdir()).batch_shapes()
    batch = {key: np.ones(shape.shape, np.int32) for key, shape in shapes.items()}
    for key in ("inputs", "targets"):
      batch[key] = rng.integers(4, config.data.vocab_size, shapes[key].shape, dtype=np.int32)
    batch["positions"] = np.broadcast_to(np.arange(shapes["inputs"].shape[1], dtype=np.int32), shapes["inputs"].shape)
    step = train_step.compile_step(config, batch)[1]
    sides[name] = lambda step=step: jax.block_until_ready([step() for _ in range(5)])
    tokens[name] = 5 * batch["targets"].size
  seconds = common.alternate(sides, rounds)
  return {name: tokens[name] / common.spread(times)[1] for name, times in seconds.items()}


def table(results) -> str:
  """The results as Markdown, best first."""
  lines = [
    "| attention | parameters | dev loss, nats | windows x 2 | windows x 4 | tokens/s | temporaries, MiB |",
    "|---|---|---|---|---|---|---|",
  ]
  for r in sorted(results, key=lambda r: r["dev_nll"]):
    losses = [r[key] for key in ("dev_nll", "dev_nll_2x", "dev_nll_4x")]
    losses = " | ".join("not run" if loss is None else f"{loss:.4f}" for loss in losses)
    rate = "not run" if r["tokens_per_second"] is None else f"{r['tokens_per_second']:,.0f}"
    lines.append(
      f"| `{r['name']}` | {r['parameters']:,} | {losses} | {rate} | {r['temporary_bytes'] / 2**20:,.1f} |"
    )
  return "\n".join(lines)


def picture(results, path):
  """Loss against speed, and loss by window length."""
  import matplotlib.pyplot as plt

  from attention_zoo.plots.theme import LIGHT

  ranked = sorted(results, key=lambda r: r["dev_nll"])
  figure, (left, right) = plt.subplots(1, 2, figsize=(13, 0.34 * len(ranked) + 1.6), width_ratios=(1.2, 1))
  names = [r["name"].replace(", memory", ",\nmemory") for r in ranked]
  for label, key, marker in (
    ("x 4", "dev_nll_4x", "^"),
    ("x 2", "dev_nll_2x", "s"),
    ("trained length", "dev_nll", "o"),
  ):
    if None not in (losses := [r[key] for r in ranked]):
      left.plot(losses, range(len(ranked)), marker, label=label, markersize=5)
  left.set(
    yticks=range(len(ranked)), yticklabels=names, xlabel="dev loss, nats a token", ylim=(len(ranked) - 0.5, -0.5)
  )
  best = ranked[0]["dev_nll"]
  left.set_xlim(best - 0.05, best + max(1.5, 1.1 * (ranked[-1]["dev_nll"] - best)))
  left.legend(title="windows", fontsize=8)
  left.grid(alpha=0.3)
  right.barh(range(len(ranked)), [r["tokens_per_second"] or 0 for r in ranked], color=LIGHT["blue"])
  right.set(yticks=[], xlabel="training tokens/s", ylim=(len(ranked) - 0.5, -0.5))
  figure.tight_layout()
  figure.savefig(path, dpi=110, format="png")
  plt.close(figure)


def main(argv=None):
  options = common.parser(__doc__)
  options.add_argument("--text", type=files.expand, help="a text file; the phrasebook by default")
  options.add_argument("--steps", type=int, default=600)
  options.add_argument("--only", default="", help="names before the bracket, with commas between")
  arguments = options.parse_args(argv)
  common.prepare(common.cores())
  steps = 4 if arguments.tiny else arguments.steps
  wanted = arguments.only.split(",") if arguments.only else None
  names = [n for n in (*CAUSAL, LSTM) if wanted is None or n.partition("(")[0] in wanted]
  if not names:
    options.error(f"--only={arguments.only}: there are {', '.join(n.partition('(')[0] for n in (*CAUSAL, LSTM))}")
  path = pathlib.Path(arguments.out) / "tournament.json"
  make = lambda name: make_config(name, arguments.text, steps, arguments.tiny)
  settings = {"text": arguments.text.name if arguments.text else "phrasebook", "steps": steps, "tiny": arguments.tiny}
  kept = json.loads(path.read_text()) if path.exists() else {}
  results = kept.get("results", []) if kept.get("settings") == settings else []

  def keep():
    content = {"environment": common.environment(), "settings": settings, "results": results}
    files.write_text(path, json.dumps(content, indent=1) + "\n")

  for number, name in enumerate(names, 1):
    if name in [r["name"] for r in results]:
      continue
    print(f"{number} of {len(names)}: {name}", flush=True)
    with tempfile.TemporaryDirectory() as workdir:
      result = compete(name, make(name), workdir)
    results.append(result)
    print(f"  dev loss {result['dev_nll']:.4f}, {result['seconds']:.0f} s", flush=True)
    keep()
  print("tokens/s, in turn", flush=True)
  speeds = rates(names, make, arguments.rounds)
  for result in results:
    result["tokens_per_second"] = speeds.get(result["name"], result.get("tokens_per_second", float("nan")))
  keep()
  files.write_text(path.with_suffix(".md"), table(results) + "\n")
  with files.replacing(path.with_suffix(".png")) as temporary:
    picture(results, temporary)
  print(table(results))


if __name__ == "__main__":
  main()
