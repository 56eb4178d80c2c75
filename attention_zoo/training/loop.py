"""The one training loop. It knows no model: it sees a task object.

A task has
  init(rng) -> params
    nested dict of float32 arrays
  loss(params, batch, rng) -> (loss_sum, sums)
    rng None = no dropout. sums: dict of float32 scalars that add over batches, with "weight" (number of
    target tokens), "loss", and for translation "nll" and "correct". Rows of zeros must add nothing.
  train_batches(start_step, parts, count) -> Iterator[dict of numpy]
    of the `count` equal parts of each step's rows, those of this process; content depends on the step alone
  eval_batches(split) -> Iterable[dict of numpy]
    all rows
  batch_shapes() -> dict of jax.ShapeDtypeStruct
    of a global training batch

The loop minimises loss_sum / weight of the global batch. Exit codes: 75 after SIGTERM, 130 after Ctrl-C, 129 after
a closed terminal, with everything saved: the same command goes on; 3 when too many steps in a row were not finite.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from attention_zoo.training import sharding, stopping
from attention_zoo.training.checkpoints import Checkpoints
from attention_zoo.training.metrics import Meter, Metrics, summarize
from attention_zoo.training.optimizer import make_optimizer
from attention_zoo.training.schedule import make_schedule
from attention_zoo.training.workdir import prepare_workdir


class State(NamedTuple):
  """All that training needs to go on. steps: finished ones; nonfinite: those of them that were skipped."""

  params: Any
  opt_state: Any
  steps: jax.Array
  nonfinite: jax.Array
  nonfinite_in_row: jax.Array


class Diverged(SystemExit):
  """Too many steps in a row were not finite. Exit code 3."""

  def __init__(self, message):
    super().__init__(3)
    self.message = message

  def __str__(self):
    return self.message


def abstract_state(task, optimizer, rules, mesh):
  """The shapes, types and places of the whole training state, as a State of jax.ShapeDtypeStruct."""
  state = jax.eval_shape(functools.partial(init_state, task, optimizer, seed=0))
  params = sharding.shardings(rules, state.params, mesh)
  places = State(
    params=params,
    opt_state=sharding.optimizer_shardings(state.params, params, state.opt_state, mesh),
    steps=NamedSharding(mesh, P()),
    nonfinite=NamedSharding(mesh, P()),
    nonfinite_in_row=NamedSharding(mesh, P()),
  )
  return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state, places)


def init_state(task, optimizer, seed) -> State:
  params = task.init(jax.random.key(seed))
  # Three arrays and not one: the state is donated, and no buffer can be given away twice.
  return State(params, optimizer.init(params), jnp.zeros((), int), jnp.zeros((), int), jnp.zeros((), int))


def make_train_step(task, optimizer, config, abstract, mesh):
  """jit of (state, batch, stop) -> (state, metrics), its state donated.

  stop: `sharding.flags` of the exit code that each process was told to end with, or 0; metrics["stop"]: the largest.
  """
  accumulate = config.train.accumulate
  value_and_gradient = jax.value_and_grad(task.loss, has_aux=True)

  def sums_and_gradients(params, batch, rng):
    if accumulate == 1:
      (_, sums), gradients = value_and_gradient(params, batch, rng)
      return sums, gradients

    def micro_batches(rows):
      # Every accumulate-th row: each device keeps its own rows, where a split into blocks would move them.
      rows = rows.reshape(rows.shape[0] // accumulate, accumulate, *rows.shape[1:]).swapaxes(0, 1)
      return jax.lax.with_sharding_constraint(rows, NamedSharding(mesh, P(None, sharding.BATCH_AXES)))

    def add(totals, micro):
      index, rows = micro
      (_, sums), gradients = value_and_gradient(params, rows, jax.random.fold_in(rng, index))
      return jax.tree.map(jnp.add, totals, (sums, gradients)), None

    micro = (jnp.arange(accumulate), jax.tree.map(micro_batches, batch))
    first = jax.tree.map(lambda x: x[0], micro)
    (_, sums), gradients = jax.eval_shape(value_and_gradient, params, first[1], rng)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (sums, gradients))
    return jax.lax.scan(add, zeros, micro)[0]

  def step(state, batch, stop):
    rng = jax.random.fold_in(jax.random.key(config.train.seed), state.steps)
    sums, gradients = sums_and_gradients(state.params, batch, rng)
    gradients = jax.tree.map(lambda g: g / sums["weight"], gradients)
    # One pass over the gradients gives their norm and the first leaf that is not finite; last comes the loss.
    squares = jnp.stack([jnp.sum(jnp.square(g.astype(jnp.float32))) for g in jax.tree.leaves(gradients)])
    bad = ~jnp.isfinite(jnp.append(squares, sums["loss"]))
    finite = ~jnp.any(bad)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    params, opt_state = jax.tree.map(
      lambda new, old: jnp.where(finite, new, old), (params, opt_state), (state.params, state.opt_state)
    )
    new = State(
      params=params,
      opt_state=opt_state,
      steps=state.steps + 1,
      nonfinite=state.nonfinite + ~finite,
      nonfinite_in_row=jnp.where(finite, 0, state.nonfinite_in_row + 1),
    )
    metrics = {
      "sums": sums,
      "gradient_norm": jnp.sqrt(jnp.sum(squares)),
      "first_bad": jnp.where(finite, -1, jnp.argmax(bad)),
      "nonfinite": new.nonfinite,
      "nonfinite_in_row": new.nonfinite_in_row,
      "stop": jnp.max(stop),
    }
    return new, metrics

  places = jax.tree.map(lambda x: x.sharding, abstract)
  rows = sharding.batch_sharding(mesh)
  return jax.jit(
    step,
    in_shardings=(places, rows, NamedSharding(mesh, P(sharding.AXES))),
    out_shardings=(places, NamedSharding(mesh, P())),
    donate_argnums=0,
  )


def make_evaluate(task, mesh):
  """evaluate(params, split) -> summary over all batches of the split, without dropout; {} if it has none."""

  @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, P()))
  def sums_of(params, batch):
    return task.loss(params, batch, None)[1]

  def evaluate(params, split):
    totals = None
    for batch in task.eval_batches(split):
      # Filled up with rows of zeros, which add nothing, to what the devices can share.
      rows = next(iter(batch.values())).shape[0]
      padding = -rows % sharding.batch_devices(mesh)
      local = {
        name: sharding.local_rows(np.pad(x, ((0, padding),) + ((0, 0),) * (x.ndim - 1)), mesh)
        for name, x in batch.items()
      }
      with jax.set_mesh(mesh):
        sums = sums_of(params, sharding.put_batch(local, mesh))
      totals = sums if totals is None else jax.tree.map(jnp.add, totals, sums)
    return summarize(jax.device_get(totals)) if totals else {}

  return evaluate


def train(task, config, workdir, quiet=False) -> State:
  """Trains until config.train.steps, from the newest checkpoint in workdir if there is one.

  Raises UserError for a workdir of another config, a mesh, rule or batch that does not fit, and storage that
  cannot be written; `stopping.Stopped` after a signal to any process; Diverged (exit code 3).
  """
  with stopping.listen() as told:
    prepare_workdir(workdir, config)
    mesh = sharding.make_mesh(config.mesh)
    for name, shape in task.batch_shapes().items():
      sharding.check_rows(name, shape.shape, mesh, config.train.accumulate)
    optimizer = make_optimizer(config.optimizer, config.model.d_model)
    abstract = abstract_state(task, optimizer, sharding.rules_of(config.mesh), mesh)
    checkpoints = Checkpoints(workdir, config.train.keep, metadata={"config": config.to_dict()})
    try:
      restored = checkpoints.restore(abstract)
      if restored:
        state, start = restored
      else:
        places = jax.tree.map(lambda x: x.sharding, abstract)
        init = functools.partial(init_state, task, optimizer, config.train.seed)
        state, start = jax.jit(init, out_shardings=places)(), 0
      metrics = Metrics(workdir, start, config.train.steps, enabled=jax.process_index() == 0, quiet=quiet)
      try:
        if start:
          metrics.say(f"resuming from step {start}")
        with jax.set_mesh(mesh):
          return _run(task, config, mesh, optimizer, abstract, state, start, checkpoints, metrics, told)
      finally:
        metrics.close()
    finally:
      checkpoints.close()


def _run(task, config, mesh, optimizer, abstract, state, start, checkpoints, metrics, told):
  train_step = make_train_step(task, optimizer, config, abstract, mesh)
  evaluate = make_evaluate(task, mesh)
  schedule = make_schedule(config.optimizer, config.model.d_model)
  names = [sharding.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(abstract.params)]
  batches = iter(task.train_batches(start, *sharding.process_rows(mesh)))
  for shapes in task.train_shapes():
    for name, shape in shapes.items():
      sharding.check_rows(name, shape, mesh, config.train.accumulate)
  go = sharding.flags(mesh, 0)
  meter = Meter()

  def account(step, fetched):
    """Takes in the metrics of a finished step; returns the exit code to stop with, or 0."""
    fetched = jax.device_get(fetched)
    bad = int(fetched["first_bad"])
    if bad >= 0:
      what = f"the gradient of {names[bad]}" if bad < len(names) else "the loss"
      metrics.say(
        f"step {step} was skipped: {what} is not finite ({int(fetched['nonfinite'])} such steps so far)"
      )
      if fetched["nonfinite_in_row"] >= config.train.max_nonfinite:
        message = (
          f"stopped at step {step}: {int(fetched['nonfinite_in_row'])} steps in a row were not finite "
          f"(config.train.max_nonfinite); the first bad value is in {what}. "
          f"Checkpoints: {checkpoints.steps()}"
        )
        metrics.say(message)
        raise Diverged(message)
    else:
      meter.add(fetched["sums"])
    metrics.advance(step)
    if step % config.train.log_every == 0 or step == config.train.steps:
      rate = float(schedule(jnp.float32(step - 1 - fetched["nonfinite"])))
      extra = {name: float(fetched[name]) for name in ("gradient_norm", "nonfinite")}
      metrics.write(step, "train", meter.take() | extra | {"learning_rate": rate})
    return int(fetched["stop"])

  def on_dev(step):
    if summary := evaluate(state.params, "dev"):
      metrics.write(step, "dev", summary)

  if start and start % config.train.eval_every == 0 and not metrics.has(start, "dev"):
    on_dev(start)  # told to stop at this step, the run had saved it, and left this to the next start
  pending, stop, step = None, 0, start
  while step < config.train.steps and not stop:
    batch = sharding.put_batch(next(batches), mesh, config.train.accumulate)
    told_here = sharding.flags(mesh, told.code) if told.code else go
    with jax.transfer_guard("disallow"):
      state, dispatched = train_step(state, batch, told_here)
    told.begun = True
    # Only now, with the device busy again, does the host wait for the step before.
    stop = account(*pending) if pending else 0
    step += 1
    pending = (step, dispatched)
    last = step == config.train.steps
    if last or stop or step % config.train.eval_every == 0 or step % config.train.checkpoint_every == 0:
      stop, pending = account(*pending) or stop, None
      if last or (step % config.train.eval_every == 0 and not stop):
        on_dev(step)
      if last or stop or step % config.train.checkpoint_every == 0:
        checkpoints.save(step, state)
      meter.pause()
  checkpoints.wait()
  if stop and step < config.train.steps:
    metrics.say(f"told to stop: step {step} is saved; the same command resumes from there")
    raise stopping.Stopped(stop)
  return state
