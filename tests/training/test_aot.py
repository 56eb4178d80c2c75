"""Compiling for TPUs that are not there, and for what is."""

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from attention_zoo import tasks
from attention_zoo.configs import transformer_base
from attention_zoo.errors import UserError
from attention_zoo.models.translation.transformer import parameter_count
from attention_zoo.training import aot, sharding
from tests.training import toy_task

ROOT = pathlib.Path(__file__).parents[2]


def test_matrix_products_are_counted_in_loops_and_on_all_devices():
  mesh = jax.make_mesh((4, 2), ("data", "tensor"), (jax.sharding.AxisType.Auto,) * 2)

  def step(x, w):
    row = lambda carry, _: (jnp.tanh(carry @ w), None)
    x = jax.lax.scan(row, x, None, length=5)[0]
    part = jax.shard_map(lambda x: x @ w, in_specs=P("data"), out_specs=P("data"), axis_names={"data"})
    return part(x).sum()

  with jax.set_mesh(mesh):
    traced = jax.jit(jax.grad(step, argnums=1)).trace(jnp.ones((8, 16)), jnp.ones((16, 16)))
  # Forwards 6 products, backwards 2 for each.
  assert aot.matmul_flops(traced.jaxpr.jaxpr) == 3 * 6 * 2 * 8 * 16 * 16


def small(**changes):
  config = transformer_base.get_config()
  config.model.update(
    d_model=128, d_ff=256, num_heads=2, num_encoder_layers=1, num_decoder_layers=1, dropout=0.0
  )
  config.data.update(vocab_size=1024, batch_tokens=16 * 128, row_length=128)
  config.update_from_flattened_dict(changes)
  return config


def compiled(**changes):
  config = small(**changes)
  devices, kind = aot.topology_devices("v5e:2x4", config.mesh.replica)
  chip = aot.CHIPS[kind]
  return aot.report(aot.compile_step(tasks.make(config, "."), config, devices, chip), chip)


def closed_form(config):
  """Operations of the matrix products of a step: 6 a parameter and token, and the attention's two products."""
  m, tokens = config.model, config.data.batch_tokens
  table = config.data.vocab_size * m.d_model
  fields = {name: value for name, value in m.items() if name != "name"}
  from attention_zoo.models.translation.transformer import Config

  weights = parameter_count(Config(vocab_size=config.data.vocab_size, **fields)) - table
  vectors = m.num_encoder_layers * (m.d_ff + 5 * m.d_model) + m.num_decoder_layers * (m.d_ff + 7 * m.d_model)
  layers = m.num_encoder_layers + 2 * m.num_decoder_layers
  attention = layers * 2 * config.data.row_length * m.num_heads * (m.d_k + m.d_v)
  return tokens * (6 * (weights - vectors + table) + 3 * attention)


def test_arithmetic_is_the_closed_form():
  config = small()
  task = tasks.make(config, ".")
  loss = lambda params, batch: task.loss(params, {}, {}, batch, None, 0).value
  params = jax.eval_shape(task.init, jax.random.key(0)).params
  traced = jax.make_jaxpr(jax.value_and_grad(loss))(params, task.batch_shapes())
  assert aot.matmul_flops(traced.jaxpr) == closed_form(config)


tpu_compile = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


@pytest.mark.parametrize(
  ("topology", "sizes"),
  [
    ("v5e:4x4", {"fsdp": 8}),
    ("v6e:4x4", {"tensor": 2}),
    ("v6e:8x8", {"fsdp": 16}),
    ("v5p:4x4x4", {"fsdp": 8, "tensor": 2}),
  ],
)
@pytest.mark.tpu_compile
@tpu_compile
def test_meshes_of_every_torus(topology, sizes):
  """Also where an axis of the mesh takes a part of an axis of the torus."""
  devices, _ = aot.topology_devices(topology)
  mesh = sharding.make_mesh(small(**{f"mesh.{axis}": size for axis, size in sizes.items()}).mesh, devices)
  assert set(mesh.devices.flat) == set(devices) and sizes.items() <= dict(mesh.shape).items()


class Clouds(toy_task.ToyTask):
  """Nothing in its batches is called a target."""

  unit = "points"

  def batch_shapes(self):
    return {{"targets": "answers"}.get(name, name): shape for name, shape in super().batch_shapes().items()}

  def loss(self, params, variables, carry, batch, rng, step):
    return super().loss(params, variables, carry, batch | {"targets": batch["answers"]}, rng, step)


def test_any_task_is_compiled_and_says_what_it_is_doing():
  phases = []

  @contextlib.contextmanager
  def phase(name, estimate=None):
    phases.append((name, estimate))
    yield

  config = toy_task.make_config()
  devices, chip = aot.local_devices()
  step = aot.compile_step(Clouds(config), config, devices, dataclasses.replace(chip, flops=None), phase)
  found = aot.report(step, chip)
  assert (found["units"], found["unit"]) == (toy_task.B * toy_task.T, "points")
  assert "96 points a step" in str(aot.rows(found))
  assert phases == [("tracing", None), ("lowering", None), ("compiling", None)]  # nothing is known of CPUs


def test_deeper_takes_longer_to_compile():
  tpu = [types.SimpleNamespace(platform="tpu")]
  row = lambda x, _: (x @ x, None)
  one, two = (
    jax.make_jaxpr(f)(jnp.ones((2, 2))).jaxpr for f in (lambda x: x @ x, lambda x: jax.lax.scan(row, x @ x, None, 9))
  )
  assert aot.compile_seconds(one, tpu) == pytest.approx(120 + 0.028)
  assert aot.compile_seconds(two, tpu) == pytest.approx(120 + 3 * 0.028)  # a loop's body is compiled once


def test_the_devices_that_are_here():
  devices, chip = aot.local_devices()
  step = aot.compile_step(tasks.make(small(), "."), small(), devices, chip)
  found = aot.report(step, chip)
  assert found["fits"] and found["devices"] == 8 and found["peak_bytes"] > compiled_parameter_bytes()
  assert set(found["collectives"]) == {"all-reduce"} and "mfu" not in found
  found = aot.report(step, dataclasses.replace(chip, hbm=found["peak_bytes"] - 1))
  assert not found["fits"] and "it takes" in str(aot.rows(found))


@pytest.mark.tpu_compile
@pytest.mark.slow
@tpu_compile
def test_data_parallelism_compiles_to_all_reduces_alone():
  found = compiled()
  assert found["fits"] and found["devices"] == 8
  assert set(found["collectives"]) == {"all-reduce"}
  # All gradients are summed, each once: the embedding's two are added up before. Those of the feed-forward networks'
  # biases have the activations' type, bfloat16.
  size = found["collectives"]["all-reduce"][1]
  biases = 2 * (256 + 128) * 2
  assert found["parameter_bytes"] - biases < size < found["parameter_bytes"] - biases + 64  # and what is reported
  assert found["optimizer_bytes"] == pytest.approx(2 * found["parameter_bytes"], rel=1e-3)
  assert found["flops_per_device"] == closed_form(small()) / 8


@pytest.mark.tpu_compile
@pytest.mark.slow
@tpu_compile
@pytest.mark.parametrize("changes", [{"mesh.rules": "fsdp", "mesh.fsdp": 8}, {"mesh.replica": 2}])
def test_other_meshes(changes):
  found = compiled(**changes)
  parts = found["collectives"]
  if "mesh.fsdp" in changes:
    assert found["parameter_bytes"] < compiled_parameter_bytes() / 6
    # Parameters are gathered for each use, in bfloat16; activations stay where they are.
    assert parts["all-gather"][1] < 3 * compiled_parameter_bytes()
  else:
    assert found["devices"] == 16 and found["parameter_bytes"] == compiled_parameter_bytes()
    # Each chip sends its eighth of the sums to the other slice.
    between = parts["between slices"][1]
    assert compiled_parameter_bytes() / 8 < between < compiled_parameter_bytes() / 4
    assert found["seconds"]["network between slices"] == between / aot.CHIPS["v5e"].network


def compiled_parameter_bytes():
  params = jax.eval_shape(tasks.make(small(), ".").init, jax.random.key(0))
  return sum(x.size * 4 for x in jax.tree.leaves(params))


@pytest.mark.tpu_compile
@pytest.mark.slow
@tpu_compile
def test_the_command_says_what_does_not_fit():
  done = subprocess.run(
    [
      sys.executable, "-m", "attention_zoo.compile", "--config=configs/transformer_big.py", "--topology=v5e:2x2",
      "--config.model.num_encoder_layers=1", "--config.model.num_decoder_layers=1",
      "--config.data.vocab_size=1600000", "--config.data.batch_tokens=1024",
    ],
    cwd=ROOT, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200", "XLA_FLAGS": ""},
  )  # fmt: skip
  assert done.returncode == 1, done.stderr
  assert "DOES NOT FIT" in done.stdout and "embedding/table_VD" in done.stdout
  said = [line.partition(":")[0] for line in done.stderr.splitlines()]
  assert said == ["tracing", "lowering"]  # that the state alone is too large needs no compiler


def test_unknown_topologies():
  with pytest.raises(UserError, match="chips known here are v5e, v5p, v6e"):
    aot.topology_devices("v9:2x2")
