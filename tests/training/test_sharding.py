import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from attention_zoo.errors import UserError
from attention_zoo.training import sharding
from tests.training import toy_task


def mesh_config(rules="data_parallel", replica=1, data=-1, fsdp=1, tensor=1):
  return ConfigDict({"rules": rules, "replica": replica, "data": data, "fsdp": fsdp, "tensor": tensor})


def abstract_params():
  return jax.eval_shape(toy_task.ToyTask(toy_task.make_config()).init, jax.random.key(0)).params


def test_mesh_takes_what_is_left():
  mesh = sharding.make_mesh(mesh_config(fsdp=2, tensor=2))
  assert dict(mesh.shape) == {"replica": 1, "data": 2, "fsdp": 2, "tensor": 2}
  assert sharding.batch_devices(mesh) == 4


@pytest.mark.parametrize(
  "sizes", [{"data": 3}, {"tensor": 3}, {"data": 4}, {"data": 2, "fsdp": 8}, {"fsdp": 16}]
)
def test_mesh_that_does_not_fit(sizes):
  with pytest.raises(UserError, match="does not fit 8 devices"):
    sharding.make_mesh(mesh_config(**sizes))


def test_slices_are_the_replica_axis():
  devices = [types.SimpleNamespace(slice_index=index // 4, platform="tpu") for index in range(8)]
  with pytest.raises(UserError, match="2 slices: set config.mesh.replica=2"):
    sharding.make_mesh(mesh_config(), devices)


class MachineDevice:
  """A device of another kind than TPUs, of which JAX gives each machine a slice_index."""

  platform, device_kind = "gpu", "NVIDIA"

  def __init__(self, index):
    self.id, self.slice_index, self.process_index = index, index // 4, index // 4


def test_machines_are_no_slices(monkeypatch):
  monkeypatch.setattr(sharding, "Mesh", lambda grid, axes, axis_types: grid)
  grid = sharding.make_mesh(mesh_config("fsdp", fsdp=8), [MachineDevice(index) for index in range(8)])
  assert [device.id for device in grid.flat] == list(range(8)) and grid.shape == (1, 1, 8, 1)


def test_unknown_or_idle_rules():
  with pytest.raises(UserError, match="zero.*data_parallel"):
    sharding.rules_of(mesh_config("zero"))
  with pytest.raises(UserError, match="split nothing over it"):
    sharding.rules_of(mesh_config("fsdp", tensor=2))


@pytest.mark.parametrize("rules", sharding.RULES)
def test_rule_sets_place_every_parameter(rules):
  mesh = sharding.make_mesh(mesh_config(rules, fsdp=2, tensor=2))
  params = abstract_params()
  placed = sharding.shardings(sharding.RULES[rules], params, mesh)
  specs = {
    sharding.path_name(path): place.spec for path, place in jax.tree_util.tree_leaves_with_path(placed)
  }
  layer = "encoder/layer_0"
  f = "fsdp" if "fsdp" in rules else None
  t = "tensor" if "tensor" in rules else None
  # Megatron-LM: columns of the first product, rows of the second; heads; the vocabulary.
  expected = {
    "embedding/table_VD": (t, f),
    f"{layer}/self_attention/query/kernel_DNK": (f, t, None),
    f"{layer}/self_attention/output/kernel_NHD": (t, None, f),
    f"{layer}/feed_forward/wi/kernel_DF": (f, t),
    f"{layer}/feed_forward/wi/bias_F": (t,),
    f"{layer}/feed_forward/wo/kernel_FD": (t, f),
    f"{layer}/feed_forward/wo/bias_D": (None,),
    f"{layer}/self_attention_norm/scale": (None,),
    "source_positions/table_TD": (None, None),
  }
  for name, want in expected.items():
    got = tuple(specs[name]) + (None,) * (len(want) - len(specs[name]))
    assert got == want, name


def specs(rules, shapes, **sizes):
  mesh = sharding.make_mesh(mesh_config(rules, **sizes))
  tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
  return {name: tuple(place.spec) for name, place in sharding.shardings(sharding.RULES[rules], tree, mesh).items()}


def test_other_families_need_no_rule_of_their_own():
  """An LSTM (a dimension of size 4 for the gates), a convolution, a biased attention, experts, and norms by Flax."""
  shapes = {
    "lstm/kernel_D4F": (6, 4, 8),
    "lstm/recurrent_F4F": (8, 4, 8),
    "lstm/bias_4F": (4, 8),
    "convolution/kernel_WDF": (3, 6, 8),
    "query/bias_NK": (2, 3),
    "output/bias_D": (6,),
    "experts_out_EFD": (4, 8, 6),
    "feed_forward/gate_DE": (6, 4),
    "norm/scale": (6,),
  }
  assert specs("fsdp+tensor_parallel", shapes, fsdp=2, tensor=2) == {
    "lstm/kernel_D4F": ("fsdp", None, "tensor"),
    "lstm/recurrent_F4F": ("tensor",),  # the first of two
    "lstm/bias_4F": (None, "tensor"),
    "convolution/kernel_WDF": (None, "fsdp", "tensor"),
    "query/bias_NK": ("tensor",),
    "output/bias_D": (),
    "experts_out_EFD": ("tensor", None, "fsdp"),  # over the experts, not within them
    "feed_forward/gate_DE": (),
    "norm/scale": (),
  }


@pytest.mark.parametrize(
  ("name", "shape", "message"),
  [
    ("wi/kernel", (4, 6), r"the name of the parameter wi/kernel \(4, 6\) must end in its dimensions"),
    ("wi/kernel_DFN", (4, 6), r"the parameter wi/kernel_DFN \(4, 6\) must end in its dimensions"),
    ("wi/bias_DF", (4,), r"the parameter wi/bias_DF \(4,\) must end in its dimensions"),
    ("lstm/kernel_D4F", (4, 3, 6), r"lstm/kernel_D4F \(4, 3, 6\) must end in its dimensions"),
    ("layer_0", (4, 6), "the parameter layer_0"),
    ("wi/kernel_DF", (3, 6), r"dimension D of the parameter wi/kernel_DF \(3, 6\) .* 2 devices of the mesh axis fsdp"),
    ("table_VD", (7, 4), r"dimension V of the parameter table_VD \(7, 4\) .* 2 devices of the mesh axis tensor"),
    ("wi/bias_F", (3,), "dimension F of the parameter wi/bias_F"),
    ("wi/kernel_D", (4,), "config.mesh.fsdp = 2 splits no parameter of this model"),
    ("wi/kernel_DK", (4, 4), "config.mesh.tensor = 2 splits no parameter of this model"),
  ],
)
def test_strict_errors_name_the_leaf(name, shape, message):
  with pytest.raises(UserError, match=message):
    specs("fsdp+tensor_parallel", {name: shape}, fsdp=2, tensor=2)


@pytest.mark.parametrize("name", ["adam", "adafactor", "sm3"])
def test_optimizer_state_lies_with_its_parameter(name):
  optimizer = {
    "adam": optax.adam(0.1),
    "adafactor": optax.adafactor(0.1, min_dim_size_to_factor=4),
    "sm3": optax.sm3(0.1),
  }[name]
  mesh = sharding.make_mesh(mesh_config(fsdp=2, tensor=2))
  params = abstract_params()
  placed = sharding.shardings(sharding.RULES["fsdp+tensor_parallel"], params, mesh)
  state = jax.eval_shape(optimizer.init, params)
  state_placed = sharding.optimizer_shardings(params, placed, state, mesh)
  leaves = jax.tree_util.tree_leaves_with_path
  places = {sharding.path_name(path): place for path, place in leaves(placed)}
  shapes = {sharding.path_name(path): leaf.shape for path, leaf in leaves(params)}
  moments = 0
  for (path, leaf), place in zip(leaves(state), jax.tree.leaves(state_placed), strict=True):
    of = [name for name in shapes if sharding.path_name(path).endswith("/" + name)]
    if of and leaf.shape == shapes[of[0]]:
      assert place == places[of[0]]
      moments += of[0].endswith("wi/kernel_DF")
    else:
      assert place.spec == P()
  assert moments == {"adam": 2, "adafactor": 0, "sm3": 1}[name]


def test_batches_are_split_and_checked():
  mesh = sharding.make_mesh(mesh_config(data=2, fsdp=2, tensor=2))
  batch = {"x": np.arange(24).reshape(8, 3)}
  placed = sharding.put_batch(batch, mesh)["x"]
  np.testing.assert_array_equal(placed, batch["x"])
  assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 3)}
  with pytest.raises(
    UserError, match="the batch's x has 6 rows, which 4 devices cannot share evenly.*multiple of 4"
  ):
    sharding.put_batch({"x": np.zeros((6, 2))}, mesh)
  with pytest.raises(UserError, match="4 devices x 4 accumulated micro-batches"):
    sharding.put_batch(batch, mesh, accumulate=4)


class FakeMesh:
  """The devices of several processes, of which a test has only one."""

  def __init__(self, shape, owners):
    devices = [types.SimpleNamespace(process_index=owner) for owner in owners]
    self.devices = np.array(devices, object).reshape(shape)
    self.shape = dict(zip(sharding.AXES, shape, strict=True))


@pytest.mark.parametrize(
  ("shape", "owners", "expected"),
  [
    ((1, 8, 1, 1), "00001111", [(0, 1, 2, 3), (4, 5, 6, 7)]),
    ((1, 8, 1, 1), "00110011", [(0, 1, 4, 5), (2, 3, 6, 7)]),  # as on a torus
    ((2, 2, 2, 1), "00112233", [(0, 1), (2, 3), (4, 5), (6, 7)]),
    ((1, 2, 1, 4), "00112233", [(0,), (0,), (1,), (1,)]),  # a tensor group over two processes: the same rows
    ((1, 1, 1, 8), "00001111", [(0,), (0,)]),
  ],
)
def test_process_rows(shape, owners, expected):
  mesh = FakeMesh(shape, map(int, owners))
  parts = [sharding.process_rows(mesh, process) for process in range(len(expected))]
  assert parts == [(rows, sharding.batch_devices(mesh)) for rows in expected]


def test_process_rows_that_overlap():
  with pytest.raises(UserError, match="overlapping rows"):
    sharding.process_rows(FakeMesh((1, 4, 1, 3), [0] * 4 + [1] * 4 + [2] * 4), 0)
