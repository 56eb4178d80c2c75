"""A whole training step of the base model (forward, smoothed loss, backward, Adam) beside PyTorch eager.

  python -m benchmarks.train_step [--rows=32 --length=64 --rounds=3 --devices=1]

The step is the one of `training/step.py`; the peer is `benchmarks/peer_torch.py` with the same weights. First their
losses and gradient norms are compared. One simulated device a core pays for small models; base has so many parameters
that one device with all cores is faster.
"""

import functools
import tempfile
import time

from benchmarks import common

OURS, ROUNDED, PEER = "attention_zoo", "attention_zoo, bfloat16 products", "PyTorch eager"
VARIANTS = (  # name, products in bfloat16, dropout
  ("float32", False, 0.0),
  ("float32, dropout 0.1", False, 0.1),
  ("bfloat16 products", True, 0.0),
)


def make_config(tiny, bfloat16, dropout, rows, length):
  """The published base config with float32 activations."""
  from attention_zoo.configs import transformer_base

  config = transformer_base.get_config()
  config.model.update(dtype="float32", matmul_dtype="bfloat16" if bfloat16 else "float32", dropout=dropout)
  config.data.update(batch_tokens=rows * length, row_length=length)
  if tiny:
    config.model.update(
      d_model=32, d_ff=64, num_heads=2, d_k=16, d_v=16, num_encoder_layers=1, num_decoder_layers=1
    )
    config.data.vocab_size = 101
  return config


def random_batch(vocab_size, rows, length):
  """One sentence a row, without padding."""
  import numpy as np

  tokens = np.random.default_rng(0).integers(4, vocab_size, (2, rows, length), dtype=np.int32)
  ones = np.ones((rows, length), np.int32)
  positions = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
  inputs = np.concatenate([np.full((rows, 1), 1, np.int32), tokens[1][:, :-1]], 1)
  return dict(
    source=tokens[0], source_segments=ones, source_positions=positions,
    inputs=inputs, targets=tokens[1], target_segments=ones, target_positions=positions,
  )  # fmt: skip


def compile_step(config, batch):
  """(params at the start as NumPy arrays, run, seconds to trace and compile, the compiled program).

  run starts a step and returns its metrics, without waiting.
  """
  params, compiled = _begin(config, batch)
  return params, *compiled()


def _begin(config, batch):
  """(params at the start, function that compiles and returns the rest of `compile_step`)."""
  import jax
  import numpy as np

  from attention_zoo import tasks
  from attention_zoo.training import sharding
  from attention_zoo.training import step as step_lib
  from attention_zoo.training.optimizer import make_optimizer

  task = tasks.make(config, tempfile.gettempdir())
  mesh = sharding.make_mesh(config.mesh)
  optimizer = make_optimizer(config.optimizer)
  abstract = step_lib.abstract_state(task, optimizer, config, mesh)
  places = jax.tree.map(lambda x: x.sharding, abstract)
  state = jax.jit(lambda: step_lib.init_state(task, optimizer, config), out_shardings=places)()
  params = jax.tree.map(np.array, state.params)  # copies: the state is donated
  on_device, go = sharding.put_batch(batch, mesh), sharding.flags(mesh, 0)

  def compiled():
    start = time.perf_counter()
    with jax.set_mesh(mesh):
      program = step_lib.make_train_step(task, optimizer, config, abstract, mesh).lower(state, on_device, go).compile()
    took = time.perf_counter() - start

    def run():
      nonlocal state
      state, metrics = program(state, on_device, go)
      return metrics

    return run, took, program

  return params, compiled


def make_step(config, batch):
  """(params at the start, function that takes one step and returns (loss per token, norm of the gradient)).

  The first step compiles.
  """
  params, compiled = _begin(config, batch)
  run = functools.cache(lambda: compiled()[0])

  def step():
    metrics = run()()
    value, weight = metrics["sums"]["loss"]
    return float(value / weight), float(metrics["gradient_norm"])

  return params, step


def make_peer(config, params, batch):
  """PyTorch's step, or None where it is not installed."""
  try:
    from benchmarks import peer_torch
  except ModuleNotFoundError:
    return None
  from attention_zoo import grammar
  from attention_zoo.models.translation.transformer import Config
  from attention_zoo.training.schedule import make_schedule

  fields = {name: value for name, value in config.model.items() if name != "name"}
  schedule = make_schedule(config.optimizer)
  return peer_torch.make_step(
    Config(vocab_size=config.data.vocab_size, **fields), params, batch,
    label_smoothing=config.train.label_smoothing, learning_rate=lambda step: float(schedule(step)),
    **grammar.parse(config.optimizer.name)[1], bfloat16=config.model.matmul_dtype == "bfloat16",
  )  # fmt: skip


def main(argv=None):
  options = common.parser(__doc__)
  options.add_argument("--rows", type=int, default=32)
  options.add_argument("--length", type=int, default=64, help="tokens of a row, on each side")
  options.add_argument(
    "--devices", type=int, default=1, help="simulated devices that share the rows; each holds all parameters"
  )
  arguments = options.parse_args(argv)
  common.prepare(arguments.devices)
  results = {
    "environment": common.environment(),
    "settings": {name: value for name, value in vars(arguments).items() if name != "out"},
    "variants": {},
  }
  rows, notes = [], []
  for name, bfloat16, dropout in VARIANTS:
    config = make_config(arguments.tiny, bfloat16, dropout, arguments.rows, arguments.length)
    batch = random_batch(config.data.vocab_size, arguments.rows, arguments.length)
    params, ours = make_step(config, batch)
    sides = {OURS: ours}
    if not bfloat16:  # base rounds its products: that beside the same peer
      rounded = make_config(arguments.tiny, True, dropout, arguments.rows, arguments.length)
      sides[ROUNDED] = make_step(rounded, batch)[1]
    if peer := make_peer(config, params, batch):
      sides[PEER] = peer
    # The warm-up and the comparison are one: the first steps from the same weights.
    first = [{side: step() for side, step in sides.items()} for _ in range(2)]
    seconds = common.alternate(sides, arguments.rounds, warmup=0)
    tokens = arguments.rows * arguments.length
    results["variants"][name] = {"seconds": seconds, "first_steps": first}
    for side, rate, ratio in common.side_rows(seconds, tokens, OURS):
      rows.append((name, side, rate, ratio))
    if peer:
      # Relative errors of loss and gradient norm. At base's size the float32 gradients of either side are 1e-4 to 2e-4
      # away from PyTorch's in float64, so that no more agreement can be asked of them.
      pairs = list(zip(first[0][OURS], first[0][PEER], strict=True))
      errors = [abs(a - b) / abs(b) for a, b in pairs]
      second = abs(first[1][OURS][0] - first[1][PEER][0])
      results["variants"][name] |= {
        "ratio": common.ratios(seconds, OURS, PEER), "relative_errors": errors,
        "max_abs_error": max(abs(a - b) for a, b in pairs)
      }  # fmt: skip
      notes.append(
        f"{name}: first step loss and gradient norm {first[0][OURS]}, differing by "
        f"{errors[0]:.1e} and {errors[1]:.1e} of the peer's; loss of the second step by {second:.1e}"
        + (" (other dropout masks)" if dropout else "")
      )
      if ROUNDED in seconds:
        ratio = results["variants"][name]["ratio_bfloat16_products"] = common.ratios(seconds, ROUNDED, PEER)
        notes.append(
          f"{name}: {ROUNDED}: {ratio[1]:.2f} ({ratio[0]:.2f} to {ratio[2]:.2f}) times as fast as {PEER} in float32"
        )
      if not bfloat16 and not dropout and (errors[0] > 1e-6 or errors[1] > 2e-4):
        raise SystemExit(f"the sides do not compute the same: {first}")
    else:
      rows.append((name, PEER, "not run (torch is not installed)", ""))
  columns = ("variant", "side", "target tokens/s: median (min to max)", "times faster")
  title = f"Training step, base, {arguments.rows} x {arguments.length} tokens a side"
  common.publish("train_step", title, columns, rows, notes, results, arguments.out)


if __name__ == "__main__":
  main()
