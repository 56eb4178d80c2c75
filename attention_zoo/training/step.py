"""The state of training, and one step of it: gradients, optimizer, averages. Evaluation's step is here too.

Nothing here knows a model: everything goes through `protocols.Task`.
"""

import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from attention_zoo.errors import UserError
from attention_zoo.protocols import Task
from attention_zoo.training import sharding


class State(NamedTuple):
  """All that training needs to go on. steps: finished ones; nonfinite: those of them that were skipped.

  params, variables, carry: see `protocols`. ema: the moving average of params, {} where config.train.ema is 0.
  """

  params: Any
  variables: Any
  carry: Any
  opt_state: Any
  ema: Any
  steps: jax.Array
  nonfinite: jax.Array
  nonfinite_in_row: jax.Array


def as_stored(state: State) -> State:
  """The state as a checkpoint has it, and back: where there is a moving average, it lies in the place of params.

  So that whoever reads parameters, to use or to average them, gets what was evaluated.
  """
  return state._replace(params=state.ema, ema=state.params) if state.ema else state


def init_state(task: Task, optimizer, config) -> State:
  """The state before the first step, drawn from config.train.seed."""
  initial = task.init(jax.random.key(config.train.seed))
  rows = next(iter(task.batch_shapes().values())).shape[0]
  # Copies and not the same array twice: the state is donated, and no buffer can be given away twice.
  ema = jax.tree.map(jnp.copy, initial.params) if config.train.ema else {}
  count = lambda: jnp.zeros((), int)
  return State(
    params=initial.params,
    variables=initial.variables,
    carry=task.carry(rows),
    opt_state=optimizer.init(initial.params),
    ema=ema,
    steps=count(),
    nonfinite=count(),
    nonfinite_in_row=count(),
  )


def abstract_state(task: Task, optimizer, config, mesh) -> State:
  """The shapes, types and places of the whole training state, as a State of jax.ShapeDtypeStruct.

  Parameters lie where the rules say, their moments and averages with them, and carry by rows; the rest is replicated.
  """
  state = jax.eval_shape(functools.partial(init_state, task, optimizer, config))
  params = sharding.shardings(sharding.rules_of(config.mesh), state.params, mesh)
  everywhere = NamedSharding(mesh, P())
  places = State(
    params=params,
    variables=jax.tree.map(lambda _: everywhere, state.variables),
    carry=jax.tree.map(lambda _: sharding.batch_sharding(mesh), state.carry),
    opt_state=sharding.optimizer_shardings(state.params, params, state.opt_state, mesh),
    ema=params if state.ema else {},
    steps=everywhere,
    nonfinite=everywhere,
    nonfinite_in_row=everywhere,
  )
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state, places
  )


def sums_of(loss) -> dict:
  """name -> (sum, weight) of everything that is reported of a batch."""
  return {**loss.sums, "loss": (loss.value, loss.weight)}


def make_train_step(task: Task, optimizer, config, abstract, mesh):
  """jit of (state, batch, stop) -> (state, metrics), its state donated.

  stop: `sharding.flags` of the exit code that each process was told to end with, or 0; metrics["stop"]: the largest.
  """
  import optax  # here: evaluation and decoding need not wait for it

  accumulate = config.train.accumulate
  factors = learning_rate_factors(config, abstract.params)

  def objective(params, *rest):
    loss = task.loss(params, *rest)
    return loss.value, loss

  gradients_of = jax.grad(objective, has_aux=True)

  def loss_and_gradients(state, batch, rng):
    """(Loss, gradients of the sum over the batch)."""
    if accumulate == 1:
      gradients, loss = gradients_of(state.params, state.variables, state.carry, batch, rng, state.steps)
      return loss, gradients

    def split(rows):
      # Every accumulate-th row: each device keeps its own rows, where a split into blocks would move them.
      rows = rows.reshape(rows.shape[0] // accumulate, accumulate, *rows.shape[1:]).swapaxes(0, 1)
      return jax.lax.with_sharding_constraint(rows, NamedSharding(mesh, P(None, sharding.BATCH_AXES)))

    def join(rows):
      return rows.swapaxes(0, 1).reshape(-1, *rows.shape[2:])

    def add(totals, micro):
      (variables, *totals), (index, rows, carry) = totals, micro
      rng_of_micro = jax.random.fold_in(rng, index)
      gradients, loss = gradients_of(state.params, variables, carry, rows, rng_of_micro, state.steps)
      found = (loss.value, loss.weight, loss.sums, gradients)
      return (loss.variables, *jax.tree.map(jnp.add, tuple(totals), found)), loss.carry

    micro = (jnp.arange(accumulate), jax.tree.map(split, batch), jax.tree.map(split, state.carry))
    first = jax.tree.map(lambda x: x[0], micro)
    gradients, loss = jax.eval_shape(
      gradients_of, state.params, state.variables, first[2], first[1], rng, state.steps
    )
    zeros = lambda tree: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)
    start = (state.variables, *zeros((loss.value, loss.weight, loss.sums, gradients)))
    (variables, value, weight, sums, gradients), carry = jax.lax.scan(add, start, micro)
    found = loss._replace(
      value=value, weight=weight, sums=sums, variables=variables, carry=jax.tree.map(join, carry)
    )
    return found, gradients

  def scaled(updates, steps):
    """The updates, each times the learning-rate factors of its parameter."""

    def scale(path, update):
      name = sharding.path_name(path)
      factor = factors[name] * task.learning_rate_factor(name, steps)
      return update if isinstance(factor, float) and factor == 1.0 else (update * factor).astype(update.dtype)

    return jax.tree_util.tree_map_with_path(scale, updates)

  def step(state, batch, stop):
    rng = jax.random.fold_in(jax.random.key(config.train.seed, impl=config.train.random_bits), state.steps)
    loss, gradients = loss_and_gradients(state, batch, rng)
    gradients = jax.tree.map(lambda g: g / loss.weight, gradients)
    # One pass over the gradients gives their norm and the first leaf that is not finite; last comes the loss.
    squares = jnp.stack([jnp.sum(jnp.square(g.astype(jnp.float32))) for g in jax.tree.leaves(gradients)])
    bad = ~jnp.isfinite(jnp.append(squares, loss.value / loss.weight))
    finite = ~jnp.any(bad)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, scaled(updates, state.steps))
    decay = config.train.ema
    ema = jax.tree.map(lambda old, x: decay * old + (1 - decay) * x, state.ema, params) if decay else {}
    new = state._replace(
      params=params, variables=loss.variables, carry=loss.carry, opt_state=opt_state, ema=ema
    )
    new = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)  # or the step is skipped
    new = new._replace(
      steps=state.steps + 1,
      nonfinite=state.nonfinite + ~finite,
      nonfinite_in_row=jnp.where(finite, 0, state.nonfinite_in_row + 1),
    )
    metrics = {
      "sums": sums_of(loss),
      "gradient_norm": jnp.sqrt(jnp.sum(squares)),
      "first_bad": jnp.where(finite, -1, jnp.argmax(bad)),
      "nonfinite": new.nonfinite,
      "nonfinite_in_row": new.nonfinite_in_row,
      "stop": jnp.max(stop),
    }
    return new, metrics

  places = jax.tree.map(lambda x: x.sharding, abstract)
  rows = sharding.batch_sharding(mesh)
  # Left to itself, XLA adds up the gradient of an embedding by atomic operations on a GPU: two runs differed.
  exact = {"xla_gpu_exclude_nondeterministic_ops": True} if mesh.devices.flat[0].platform == "gpu" else None
  return jax.jit(
    step,
    compiler_options=exact,
    in_shardings=(places, rows, NamedSharding(mesh, P(sharding.AXES))),
    out_shardings=(places, NamedSharding(mesh, P())),
    donate_argnums=0,
  )


def learning_rate_factors(config, params) -> dict[str, float]:
  """config.train.learning_rate_factors as path -> factor; the first pattern found in a path counts.
  UserError for a bad one."""
  names = [sharding.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  factors = dict.fromkeys(names, 1.0)
  for entry in reversed(config.train.learning_rate_factors):
    try:
      pattern, factor = entry
      found = [name for name in names if re.search(pattern, name)]
      factors |= dict.fromkeys(found, float(factor))
    except (TypeError, ValueError, re.error) as error:
      raise UserError(
        f"config.train.learning_rate_factors: {entry!r} is not (pattern, factor): {error}"
      ) from error
    if not found:
      raise UserError(
        f"config.train.learning_rate_factors: {pattern!r} is in no parameter's path; they are {', '.join(names)}"
      )
  return factors


def make_evaluate(task: Task, mesh):
  """evaluate(params, variables, split) -> task.summarize of all batches of the split, without dropout;
  {} if it has none."""
  rows = sharding.batch_sharding(mesh)

  @functools.partial(jax.jit, out_shardings=(NamedSharding(mesh, P()), rows))
  def step(params, variables, carry, batch):
    loss = task.loss(params, variables, carry, batch, None, None)
    return sums_of(loss), loss.carry

  def evaluate(params, variables, split):
    totals = carry = None
    for batch in task.eval_batches(split):
      # Filled up with rows of zeros, which add nothing, to what the devices can share.
      count = next(iter(batch.values())).shape[0]
      padding = -count % sharding.batch_devices(mesh)
      local = {
        name: sharding.local_rows(np.pad(x, ((0, padding),) + ((0, 0),) * (x.ndim - 1)), mesh)
        for name, x in batch.items()
      }
      if carry is None:
        carry = jax.jit(task.carry, static_argnums=0, out_shardings=rows)(count + padding)
      with jax.set_mesh(mesh):
        sums, carry = step(params, variables, carry, sharding.put_batch(local, mesh))
      totals = sums if totals is None else jax.tree.map(jnp.add, totals, sums)
    if totals is None:
      return {}
    sums = jax.device_get(totals)
    return task.summarize({name: (float(sum), float(weight)) for name, (sum, weight) in sums.items()})

  return evaluate


def dev_names(task: Task, abstract: State) -> set[str]:
  """The figures that a dev summary has. Nothing is computed."""
  shapes = task.batch_shapes()
  evaluate = functools.partial(task.loss, rng=None, step=None)
  loss = jax.eval_shape(evaluate, abstract.params, abstract.variables, abstract.carry, shapes)
  return {*task.summarize({name: (1.0, 1.0) for name in sums_of(loss)}), *task.dev_score_names}


def on_first_device(tree, mesh):
  """The leaves, whole, on this process's first device of the mesh. Every process must call it.

  What is whole there already is not copied: it is gone once the next step is given the state.
  """
  if not all(x.is_fully_replicated for x in jax.tree.leaves(tree)):
    tree = _everywhere(mesh)(tree)
  return jax.tree.map(lambda x: x.addressable_data(0), tree)


@functools.cache
def _everywhere(mesh):
  """Kept: a new function would be compiled at each evaluation."""
  return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))
