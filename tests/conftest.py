"""Eight simulated devices, quick compiles, strict broadcasting: set before JAX is first imported."""

import gc
import os
import pathlib
import signal
import tempfile
import threading

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "attention_zoo_jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("MPLBACKEND", "Agg")

# A shell starts background jobs with Ctrl-C ignored, and nohup ignores the closing of the terminal. What they start
# inherits that: the tests that send these signals would hang or fail.
if threading.current_thread() is threading.main_thread():
  signal.signal(signal.SIGINT, signal.default_int_handler)
  signal.signal(signal.SIGHUP, signal.SIG_DFL)

import jax
import pytest

from tests.small_run import small_config

jax.devices()  # now, and not first in a test that has changed the environment
# Tracing makes many objects that stay: looking for garbage after each 700 new ones would take long.
gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session")
def number_files(tmp_path_factory):
  """A directory of parallel text: numbers in English and German words, one a line."""
  from num2words import num2words

  directory = tmp_path_factory.mktemp("numbers")
  for split, numbers in (("train", range(0, 1200)), ("dev", range(1200, 1220)), ("test", range(1220, 1240))):
    for language in ("en", "de"):
      lines = "".join(num2words(i * 7, lang=language) + "\n" for i in numbers)
      (directory / f"{split}.{language}").write_text(lines)
  return directory


@pytest.fixture(scope="session")
def tiny_run(number_files, tmp_path_factory):
  """The work directory of a finished run with an average."""
  from attention_zoo import tasks
  from attention_zoo.training import average, loop

  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  config = small_config(number_files)
  loop.train(tasks.make(config, workdir), config, workdir, quiet=True)
  average.average(workdir, last=3)
  return workdir
