"""Code that depends on the platform hears of the one that is compiled for."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo import hardware
from attention_zoo.ops.einsum import einsum
from attention_zoo.training import aot


def mesh(devices):
  return jax.sharding.Mesh(np.array(devices), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def product_types(devices):
  """The operand types of a batched bfloat16 product, traced for these devices; and the platform it hears of."""
  heard = []

  def product(x, y):
    heard.append(hardware.platform())
    return einsum("BTD,BDF->BTF", x, y, jnp.float32)

  x = jax.ShapeDtypeStruct((2, 3, 4), jnp.bfloat16)
  with jax.set_mesh(mesh(devices)):
    jaxpr = jax.jit(product).trace(x, jax.ShapeDtypeStruct((2, 4, 5), jnp.bfloat16)).jaxpr
  text = str(jaxpr)
  return heard, "convert_element_type[new_dtype=float32" in text


def test_without_a_mesh_it_is_jax_own():
  assert hardware.platform() == jax.default_backend()


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_mesh_of_tpus_that_are_not_there():
  devices, _ = aot.topology_devices("v5e:2x2")
  assert product_types(jax.devices()[:4]) == (["cpu"], True)  # which has no such product in bfloat16
  assert product_types(devices) == (["tpu"], False)


@pytest.mark.parametrize(
  "text, wanted",
  [
    ("flags\t\t: fpu avx2 avx512f avx512_bf16 sha_ni\n", True),
    ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", False),
    ("Features\t: fp asimd bf16 i8mm\n", True),
    ("hart\t: 0\n", True),
  ],
)
def test_units_for_bfloat16_are_read_from_the_system(tmp_path, text, wanted):
  (tmp_path / "cpuinfo").write_text("processor\t: 0\n" + text)
  assert hardware._cpu_multiplies_bfloat16(tmp_path / "cpuinfo") == wanted


def test_a_system_that_says_nothing_of_its_cpu(tmp_path):
  assert hardware._cpu_multiplies_bfloat16(tmp_path / "none")


def test_a_gpu_is_not_asked(monkeypatch):
  monkeypatch.setattr(hardware, "_cpu_multiplies_bfloat16", lambda: False)
  assert not hardware.multiplies_bfloat16()
  monkeypatch.setattr(hardware, "platform", lambda: "gpu")
  assert hardware.multiplies_bfloat16()
