"""The one training loop. It knows no model: it sees a `protocols.Task`.

It minimises value / weight of the global batch. Exit codes: 75 after SIGTERM, 130 after Ctrl-C, 129 after
a closed terminal, with everything saved: the same command goes on; 3 when too many steps in a row were not finite.
"""

import functools
import json

import jax
import jax.numpy as jnp

from attention_zoo.protocols import Initial, Task
from attention_zoo.training import distributed, sharding, stopping
from attention_zoo.training.best import Best
from attention_zoo.training.checkpoints import Checkpoints
from attention_zoo.training.init_from import init_from, with_known
from attention_zoo.training.metrics import Meter, Metrics
from attention_zoo.training.optimizer import make_optimizer
from attention_zoo.training.schedule import check_width, make_schedule
from attention_zoo.training.step import (
  State,
  abstract_state,
  as_stored,
  dev_names,
  init_state,
  make_evaluate,
  make_train_step,
  on_first_device,
)
from attention_zoo.training.workdir import claimed


class Diverged(SystemExit):
  """Too many steps in a row were not finite. Exit code 3."""

  def __init__(self, message):
    super().__init__(3)
    self.message = message

  def __str__(self):
    return self.message


def train(task: Task, config, workdir, quiet=False, trackers=()) -> State:
  """Trains until config.train.steps, from the newest checkpoint in workdir if there is one.

  trackers: functions of (step, split, values) that are handed every record on process 0 (`trackers.py`).
  Raises UserError for a workdir of another config, a mesh, rule or batch that does not fit, and storage that
  cannot be written; `stopping.Stopped` after a signal to any process; Diverged (exit code 3).
  """
  with stopping.listen() as told, claimed(workdir, config, told, task.defaults) as lock:
    mesh = sharding.make_mesh(config.mesh)
    for name, shape in task.batch_shapes().items():
      sharding.check_rows(name, shape.shape, mesh, config.train.accumulate)
    optimizer = make_optimizer(config.optimizer)
    check_width(config)
    abstract = abstract_state(task, optimizer, config, mesh)
    identity = {"config": config.to_dict(), "text": task.fingerprint()}
    checkpoints = Checkpoints(workdir, config.train.keep, metadata=identity)
    try:
      restored = checkpoints.restore(abstract)
      if restored:
        state, start = as_stored(restored[0]), restored[1]
      else:
        places = jax.tree.map(lambda x: x.sharding, abstract)
        init = functools.partial(init_state, task, optimizer, config)
        state, start = jax.jit(init, out_shardings=places)(), 0
        if known := task.known_params():
          params = with_known(state.params, known, mesh)
          state = state._replace(params=params, ema=jax.tree.map(jnp.copy, params) if state.ema else {})
        if config.train.init_from:
          task.claim()  # its vocabulary is held against that of the other run
          (params, variables), taken = init_from(
            Initial(state.params, state.variables), config, workdir, task.MEANINGS
          )
          state = state._replace(
            params=params, variables=variables, ema=jax.tree.map(jnp.copy, params) if state.ema else {}
          )
      first = jax.process_index() == 0
      metrics = Metrics(workdir, start, config.train.steps, enabled=first, quiet=quiet, trackers=trackers)
      try:
        if 0 < start < config.train.steps:
          metrics.say(f"resuming from step {start}")
        elif not start and config.train.init_from:
          metrics.say(f"begun with {config.train.init_from}; {taken}")
        with jax.set_mesh(mesh):
          best = Best(workdir, config.train, dev_names(task, abstract), start)
          return _run(
            task, config, mesh, optimizer, abstract, state, start, checkpoints, metrics, best, told, lock
          )  # fmt: skip
      finally:
        metrics.close()
    finally:
      checkpoints.close()


def _run(task, config, mesh, optimizer, abstract, state, start, checkpoints, metrics, best, told, lock):
  train_step = make_train_step(task, optimizer, config, abstract, mesh)
  evaluate = make_evaluate(task, mesh)
  schedule = make_schedule(config.optimizer)
  names = [sharding.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(abstract.params)]
  batches = iter(task.train_batches(start, *sharding.process_rows(mesh)))
  for shapes in task.train_shapes():
    for name, shape in shapes.items():
      sharding.check_rows(name, shape, mesh, config.train.accumulate)
  go = sharding.flags(mesh, 0)
  meter = Meter(task.summarize, f"{task.unit}_per_second")

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
    """Whether the step is the best so far."""
    params = state.ema or state.params
    summary = evaluate(params, state.variables, "dev")
    if not summary:
      return False
    count = config.train.dev_samples if task.has_dev_samples else 0
    # Sharded parameters are put together only for who has asked for scores: they may not fit.
    whole = task.dev_score_names or count and all(x.is_fully_replicated for x in jax.tree.leaves(params))
    copies = on_first_device((params, state.variables), mesh) if whole else None
    with jax.set_mesh(sharding.local_mesh()):  # each process computes these by itself
      if task.dev_score_names:
        summary |= task.dev_scores(*copies)
      metrics.write(step, "dev", summary)
      if count and whole:
        metrics.show(step, "dev", functools.partial(task.dev_samples, *copies, count))
    if best.name:  # scores that each computes by itself may differ in their last digits, but not what all do next
      summary = json.loads(distributed.from_first(json.dumps({name: float(x) for name, x in summary.items()})))
    return best.take(step, summary)

  if start and start % config.train.eval_every == 0 and not metrics.has(start, "dev"):
    on_dev(start)  # told to stop at this step, the run had saved it, and left this to the next start
  checkpoints.best = best.step
  pending, stop, step = None, 0, start
  done = start % config.train.eval_every == 0 and best.exhausted(start)
  while step < config.train.steps and not stop and not done:
    batch = sharding.put_batch(next(batches), mesh, config.train.accumulate)
    told.code = told.code or (2 if metrics.failure else 0)
    told_here = sharding.flags(mesh, told.code) if told.code else go
    with jax.transfer_guard("disallow"):
      state, dispatched = train_step(state, batch, told_here)
    told.begun = True
    lock.check()
    # Only now, with the device busy again, does the host wait for the step before.
    stop = account(*pending) if pending else 0
    step += 1
    pending = (step, dispatched)
    last = step == config.train.steps
    if last or stop or step % config.train.eval_every == 0 or step % config.train.checkpoint_every == 0:
      stop, pending = account(*pending) or stop, None
      improved = on_dev(step) if last or (step % config.train.eval_every == 0 and not stop) else False
      checkpoints.best = best.step
      done = (last or step % config.train.eval_every == 0) and best.exhausted(step)
      last |= done
      if last or stop or improved or step % config.train.checkpoint_every == 0:
        lock.check(now=True)
        checkpoints.save(step, as_stored(state))
      meter.pause()
  checkpoints.wait()
  if start >= config.train.steps:
    metrics.say(f"nothing to do: step {start} is trained already, and config.train.steps = {config.train.steps}")
  if done and step < config.train.steps:
    metrics.say(
      f"ended at step {step}: dev {best.name} has not been better than at step {best.step} for "
      f"{config.train.patience} evaluations (config.train.patience)"
    )
  if metrics.failure:
    raise metrics.failure
  if stop and step < config.train.steps:
    metrics.say(f"told to stop: step {step} is saved; the same command resumes from there")
    raise stopping.Stopped(stop)
  return state
