"""What JAX compiles while a test looks, counted by JAX's own events.

The size of a jitted function's cache cannot be relied on for this: JAX bounds what all functions hold together, so that
late in a long run of tests it can be nothing for a function that was just called.
"""

import contextlib

import jax


@contextlib.contextmanager
def compilations():
  """Gives a list that the names of the functions compiled inside, or taken from the cache on disk, are added to."""
  names = []

  def listen(event, seconds, *, fun_name="", **_):
    if event.endswith("backend_compile_duration"):
      names.append(fun_name.removeprefix("jit(").removesuffix(")"))

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield names
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
