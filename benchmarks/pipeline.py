"""How full batches are, and how fast the input pipeline makes them compared with what a training step consumes.

  python -m benchmarks.pipeline               the embedded phrasebook
  python -m benchmarks.pipeline --dir=DATA    and parallel text: DATA/train.en, DATA/train.de (--pretokenized: as it is)

Fill is the fraction of tokens that are not padding, over an epoch. The rate is that of `data.batches.prefetch` with
nothing else to do. Consumption is a training step of the base model on this machine, on such a batch; beside it stands
the 1.08M tokens/s that base takes on one H200 at half of its peak.
"""

import pathlib
import tempfile
import time

from attention_zoo import files
from benchmarks import common

ACCELERATOR = 1.08e6  # target tokens/s


def make_config(name, directory, pretokenized, tiny):
  from attention_zoo.configs import quickstart, transformer_base

  config = transformer_base.get_config()
  if name == "phrasebook":
    config.data.update(quickstart.get_config().data)
  else:
    config.data.update(
      source="text", dir=str(directory), dev_split="train", test_split="train",
      tokenized=pretokenized, vocab_size=10000, row_length=128,
    )  # fmt: skip
  config.data.update(batch_tokens=1024 if tiny else 24576)
  return config


def measure(config, workdir, batching, count, rounds):
  """(batches, source fill, target fill, spread of the target tokens/s over `rounds` times `count` batches)."""
  from attention_zoo import tasks

  config.data.batching = batching
  task = tasks.make(config, workdir)
  task.claim()
  batches = task.batches
  return batches, *batches.fill(), common.spread([rate(batches, count) for _ in range(rounds)])


def rate(batches, count):
  """Target tokens/s that are not padding, of `prefetch` after the batches that it had read ahead."""
  from attention_zoo.data.batches import prefetch

  iterator = prefetch(batches, 0)
  for _ in range(32):  # what was read ahead is used up
    next(iterator)
  start = time.perf_counter()
  tokens = 0
  for _ in range(count):
    batch = next(iterator)
    tokens += int((batch["target_segments"] > 0).sum())
  seconds = time.perf_counter() - start
  iterator.close()
  return tokens / seconds


def consumption(config, batches, rounds):
  """Target tokens/s of the training step of the base model, on the first rows of a batch."""
  from benchmarks import train_step

  config = config.copy_and_resolve_references()
  batch = {name: x[:16] for name, x in batches[0].items()}
  config.model.update(dtype="float32", matmul_dtype="float32")
  _, step = train_step.make_step(config, batch)
  seconds = common.alternate({"step": step}, rounds)["step"]
  return float((batch["target_segments"] > 0).sum()) / common.spread(seconds)[1]


def main(argv=None):
  options = common.parser(__doc__)
  options.add_argument("--dir", type=files.expand, help="directory of parallel text: train.en, train.de")
  options.add_argument("--pretokenized", action="store_true", help="the text in --dir is tokenized already")
  options.add_argument("--devices", type=int, default=common.cores())
  arguments = options.parse_args(argv)
  common.prepare(arguments.devices)
  settings = {name: value for name, value in vars(arguments).items() if name != "out"}
  settings["dir"] = pathlib.Path(arguments.dir).name if arguments.dir else ""  # what it holds, not where it lies
  results = {"environment": common.environment(), "settings": settings, "data": {}}
  rows, notes, used = [], [], None
  for name in ("phrasebook", *(["text"] if arguments.dir else [])):
    with tempfile.TemporaryDirectory() as cache:
      config = make_config(name, arguments.dir, arguments.pretokenized, arguments.tiny)
      for batching in ("packed", "bucketed"):
        found = measure(config, cache, batching, 64 if arguments.tiny else 256, arguments.rounds)
        batches, source_fill, target_fill, rates = found
        if used is None and not arguments.tiny:
          used = consumption(config, batches, arguments.rounds)
        results["data"][f"{name}, {batching}"] = {
          "fill": [source_fill, target_fill], "target_tokens_per_second": rates, "consumed": used
        }  # fmt: skip
        rows.append((
          name, batching, f"{source_fill:.2%}", f"{target_fill:.2%}",
          f"{rates[1]:,.0f} ({rates[0]:,.0f} to {rates[2]:,.0f})",
          f"{rates[1] / used:,.0f}" if used else "not run", f"{rates[1] / ACCELERATOR:.1f}",
        ))  # fmt: skip
  if used:
    notes.append(f"base training step on this machine: {used:,.0f} target tokens/s")
  columns = (
    "data", "batches", "source fill", "target fill", "target tokens/s: median (min to max)",
    "x step here", "x H200 at 50 %",
  )  # fmt: skip
  common.publish("pipeline", "Input pipeline", columns, rows, notes, results, arguments.out)


if __name__ == "__main__":
  main()
