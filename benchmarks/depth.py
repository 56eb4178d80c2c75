"""Seconds to compile a training step, its time and its memory by depth, with layers traced alike and as a loop.

  python -m benchmarks.depth [--layers=2,6,12 --rows=8 --length=64]

The base model with so many layers a side, with `model.scan_layers` and without. One process for all: each program is
compiled once; where JAX_COMPILATION_CACHE_DIR is set, the times are those of reading it.
"""

from benchmarks import common, train_step


def parse(argv):
  options = common.parser(__doc__)
  options.add_argument("--layers", default="2,6,12", help="layers a side (default: %(default)s)")
  options.add_argument("--rows", type=int, default=8)
  options.add_argument("--length", type=int, default=64)
  return options.parse_args(argv)


def main(argv=None):
  arguments = parse(argv)
  common.prepare(1)
  import jax

  results = {"environment": common.environment(), "runs": []}
  rows = []
  for layers in map(int, arguments.layers.split(",")):
    for scan in (False, True):
      config = train_step.make_config(arguments.tiny, False, 0.1, arguments.rows, arguments.length)
      config.model.update(num_encoder_layers=layers, num_decoder_layers=layers, scan_layers=scan)
      batch = train_step.random_batch(config.data.vocab_size, arguments.rows, arguments.length)
      _, run, compiling, program = train_step.compile_step(config, batch)
      step = common.alternate({"step": lambda run=run: jax.block_until_ready(run())}, arguments.rounds)["step"]
      memory = program.memory_analysis().temp_size_in_bytes
      results["runs"].append(
        {"layers": layers, "scan_layers": scan, "compile_s": compiling, "step_s": step, "temporary_bytes": memory}
      )
      rows.append(
        (str(layers), str(scan), f"{compiling:.1f}", f"{common.spread(step)[1] * 1e3:,.0f}", f"{memory / 2**20:,.0f}")
      )
  columns = ("layers a side", "scan_layers", "trace and compile, s", "step, ms", "temporaries, MiB")
  title = f"Depth, base, {arguments.rows} x {arguments.length} tokens a side"
  common.publish("depth", title, columns, rows, [], results, arguments.out)


if __name__ == "__main__":
  main()
