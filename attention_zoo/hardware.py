"""What a program is traced for: every room may ask here, and none has to ask JAX for its default."""

import jax


def platform() -> str:
  """ "cpu", "gpu" or "tpu": of the mesh in use (`jax.set_mesh`), else of JAX's default devices.

  A mesh may be of devices that are not there, for which a program is compiled only (`attention_zoo.compile`).
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.platform if device else jax.default_backend()
