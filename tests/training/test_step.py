"""What a step does beside the gradient: state without gradients, carry between batches, averages,
rates by parameter."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.errors import UserError
from attention_zoo.protocols import Initial, Loss, Task
from attention_zoo.training import average, loading, sharding, step
from attention_zoo.training.loop import train
from attention_zoo.training.optimizer import make_optimizer
from tests.compilations import compilations
from tests.training import toy_task


class Counter(Task):
  """Fits w to x plus what each row carries: the sum of the row's numbers so far. `variables` counts the rows seen."""

  unit = "rows"

  def __init__(self, config):
    self.config = config

  def init(self, rng):
    return Initial({"w": {"bias_D": jnp.zeros(3)}, "frozen": {"kernel_D": jnp.ones(3)}}, {"seen": jnp.zeros(())})

  def carry(self, rows):
    return {"sum": jnp.zeros((rows, 3))}

  def loss(self, params, variables, carry, batch, rng, step):
    total = carry["sum"] + batch["x"]
    live = batch["live"]
    error = (params["w"]["bias_D"] + params["frozen"]["kernel_D"])[None] - total
    value = jnp.sum(jnp.square(error) * live[:, None])
    seen = variables["seen"] + live.sum()
    sums = {"carried": (jnp.sum(jnp.abs(total) * live[:, None]), live.sum())}
    return Loss(value, live.sum(), sums, {"seen": seen}, {"sum": total})

  def batch(self, step, rows=16):
    x = np.random.default_rng(step).normal(size=(rows, 3)).astype(np.float32)
    return {"x": x, "live": np.ones(rows, np.float32)}

  def fingerprint(self):
    return "0" * 64

  def batch_shapes(self):
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in self.batch(0).items()}

  def train_shapes(self):
    return [{name: x.shape for name, x in self.batch_shapes().items()}]

  def train_batches(self, start, parts, count):
    for index in itertools.count(start):
      yield {name: np.concatenate([np.split(x, count)[i] for i in parts]) for name, x in self.batch(index).items()}

  def eval_batches(self, split):
    for index in range(3):
      yield self.batch(100 + index, rows=11)


def make_config(**changes):
  changes = {"optimizer.name": "sgd", "optimizer.schedule": "constant", "optimizer.warmup_steps": 0} | changes
  return toy_task.make_config(**{"optimizer.learning_rate": 0.1, **changes})


def states(steps, devices=8, **changes):
  """The state after each of a few steps, on the host."""
  config = make_config(**changes)
  task = Counter(config)
  mesh = sharding.make_mesh(config.mesh, jax.devices()[:devices])
  optimizer = make_optimizer(config.optimizer)
  abstract = step.abstract_state(task, optimizer, config, mesh)
  state = jax.device_put(
    step.init_state(task, optimizer, config), jax.tree.map(lambda x: x.sharding, abstract)
  )
  train_step = step.make_train_step(task, optimizer, config, abstract, mesh)
  found = []
  with jax.set_mesh(mesh):
    for index in range(steps):
      batch = sharding.put_batch(task.batch(index), mesh)
      state, metrics = train_step(state, batch, sharding.flags(mesh, 0))
      found.append(jax.device_get((state, metrics)))
  return found


@pytest.mark.parametrize(("devices", "accumulate"), [(1, 1), (8, 1), (4, 4)])
def test_variables_and_carry_go_from_batch_to_batch(devices, accumulate):
  (first, _), (second, metrics) = states(2, devices, **{"train.accumulate": accumulate})
  task = Counter(None)
  expected = task.batch(0)["x"] + task.batch(1)["x"]
  np.testing.assert_allclose(second.carry["sum"], expected, rtol=1e-6)
  assert first.variables["seen"] == 16 and second.variables["seen"] == 32
  carried, rows = metrics["sums"]["carried"]
  assert rows == 16
  np.testing.assert_allclose(carried, np.abs(expected).sum(), rtol=1e-5)


def test_evaluation_carries_too_and_begins_anew():
  config = make_config()
  task = Counter(config)
  params, variables = task.init(None)
  evaluate = step.make_evaluate(task, sharding.make_mesh(config.mesh))
  found = evaluate(params, variables, "dev")  # 11 rows on 8 devices
  x = np.stack([batch["x"] for batch in task.eval_batches("dev")]).astype(np.float64)
  np.testing.assert_allclose(found["carried"], np.abs(np.cumsum(x, 0)).sum() / 33, rtol=1e-5)
  np.testing.assert_allclose(found["loss"], np.square(1 - np.cumsum(x, 0)).sum() / 33, rtol=1e-5)
  assert found["weight"] == 33 and evaluate(params, variables, "dev") == found


def test_the_moving_average_is_the_formulas():
  history = [state for state, _ in states(3, **{"train.ema": 0.75})]
  expected = np.zeros(3)
  for state in history:
    expected = 0.75 * expected + 0.25 * state.params["w"]["bias_D"]
    np.testing.assert_allclose(state.ema["w"]["bias_D"], expected, rtol=1e-6)
  assert states(1)[0][0].ema == {}


def test_a_factor_of_zero_freezes_and_another_scales():
  plain, _ = states(1)[0]
  changed, _ = states(1, **{"train.learning_rate_factors": (("frozen", 0), ("bias", 0.5))})[0]
  assert (plain.params["frozen"]["kernel_D"] != 1).all() and (changed.params["frozen"]["kernel_D"] == 1).all()
  np.testing.assert_allclose(changed.params["w"]["bias_D"], 0.5 * plain.params["w"]["bias_D"], rtol=1e-6)


@pytest.mark.parametrize(
  ("factors", "message"),
  [((("frozn", 0),), "'frozn' is in no parameter's path; they are frozen/kernel_D, w/bias_D"), (("w",), "'w' is not")],
)
def test_bad_factors(factors, message):
  with pytest.raises(UserError, match=message):
    states(1, **{"train.learning_rate_factors": factors})


def test_a_task_can_set_rates_by_step():
  class Unfreezing(Counter):
    def learning_rate_factor(self, path, step):
      return jnp.where(step < 1, 0.0, 1.0) if "frozen" in path else 1.0

  config = make_config(**{"train.steps": 2, "train.eval_every": 2, "train.checkpoint_every": 1, "train.keep": 2})
  task = Unfreezing(config)
  mesh = sharding.make_mesh(config.mesh)
  optimizer = make_optimizer(config.optimizer)
  abstract = step.abstract_state(task, optimizer, config, mesh)
  state = step.init_state(task, optimizer, config)
  state = jax.device_put(state, jax.tree.map(lambda x: x.sharding, abstract))
  train_step = step.make_train_step(task, optimizer, config, abstract, mesh)
  frozen = []
  with jax.set_mesh(mesh):
    for index in range(2):
      state, _ = train_step(state, sharding.put_batch(task.batch(index), mesh), sharding.flags(mesh, 0))
      frozen.append(np.asarray(state.params["frozen"]["kernel_D"]))
  assert (frozen[0] == 1).all() and (frozen[1] != 1).all()


def test_carry_variables_and_averages_survive_a_restart_bit_for_bit(tmp_path):
  changes = {"train.ema": 0.9, "train.checkpoint_every": 2, "train.eval_every": 2}
  for workdir, stops in ((tmp_path / "whole", (6,)), (tmp_path / "parts", (2, 4, 6))):
    for steps in stops:
      config = make_config(**changes, **{"train.steps": steps})
      state = train(Counter(config), config, workdir, quiet=True)
    workdir.with_suffix(".digest").write_text(toy_task.digest(state._asdict()))
  assert (tmp_path / "whole.digest").read_text() == (tmp_path / "parts.digest").read_text()


def test_variables_are_loaded_averaged_and_taken_over(tmp_path):
  config = make_config(**{"train.steps": 4, "train.checkpoint_every": 2, "train.eval_every": 2})
  state = train(Counter(config), config, tmp_path / "first", quiet=True)
  assert loading.load(tmp_path / "first", 2).variables == {"seen": 32.0}
  assert loading.load(tmp_path / "first").variables == {"seen": float(state.variables["seen"])} == {"seen": 64.0}
  asked = lambda params, variables: float(variables["seen"])
  average.average(tmp_path / "first", last=2, dev_loss=asked)
  assert loading.load(tmp_path / "first", "average").variables == {"seen": 48.0}
  assert loading.read_record(tmp_path / "first" / "average")["dev_loss"] == {"newest": 64.0, "average": 48.0}
  config = make_config(**{"train.init_from": str(tmp_path / "first"), "train.steps": 1})
  state = train(Counter(config), config, tmp_path / "second", quiet=True)
  assert float(state.variables["seen"]) == 48 + 16


def test_what_is_loaded_is_the_moving_average(tmp_path):
  config = make_config(**{"train.ema": 0.9, "train.steps": 3, "train.checkpoint_every": 3, "train.eval_every": 3})
  state = train(Counter(config), config, tmp_path, quiet=True)
  assert not np.allclose(state.ema["w"]["bias_D"], state.params["w"]["bias_D"])
  stored = loading.load_params(tmp_path, "latest")
  np.testing.assert_array_equal(stored["w"]["bias_D"], state.ema["w"]["bias_D"])


def test_whole_leaves_are_not_gathered_and_parts_are_without_compiling_twice():
  mesh = sharding.make_mesh(make_config().mesh)
  split = {"x": jax.device_put(np.arange(16.0), sharding.batch_sharding(mesh))}
  first = step.on_first_device(split, mesh)
  with compilations() as names:
    again = step.on_first_device({"x": split["x"]}, mesh)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    whole = step.on_first_device(jax.device_put(again, everywhere), mesh)
  for found in (first, again, whole):
    np.testing.assert_array_equal(found["x"], np.arange(16.0))
    assert len(found["x"].sharding.device_set) == 1
  assert not names
