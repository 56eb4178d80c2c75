"""Music: three models of the chorales, three of piano performances, both beyond the length that they were trained at,
and what the compiler says of relative attention's memory.

  python -m benchmarks.music --part=chorales --data=Jsb16thSeparated.json      # on two CPU cores: hours
  python -m benchmarks.music --part=performances --data=DIR                    # folders train, validation, test of MIDI
  python -m benchmarks.music --part=length --data=DIR
  python -m benchmarks.music --part=memory                                     # nothing is run; minutes
  options: --steps=2000 --runs=DIR (where the runs are kept: the same command goes on)

chorales: nats a token of the validation split with absolute positions, relative attention, and relative pitch and time
besides; same widths, depth, data order, optimizer and steps; rows of 1,024 tokens, in which a chorale begins anew.
performances: nats an event of Performance RNN, the Transformer and Music Transformer, whose parameters are about as
many, all trained on the same windows of 512 events and scored in such. Each at its best checkpoint on dev, and at its
last one. length: the two
Transformers trained on rows of 512 events score rows of 1,024: nats an event by position, as a figure. memory: of
one layer's attention, value and gradients, by the CPU's compiler.
"""

import functools
import pathlib
import tempfile

import numpy as np

from attention_zoo import files
from benchmarks import common

PARTS = ("chorales", "performances", "length", "memory")
PAPER = {
  "chorales_transformer": 0.417, "chorales_relative": 0.357, "chorales_relative_pitch_time": 0.335,
  "performance_rnn": 1.969, "transformer": 1.861, "music_transformer": 1.835,
}  # fmt: skip
CHORALES, PERFORMANCES = list(PAPER)[:3], list(PAPER)[3:]
SIZES = dict(d_model=128, d_ff=512, num_heads=4, d_k=32, d_v=32, num_layers=3)
TINY = dict(d_model=16, d_ff=32, num_heads=2, d_k=8, d_v=8, num_layers=1)
LENGTHS = (1024, 2048, 4096, 8192, 16384)
BLOCK, HEADS, DEPTH = 512, 8, 64  # of the part memory


def parse(argv):
  options = common.parser(__doc__)
  options.add_argument("--part", choices=PARTS, required=True)
  options.add_argument("--data", help="the chorales' JSON file, or the folder of MIDI files")
  options.add_argument("--steps", type=int, default=2000)
  options.add_argument("--runs", help="where the runs are kept (default: a folder that is deleted)")
  options.add_argument("--dev", default="", help="the name of the dev split, where it is not the config's")
  return options.parse_args(argv)


def make_config(name, arguments, row_length):
  """The published config at a size for two CPU cores."""
  import importlib

  config = importlib.import_module(f"attention_zoo.configs.music.{name}").get_config()
  sizes = TINY if arguments.tiny else SIZES
  if name == "performance_rnn":  # so wide that it has about as many parameters, and on the others' batches
    config.model.update(d_model=sizes["d_model"], d_hidden=sizes["d_model"] * 5 // 4)
    config.data.update(batching="windows", stretch=0.05)
  else:
    config.model.update(**sizes)
  if "relative" in name or name == "music_transformer":
    config.model.attention = f"music(max_distance={row_length // 2})"
  config.model.update(dtype="float32", matmul_dtype="float32", dropout=0.1)
  config.data.update(
    dir=str(arguments.data), batch_tokens=256 if arguments.tiny else 4096, row_length=row_length, row_multiple=1
  )
  if arguments.dev:
    config.data.dev_split = arguments.dev
  config.optimizer.update(
    name="adam(b1=0.9, b2=0.98, eps=1e-9)", learning_rate=2e-3, warmup_steps=min(100, arguments.steps), clip_norm=1.0,
    schedule=f"cosine(decay_steps={max(arguments.steps - 100, 1)}, end_factor=0.1)",
  )  # fmt: skip
  every = max(arguments.steps // 10, 1)
  config.train.update(
    steps=arguments.steps, eval_every=every, checkpoint_every=every, log_every=every, keep=1, dev_samples=0
  )
  return config


def train(name, arguments, runs, row_length):
  """The loaded run at its last step, and the best loss on dev."""
  import attention_zoo as zoo
  from attention_zoo import tasks
  from attention_zoo.training import loop
  from attention_zoo.training.metrics import read_metrics

  config = make_config(name, arguments, row_length)
  workdir = pathlib.Path(runs) / f"{name}-{row_length}"
  tasks.validate(config)
  loop.train(tasks.make(config, workdir), config, workdir, quiet=True)
  best = min(record["nll"] for record in read_metrics(workdir) if record["split"] == "dev")
  return zoo.load(workdir), best


def table(names, arguments, runs):
  """(columns, rows, notes) of models trained alike."""
  import jax

  row_length = 32 if arguments.tiny else 1024 if names == CHORALES else 512
  rows, found = [], {}
  for name in names:
    run, best = train(name, arguments, runs, row_length)
    _, found[name] = by_position(run, "dev", row_length)
    size = sum(leaf.size for leaf in jax.tree.leaves(run.params))
    rows.append((name, f"{size:,}", f"{PAPER[name]:.3f}", f"{best:.4f}", f"{found[name]:.4f}"))
  ordered = all(found[a] > found[b] for a, b in zip(names, names[1:], strict=False))
  notes = [
    f"At the last step the order of the paper {'holds' if ordered else 'does not hold'}. {arguments.steps:,} steps of "
    f"4,096 tokens in rows of {row_length:,}."
  ]
  return ("model", "parameters", "paper, nats", "ours, best on dev", "ours, at the last step"), rows, notes


def by_position(run, split, length):
  """(mean nats at each position of rows of that length [length], mean of all). Rows are cut as in training."""
  import jax

  from attention_zoo.data import windows
  from attention_zoo.training import sharding

  sums, counts = np.zeros(length), np.zeros(length)
  spread = sharding.batch_sharding(run._mesh)
  kind = run.config.data.batching
  for batch in windows.eval_batches(kind, run.task.stream(split), rows=max(run._mesh.size, 4), row_length=length):
    logprobs_BT = np.asarray(run._forced(run.params, jax.device_put(batch, spread)))
    here = batch["segments"] > 0
    sums, counts = sums - (logprobs_BT * here).sum(0), counts + here.sum(0)
  return sums / np.maximum(counts, 1), sums.sum() / counts.sum()


def past_the_length(arguments, runs):
  """(columns, rows, notes, figure): trained on rows of one length, scored on twice that."""
  length = 32 if arguments.tiny else 512
  curves = {}
  for name in ("transformer", "music_transformer"):
    run, _ = train(name, arguments, runs, length)
    curves[name], _ = by_position(run, "dev", 2 * length)
  rows = []
  for name, nats in curves.items():
    near, far = nats[:length].mean(), nats[length:].mean()
    rows.append((name, f"{near:.4f}", f"{far:.4f}", f"{far - near:+.4f}"))
  columns = ("model", f"first {length} events, nats", f"next {length} events", "more")
  worse = [curve[length:].mean() - curve[:length].mean() for curve in curves.values()]
  notes = [f"Relative attention degrades {'less' if worse[1] < worse[0] else 'no less'} than absolute positions do."]
  return columns, rows, notes, length_figure(curves, length)


def length_figure(curves, length):
  from matplotlib import figure

  from attention_zoo.plots import theme

  fig = figure.Figure(figsize=(7, 3.4), layout="constrained")
  axes = fig.subplots()
  width = max(length // 16, 1)
  for (name, nats), colour in zip(curves.items(), theme.SERIES, strict=False):
    smooth = nats.reshape(-1, width).mean(1)
    axes.plot((np.arange(len(smooth)) + 0.5) * width, smooth, color=theme.LIGHT[colour], label=name)
  axes.axvline(length, color=theme.LIGHT["muted"], lw=1, ls="--")
  axes.set(xlabel=f"position (trained up to {length})", ylabel="nats an event, dev")
  axes.legend()
  return fig


def attentions(L):
  """name -> (function of its arrays, their shapes), one row of a batch."""
  import jax.numpy as jnp

  from attention_zoo.ops import local, masks, pitch_time, relative

  qkv = [(1, L, HEADS, DEPTH)] * 3
  rows = lambda R: (R, HEADS, DEPTH)
  pitch, phase = jnp.zeros((1, L), jnp.int32), -jnp.arange(L)[None] % 4
  gathered = functools.partial(relative.shaw_gather_attention, mask=masks.causal(L))
  chorales = lambda *arrays: pitch_time.pitch_time_attention(*arrays, pitch, phase, voices=4)
  in_blocks = functools.partial(local.music_local_attention, block_width=BLOCK)
  return {
    "gathered rows": (gathered, [*qkv, rows(2 * L - 1)]),
    "skewed": (relative.music_attention, [*qkv, rows(L)]),
    "skewed, pitch and time too": (chorales, [*qkv, rows(L), rows(121), rows(L // 4)]),
    f"local, blocks of {BLOCK}": (in_blocks, [*qkv, rows(2 * BLOCK)]),
  }


def compiled(name, L):
  """What the compiler says of value and gradients: bytes of temporaries, operations, the largest array's size."""
  import jax
  import jax.numpy as jnp

  function, shapes = attentions(L)[name]
  loss = jax.value_and_grad(lambda *arrays: jnp.sum(function(*arrays)), range(len(shapes)))
  arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  program = jax.jit(loss).lower(*arguments).compile()
  largest = max(variable.aval.size for eqn in jax.make_jaxpr(loss)(*arguments).eqns for variable in eqn.outvars)
  flops = program.cost_analysis()["flops"]
  return {"bytes": program.memory_analysis().temp_size_in_bytes, "flops": flops, "largest": largest}


def memory(arguments):
  lengths = (256, 512) if arguments.tiny else LENGTHS
  short = 256 if arguments.tiny else 2048
  cases = [(name, short) for name in list(attentions(short))[:3]] + [(list(attentions(short))[3], L) for L in lengths]
  rows = []
  for name, L in cases:
    found = compiled(name, L)
    of_all = found["largest"] / (L * L * HEADS * DEPTH)
    cells = (f"{found['bytes'] / 2**20:,.0f}", f"{found['flops'] / 1e9:,.2f}", f"{of_all:.4f}")
    rows.append((name, f"{L:,}", *cells))
  columns = ("attention", "L", "temporaries, MiB", "operations, 10⁹", "largest array / L L D")
  return columns, rows, [f"One row of a batch, {HEADS} heads of {DEPTH}, D = {HEADS * DEPTH}, float32."]


def main(argv=None):
  arguments = parse(argv)
  if arguments.part != "memory" and not arguments.data:
    raise SystemExit(f"--part={arguments.part} needs --data")
  common.prepare(1)
  results = {"environment": common.environment()}
  with tempfile.TemporaryDirectory() as temporary:
    runs = files.expand(arguments.runs) if arguments.runs else temporary
    if arguments.part == "memory":
      columns, rows, notes = memory(arguments)
    elif arguments.part == "length":
      columns, rows, notes, figure = past_the_length(arguments, runs)
      arguments.out.mkdir(parents=True, exist_ok=True)
      figure.savefig(arguments.out / "music_length.png", dpi=150)
    else:
      columns, rows, notes = table(CHORALES if arguments.part == "chorales" else PERFORMANCES, arguments, runs)
  results["rows"] = rows
  common.publish(f"music_{arguments.part}", f"Music: {arguments.part}", columns, rows, notes, results, arguments.out)


if __name__ == "__main__":
  main()
