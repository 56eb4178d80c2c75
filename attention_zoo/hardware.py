"""What a program is traced for: every room may ask here, and none has to ask JAX for its default."""

import functools

import jax


def platform() -> str:
  """ "cpu", "gpu" or "tpu": of the mesh in use (`jax.set_mesh`), else of JAX's default devices.

  A mesh may be of devices that are not there, for which a program is compiled only (`attention_zoo.compile`).
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.platform if device else jax.default_backend()


def multiplies_bfloat16() -> bool:
  """Whether products of bfloat16 are no slower than those of float32: everywhere but on CPUs without units for them."""
  return platform() != "cpu" or _cpu_multiplies_bfloat16()


@functools.cache
def _cpu_multiplies_bfloat16(path="/proc/cpuinfo") -> bool:
  """True where the system does not say."""
  try:
    with open(path, encoding="utf-8", errors="replace") as file:
      features = [line.partition(":")[2].split() for line in file if line.startswith(("flags", "Features"))]
  except OSError:
    return True
  return not features or bool({"avx512_bf16", "amx_bf16", "bf16"} & set(features[0]))
