import functools
import gc
import io
import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from attention_zoo.errors import UserError
from attention_zoo.protocols import Examples
from attention_zoo.training import checkpoints, loading, lock, metrics, sharding
from attention_zoo.training.loop import Diverged, train
from attention_zoo.training.optimizer import make_optimizer
from attention_zoo.training.step import abstract_state, init_state, make_evaluate, make_train_step
from attention_zoo.training.stopping import Stopped
from tests.training import toy_task


def run(workdir, task=None, **changes):
  config = toy_task.make_config(**changes)
  return train(task or toy_task.ToyTask(config), config, workdir, quiet=True)


def assert_close(got, want, atol):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), got, want)


def test_the_task_is_learned(tmp_path):
  run(tmp_path, **{"train.steps": 100, "train.log_every": 20, "train.eval_every": 50, "model.dropout": 0.0})
  records = metrics.read_metrics(tmp_path)
  train_records = [r for r in records if r["split"] == "train"]
  dev = [r for r in records if r["split"] == "dev"]
  assert [r["step"] for r in train_records] == [20, 40, 60, 80, 100]
  assert [r["step"] for r in dev] == [50, 100]
  assert dev[-1]["accuracy"] > 0.95 and dev[-1]["perplexity"] < 1.3
  assert train_records[0]["tokens_per_second"] > 0
  # 16^-0.5 * 0.5 * min(20^-0.5, 20 * 10^-1.5)
  assert train_records[0]["learning_rate"] == pytest.approx(0.125 * 20**-0.5, rel=1e-5)
  assert checkpoints.steps(tmp_path) == [100]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """Parameters after 3, 4, ... 9 steps on 8 devices, dropout on."""
  workdir = tmp_path_factory.mktemp("undisturbed")
  run(workdir, **{"train.steps": 9, "train.checkpoint_every": 1, "train.keep": 9})
  return {step: loading.load_params(workdir, step) for step in checkpoints.steps(workdir)}


def same_bits(a, b):
  return toy_task.digest(a) == toy_task.digest(b)


def test_interrupted_and_resumed_is_bit_identical(tmp_path, undisturbed):
  assert not same_bits(undisturbed[4], undisturbed[9])
  run(tmp_path, **{"train.steps": 4})
  state = run(tmp_path, **{"train.steps": 9})  # more steps than before: allowed
  assert int(state.steps) == 9
  assert same_bits(state.params, undisturbed[9])
  records = metrics.read_metrics(tmp_path)
  assert [r["step"] for r in records if r["split"] == "train"] == [2, 4, 6, 8, 9]
  # Nothing left to do: nothing is done.
  again = run(tmp_path, **{"train.steps": 9})
  assert same_bits(again.params, undisturbed[9])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_saves_and_ends_with_its_exit_code(tmp_path, undisturbed, number, code):
  config = toy_task.make_config(**{"train.steps": 9})
  task = toy_task.Killer(config)
  task.kill_at, task.kill_with = 5, number
  before = signal.getsignal(number)
  with pytest.raises(Stopped) as stopped:
    train(task, config, tmp_path, quiet=True)
  assert stopped.value.code == code
  (step,) = checkpoints.steps(tmp_path)
  assert step in (6, 7)
  assert same_bits(loading.load_params(tmp_path, "latest"), undisturbed[step])
  assert signal.getsignal(number) == before
  assert same_bits(run(tmp_path, **{"train.steps": 9}).params, undisturbed[9])


def test_ctrl_c_inside_a_callback_is_not_lost(tmp_path):
  """JAX has a callback of the garbage collector, and an exception inside of one is printed and forgotten."""

  class Collecting(toy_task.ToyTask):
    def batch(self, step):
      if step == 5:
        press = lambda phase, info: phase == "stop" or os.kill(os.getpid(), signal.SIGINT)
        gc.callbacks.append(press)
        gc.collect()
        gc.callbacks.remove(press)
      return super().batch(step)

  config = toy_task.make_config(**{"train.steps": 50})
  with pytest.raises(Stopped) as stopped:
    train(Collecting(config), config, tmp_path, quiet=True)
  assert stopped.value.code == 130 and checkpoints.steps(tmp_path)[0] < 10


@functools.cache
def _init():
  config = toy_task.make_config()
  optimizer = make_optimizer(config.optimizer)
  return jax.device_get(jax.jit(lambda: init_state(toy_task.ToyTask(config), optimizer, config))())


def step_on(devices, state=None, steps=3, task=None, **changes):
  """Parameters after a few steps on the first devices, without any files."""
  config = toy_task.make_config(**changes)
  task = task or toy_task.ToyTask(config)
  mesh = sharding.make_mesh(config.mesh, jax.devices()[:devices])
  optimizer = make_optimizer(config.optimizer)
  abstract = abstract_state(task, optimizer, config, mesh)
  places = jax.tree.map(lambda x: x.sharding, abstract)
  step = make_train_step(task, optimizer, config, abstract, mesh)
  state = jax.device_put(state or _init(), places)
  stop = sharding.flags(mesh, 0)
  history = []
  with jax.set_mesh(mesh):
    for index in range(steps):
      state, fetched = step(state, sharding.put_batch(task.batch(index), mesh), stop)
      history.append(jax.device_get(fetched))
  return jax.device_get(state), history


@pytest.mark.parametrize(
  ("rules", "fsdp", "tensor"),
  [("fsdp", 8, 1), ("tensor_parallel", 1, 4), ("fsdp+tensor_parallel", 2, 2)],
)
def test_every_rule_set_equals_data_parallel(undisturbed, rules, fsdp, tensor):
  state, _ = step_on(8, steps=9, **{"mesh.rules": rules, "mesh.fsdp": fsdp, "mesh.tensor": tensor})
  assert_close(state.params, undisturbed[9], atol=2e-5)


def test_a_signal_to_any_process_stops_all(monkeypatch):
  """Also one whose rows another process has too, as within a tensor group."""

  def flags(mesh, value):
    everywhere = NamedSharding(mesh, PartitionSpec(sharding.AXES))
    return jax.make_array_from_callback((mesh.size,), everywhere, lambda at: np.full(1, at[0].start == 3, np.int32))

  monkeypatch.setattr(sharding, "flags", flags)
  _, history = step_on(4, steps=1, **{"mesh.rules": "tensor_parallel", "mesh.tensor": 2})
  assert history[0]["stop"] == 1


def test_a_run_that_was_stopped_has_the_whole_dev_curve(tmp_path):
  config = toy_task.make_config(**{"train.steps": 9, "train.eval_every": 2, "train.checkpoint_every": 2})
  task = toy_task.Killer(config)
  task.kill_at, task.kill_with = 5, signal.SIGTERM
  with pytest.raises(Stopped):
    train(task, config, tmp_path, quiet=True)
  task.kill_at = 8  # the last
  train(task, config, tmp_path, quiet=True)
  assert [r["step"] for r in metrics.read_metrics(tmp_path) if r["split"] == "dev"] == [2, 4, 6, 8, 9]


class ShowingTask(toy_task.ToyTask):
  """Shows the sum of the parameters. calls: the counts that it was asked for."""

  has_dev_samples = True

  def __init__(self, config, dev_score_names=()):
    super().__init__(config)
    self.calls, self.dev_score_names = [], dev_score_names

  def dev_scores(self, params, variables):
    return dict.fromkeys(self.dev_score_names, 1.0)

  def dev_samples(self, params, variables, count):
    self.calls.append(count)
    if len(self.calls) == 3:
      raise UserError("nothing to see")
    total = sum(np.asarray(leaf).sum(dtype=np.float64) for leaf in jax.tree.leaves(params))
    picture = io.BytesIO()
    Image.new("L", (2, 3)).save(picture, "png")
    return Examples([{"sum": f"{total:.4f}"}], {"picture": picture.getvalue()})


def test_samples_are_shown_and_training_is_the_same(tmp_path, undisturbed):
  changes = {"train.steps": 4, "train.eval_every": 2, "train.checkpoint_every": 2}
  task = ShowingTask(toy_task.make_config())
  run(tmp_path, task, **changes)
  state = run(tmp_path, task, **changes | {"train.steps": 9, "train.dev_samples": 1})  # may change
  assert same_bits(state.params, undisturbed[9]) and task.calls == [2, 2, 1, 1, 1]
  events = EventAccumulator(str(tmp_path / "tensorboard"))
  events.Reload()
  texts = events.Tensors("dev/samples")
  assert [text.step for text in texts] == [image.step for image in events.Images("dev/picture")] == [2, 4, 8, 9]
  total = sum(leaf.sum(dtype=np.float64) for leaf in jax.tree.leaves(undisturbed[9]))
  shown = texts[-1].tensor_proto.string_val[0].decode().splitlines()[-1].replace("&#45;", "-")
  assert float(shown.strip("| ")) == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize(
  ("names", "changes", "calls"),
  [
    ((), {"train.dev_samples": 0}, []),
    ((), {"mesh.rules": "fsdp", "mesh.fsdp": 8, "mesh.data": 1}, []),
    (("bleu",), {"mesh.rules": "fsdp", "mesh.fsdp": 8, "mesh.data": 1}, [2]),
  ],
  ids=["none asked for", "sharded", "sharded, and put together for scores"],
)
def test_where_no_samples_are_made(tmp_path, names, changes, calls):
  task = ShowingTask(toy_task.make_config(), names)
  run(tmp_path, task, **{"train.steps": 1} | changes)
  assert task.calls == calls


def test_one_device_equals_eight(undisturbed):
  state, _ = step_on(1, steps=9)
  # The sum over the batch runs in another order, and Adam's first steps divide small numbers by small ones.
  assert_close(state.params, undisturbed[9], atol=2e-5)


@pytest.mark.parametrize("devices", [1, 4])
def test_accumulation_equals_the_whole_batch(devices):
  whole, history = step_on(devices, **{"model.dropout": 0.0})
  parts, parts_history = step_on(devices, **{"model.dropout": 0.0, "train.accumulate": 4})
  assert_close(parts.params, whole.params, atol=2e-5)
  for got, want in zip(parts_history, history, strict=True):
    for name in want["sums"]:
      np.testing.assert_allclose(got["sums"][name], want["sums"][name], rtol=1e-5)
    np.testing.assert_allclose(got["gradient_norm"], want["gradient_norm"], rtol=1e-4)


def test_dropout_differs_between_steps_and_micro_batches():
  class Constant(toy_task.ToyTask):
    def batch(self, step):
      return {name: np.tile(x[:1], (toy_task.B, 1)) for name, x in super().batch(0).items()}

  # The parameters stay as they are, and so does the batch: what changes from step to step is dropout.
  changes = {"optimizer.learning_rate": 0.0, "model.dropout": 0.5}
  _, history = step_on(1, task=Constant(toy_task.make_config(**changes)), **changes)
  assert len({float(metrics["sums"]["loss"][0]) for metrics in history}) == 3
  changes = {"train.accumulate": 2, "model.dropout": 0.5}
  task = Constant(toy_task.make_config(**changes))
  _, history = step_on(1, steps=1, task=task, **changes)
  rng = jax.random.fold_in(jax.random.key(0), 0)
  halves = [{name: x[index::2] for name, x in task.batch(0).items()} for index in (0, 1)]
  expected = [
    task.loss(_init().params, {}, {}, half, jax.random.fold_in(rng, i), 0).value for i, half in enumerate(halves)
  ]
  assert expected[0] != expected[1]
  np.testing.assert_allclose(history[0]["sums"]["loss"][0], sum(expected), rtol=1e-6)


def test_a_step_that_is_not_finite_is_skipped():
  config = toy_task.make_config()
  task = toy_task.ToyTask(config, bad_steps=(1,))
  state, history = step_on(1, steps=1, task=task)
  skipped, history = step_on(
    1, state=jax.tree.map(jnp.asarray, state), steps=2, task=ShiftedTask(config, (1,))
  )
  assert [int(h["first_bad"]) for h in history] == [0, -1]
  assert [int(h["nonfinite_in_row"]) for h in history] == [1, 0]
  assert int(skipped.nonfinite) == 1 and int(skipped.steps) == 3
  only, _ = step_on(1, state=jax.tree.map(jnp.asarray, state), steps=1, task=ShiftedTask(config, (1,)))
  assert same_bits(only.params, state.params) and same_bits(only.opt_state, state.opt_state)
  assert int(only.steps) == int(state.steps) + 1


class ShiftedTask(toy_task.ToyTask):
  """Begins with the batch of step 1."""

  def batch(self, step):
    return super().batch(step + 1)


def test_skipped_steps_are_shown_and_training_goes_on(tmp_path, capsys):
  config = toy_task.make_config(**{"train.steps": 8, "train.max_nonfinite": 2})
  state = train(toy_task.ToyTask(config, bad_steps=(2, 4, 6)), config, tmp_path)
  assert int(state.nonfinite) == 3
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
  shown = capsys.readouterr().err
  assert "step 3 was skipped: the gradient of embedding/table_VD is not finite (1 such steps so far)" in shown
  records = [r for r in metrics.read_metrics(tmp_path) if r["split"] == "train"]
  assert [r["nonfinite"] for r in records] == [0, 1, 2, 3]
  assert np.isfinite([r["loss"] for r in records]).all()


def test_too_many_in_a_row_stop_the_run(tmp_path):
  config = toy_task.make_config(**{"train.steps": 20, "train.checkpoint_every": 3})
  with pytest.raises(
    Diverged, match=r"stopped at step 8: 3 steps in a row .* in the gradient of embedding/table_VD"
  ) as stopped:
    train(toy_task.ToyTask(config, bad_steps=range(5, 20)), config, tmp_path, quiet=True)
  assert stopped.value.code == 3
  assert checkpoints.steps(tmp_path) == [3, 6]


def test_the_leaf_is_named():
  class BadBias(toy_task.ToyTask):
    def loss(self, params, *rest):
      loss = super().loss(params, *rest)
      bias = params["encoder"]["layer_0"]["feed_forward"]["wo"]["bias_D"]
      return loss._replace(value=loss.value + 0 * jnp.sum(jnp.sqrt(bias * 0)))  # an infinite slope, times zero

  task = BadBias(toy_task.make_config())
  _, history = step_on(1, steps=1, task=task)
  names = [
    sharding.path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(task.init(jax.random.key(0)).params)
  ]
  assert names[int(history[0]["first_bad"])] == "encoder/layer_0/feed_forward/wo/bias_D"


def test_data_parallel_compiles_to_all_reduces_alone():
  config = toy_task.make_config()
  task = toy_task.ToyTask(config)
  mesh = sharding.make_mesh(config.mesh)
  optimizer = make_optimizer(config.optimizer)
  abstract = abstract_state(task, optimizer, config, mesh)
  rows = sharding.batch_sharding(mesh)
  batch = {n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=rows) for n, s in task.batch_shapes().items()}
  stop = jax.ShapeDtypeStruct((8,), np.int32, sharding=rows)
  with jax.set_mesh(mesh):
    text = (
      make_train_step(task, optimizer, config, abstract, mesh)
      .lower(abstract, batch, stop)
      .compile()
      .as_text()
    )
  assert "all-reduce" in text
  for other in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
    assert other not in text


def test_evaluation_counts_every_row_once():
  config = toy_task.make_config()
  task = toy_task.ToyTask(config)
  params = task.init(jax.random.key(1)).params
  totals = [task.loss(params, {}, {}, batch, None, None) for batch in task.eval_batches("dev")]
  weight = sum(float(t.weight) for t in totals)
  summary = make_evaluate(task, sharding.make_mesh(config.mesh))(params, {}, "dev")  # 11 rows on 8 devices
  assert summary["weight"] == weight
  np.testing.assert_allclose(summary["loss"], sum(float(t.value) for t in totals) / weight, rtol=1e-5)


def test_errors_come_before_training(tmp_path):
  with pytest.raises(UserError, match="does not fit 8 devices"):
    run(tmp_path / "a", **{"mesh.data": 5})
  with pytest.raises(UserError, match="16 rows, which 8 devices x 4 accumulated"):
    run(tmp_path / "b", **{"train.accumulate": 4})
  with pytest.raises(UserError, match="not one of data_parallel"):
    run(tmp_path / "c", **{"mesh.rules": "none"})
  with pytest.raises(UserError, match="self_attention/key/kernel_DNK.*not divisible by the 8 devices"):
    run(tmp_path / "d", **{"mesh.rules": "tensor_parallel", "mesh.tensor": 8})


def test_a_workdir_of_another_config(tmp_path):
  run(tmp_path, **{"train.steps": 2})
  with pytest.raises(UserError, match="train.label_smoothing: 0.1 -> 0.2"):
    run(tmp_path, **{"train.steps": 3, "train.label_smoothing": 0.2})


def test_a_second_training_is_refused_and_changes_nothing(tmp_path, monkeypatch, undisturbed):
  """Of another seed: it would write its own config.json, and its checkpoints between the others."""
  monkeypatch.setattr(lock, "HEARTBEAT", 0.1)
  refused = []

  class Twice(toy_task.ToyTask):
    def batch(self, step):
      if step == 5 and not refused:
        for changes in ({}, {"train.seed": 1}):
          with pytest.raises(
            UserError, match=rf"{tmp_path} is in use: process {os.getpid()} on .* trains there"
          ) as found:
            run(tmp_path, **{"train.steps": 3} | changes)
          refused.append(found)
      return super().batch(step)

  config = toy_task.make_config(**{"train.steps": 9})
  state = train(Twice(config), config, tmp_path, quiet=True)
  assert len(refused) == 2 and same_bits(state.params, undisturbed[9])
  assert json.loads((tmp_path / "config.json").read_text())["train"]["seed"] == 0
  assert checkpoints.steps(tmp_path) == [9]
  run(tmp_path, **{"train.steps": 9})  # it has let go


def test_the_loop_is_short():
  text = (toy_task.ROOT / "attention_zoo" / "training" / "loop.py").read_text()
  assert len(text.splitlines()) <= 300


def test_importing_training_starts_no_devices():
  code = (
    "import attention_zoo.training.loop, attention_zoo.training.average, attention_zoo.training.distributed\n"
    "from jax._src import xla_bridge\nassert not xla_bridge.backends_are_initialized()"
  )
  subprocess.run([sys.executable, "-c", code], check=True, cwd=toy_task.ROOT)
