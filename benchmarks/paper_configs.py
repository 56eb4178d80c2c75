"""Does every config of a paper's size fit on a TPU slice, and how fast can a step be there? By the compiler.

  python -m benchmarks.paper_configs [--only=REGEX] [--again]

Compiles the training step of each config, on 8 chips of v5e, or on the slice that a larger model needs (minutes each;
nothing is run, no TPU is needed, but libtpu is). What was found is kept in benchmarks/paper_configs.json: the command
goes on where it was stopped, and --again compiles anew. It writes benchmarks/paper_configs.md.
"""

import argparse
import json
import math
import pathlib
import re
import subprocess
import sys
import time

from attention_zoo import files

HERE = pathlib.Path(__file__).parent
TOPOLOGY = "v5e:2x4"
FSDP = {"mesh.rules": "fsdp", "mesh.fsdp": 8}
# Config: what it needs beside itself. "topology": another slice.
CONFIGS = {
  "seq2seq/sutskever_enfr": {}, "seq2seq/bahdanau_enfr": {}, "seq2seq/luong_ende": {}, "seq2seq/gnmt_ende": {},
  "seq2seq/deep_att_enfr": {}, "seq2seq/moe_lstm_ende": {}, "translation/bytenet_ende": {},
  "translation/conv_s2s_ende": {}, "transformer_base": {}, "transformer_big": {}, "transformer_base_relative": {},
  "language/lm1b_base": {}, "music/music_transformer": {}, "music/transformer": {}, "music/performance_rnn": {},
  "image/image_transformer_cifar10": {}, "image/image_transformer_cifar10_2d": {},
  "image/image_transformer_cifar10_dmol": {}, "image/image_transformer_celeba_sr": {}, "image/pixel_rnn_cifar10": {},
  "image/gated_pixelcnn_cifar10": {}, "image/pixelcnn_pp_cifar10": {}, "image/pixel_snail_cifar10": {},
  "image/resnet_sr_celeba": {}, "image/pixel_recursive_sr_celeba": {}, "image/srez_gan_celeba": {},
  "vision/nonlocal_resnet50": {}, "vision/sagan_imagenet": {}, "language/gpt": {}, "language/gpt2": {},
  "language/gpt2_medium": {}, "language/gpt2_large": FSDP, "language/gpt2_xl": FSDP,
  "language/megatron_8_3b": {"topology": "v5p:2x2x2"}, "pretraining/bert_base": {},
  "pretraining/bert_large": {}, "pretraining/roberta_large": {}, "pretraining/xlnet_large": {},
  "pretraining/bilm_1b": {}, "pretraining/ulmfit_wikitext103": {},
}  # fmt: skip


def compile_config(name) -> dict:
  """What `attention_zoo.compile` says of a config, and how many parameters it has."""
  import importlib

  import jax

  jax.config.update("jax_platforms", "cpu")
  from attention_zoo import tasks
  from attention_zoo.training import aot

  options = dict(CONFIGS[name])
  topology = options.pop("topology", TOPOLOGY)
  config = importlib.import_module(f"attention_zoo.configs.{name.replace('/', '.')}").get_config()
  config.update_from_flattened_dict(options)
  tasks.validate(config)
  devices, kind = aot.topology_devices(topology, 1)
  task = tasks.make(config, ".")
  params = jax.eval_shape(task.init, jax.random.key(0)).params
  step = aot.compile_step(task, config, devices, aot.CHIPS[kind])
  parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
  found = {"parameters": parameters, "rules": config.mesh.rules, "topology": topology}
  return found | aot.report(step, aot.CHIPS[kind])


def row(name, found) -> str:
  if found is None:
    return f"| `{name}` | not compiled yet |"
  if "error" in found:
    return f"| `{name}` | {found['error']} |"
  gib = lambda size: f"{size / 2**30:.2f}"
  cells = [
    f"`{name}`", f"{found['parameters']:,}", f"{found['topology']}, {found['rules']}",
    f"{found['units']:,} {found['unit']}", gib(found["parameter_bytes"] + found["optimizer_bytes"]),
  ]  # fmt: skip
  if found["fits"]:
    bound = max(found["seconds"], key=found["seconds"].get)
    cells += [gib(found["activation_bytes"]), f"{gib(found['peak_bytes'])} of {gib(found['hbm_bytes'])}"]
    cells += [bound, f"{1e3 * found['step_seconds']:.1f}", f"{found['mfu']:.0%}"]
    if found["unknown_loops"]:
      cells[-1] += f"; {found['unknown_loops']} loops of unknown length, counted once"
  else:
    cells.append("does not fit: " + found["complaint"].partition(". ")[0])
  return f"| {' | '.join(cells)} |"


def report(known) -> str:
  """paper_configs.md."""
  lines = "\n".join(row(name, known.get(name)) for name in CONFIGS)
  return f"""# Configs of the papers' sizes, compiled for TPU

**Predictions from the compiler: nothing here has been run.** The training step of each config with the batch that it
names, shared by all chips of the slice; GiB of one chip. A step takes at least as long as the slowest of arithmetic,
memory and links at its published peak, as in [scaling.md](scaling.md): MFU is the most there can be. Steps of recurrent
models wait for one another, which no peak tells: theirs are farthest from it.
`python -m benchmarks.paper_configs` makes this table, `attention_zoo.compile` one line of it.

| config | parameters | slice, rules | a step | state | activations | peak | bound by | step, ms | MFU |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{lines}
"""


def main(argv=None):
  options = argparse.ArgumentParser(prog="python -m benchmarks.paper_configs", description=__doc__.split("\n")[0])
  options.add_argument("--only", default="", help="a regular expression: compiles these configs only")
  options.add_argument("--again", action="store_true", help="compiles what is known too")
  options.add_argument("--minutes", type=float, default=20, help="that one config may take")
  options.add_argument("--out", type=files.expand, default=HERE, help="a directory")
  options.add_argument("--child", metavar="NAME", help=argparse.SUPPRESS)
  arguments = options.parse_args(argv)
  if arguments.child:
    print(json.dumps(compile_config(arguments.child)))
    return
  path = arguments.out / "paper_configs.json"
  known = json.loads(path.read_text()) if path.exists() else {}
  todo = [name for name in CONFIGS if re.search(arguments.only, name) and (arguments.again or name not in known)]
  for i, name in enumerate(todo):
    print(f"{i + 1} of {len(todo)}: {name}", flush=True)
    start = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.paper_configs", "--child", name]
    # A process of its own: a compiler that runs out of memory takes nothing else with it.
    try:
      done = subprocess.run(command, capture_output=True, text=True, timeout=60 * arguments.minutes)
      lines = done.stdout.splitlines()
      found = json.loads(lines[-1]) if not done.returncode and lines else {"error": _last(done)}
    except subprocess.TimeoutExpired:
      found = {"error": f"not compiled within {arguments.minutes:g} minutes"}
    known[name] = found
    files.write_text(path, json.dumps(known, indent=1, sort_keys=True) + "\n")
    print(row(name, found), f"{time.monotonic() - start:.0f} s", flush=True)
  files.write_text(arguments.out / "paper_configs.md", report(known))


def _last(done):
  lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
  return f"failed: {lines[-1][:200]}".replace("|", "/")


if __name__ == "__main__":
  main()
