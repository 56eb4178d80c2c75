"""Compiled programs are kept between processes, and a long compilation says so."""

import os
import subprocess
import sys
import threading
import time
import warnings

import jax
import jax.numpy as jnp
import pytest

from attention_zoo.training import aot, compilation

PROGRAM = """
import logging, sys
logging.basicConfig(level=logging.WARNING)
import jax, jax.numpy as jnp
jax.numpy.ones(3) + 1  # something is compiled before
from attention_zoo.training import aot, compilation
compilation.prepare()
compilation.prepare()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
with aot.without_cache():
  jax.jit(lambda x: x * 5)(jnp.ones(3))
hits = []
jax.monitoring.register_event_listener(lambda event, **more: hits.append(event))
jax.jit(lambda x: (x @ x).sum())(jnp.ones((4, 4)))
print("hit" if "/jax/compilation_cache/cache_hits" in hits else "miss", jax.config.jax_compilation_cache_dir)
"""


def run(**environment):
  variables = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
  done = subprocess.run(
    [sys.executable, "-W", "always", "-c", PROGRAM],
    capture_output=True, text=True,
    env=variables | environment | {"TPU_STDERR_LOG_LEVEL": "3", "TPU_MIN_LOG_LEVEL": "3"},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert "cache" not in done.stderr, done.stderr
  return done.stdout.split()


@pytest.mark.slow
def test_the_next_process_finds_the_program(tmp_path):
  first, second = (run(XDG_CACHE_HOME=str(tmp_path)) for _ in range(2))
  assert (first[0], second[0]) == ("miss", "hit")
  assert first[1].startswith(f"{tmp_path}/attention_zoo/programs-")
  (folder,) = (tmp_path / "attention_zoo").iterdir()
  assert folder.stat().st_mode & 0o77 == 0
  for path in folder.glob("*-cache"):
    path.write_bytes(b"damaged")
  assert run(XDG_CACHE_HOME=str(tmp_path))[0] == "miss"  # and says nothing


@pytest.mark.parametrize(
  "program",
  [
    "from attention_zoo import cli; cli.run(lambda: print(jax.config.jax_compilation_cache_dir), required=())",
    "import attention_zoo as zoo\n"
    "try: zoo.load('nowhere')\n"
    "except ValueError: print(jax.config.jax_compilation_cache_dir)",
  ],
  ids=["entry point", "load"],
)
def test_programs_are_kept_without_asking(tmp_path, program):
  names = ("JAX_COMPILATION_CACHE_DIR", "ATTENTION_ZOO_CACHE")
  env = {name: value for name, value in os.environ.items() if name not in names} | {"XDG_CACHE_HOME": str(tmp_path)}
  done = subprocess.run([sys.executable, "-c", f"import jax\n{program}"], capture_output=True, text=True, env=env)
  assert done.stdout.startswith(f"{tmp_path}/attention_zoo/programs-"), done.stderr


def test_where_programs_are_kept(monkeypatch, tmp_path):
  for name in ("ATTENTION_ZOO_CACHE", "XDG_CACHE_HOME"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv("HOME", str(tmp_path))
  assert compilation.cache_directory().parent == tmp_path / ".cache" / "attention_zoo"
  monkeypatch.setenv("ATTENTION_ZOO_CACHE", "~/here")
  assert compilation.cache_directory().parent == tmp_path / "here"
  here = compilation.cache_directory()
  monkeypatch.setattr(compilation, "_processor", lambda: "another")
  assert compilation.cache_directory() != here
  for off in ("off", "0", "OFF"):
    monkeypatch.setenv("ATTENTION_ZOO_CACHE", off)
    assert compilation.cache_directory() is None


def test_what_the_user_has_set_stays(monkeypatch, tmp_path):
  """So does the cache of these tests."""
  monkeypatch.setenv("ATTENTION_ZOO_CACHE", str(tmp_path))
  before = jax.config.jax_compilation_cache_dir
  compilation.prepare()
  assert before and jax.config.jax_compilation_cache_dir == before and not list(tmp_path.iterdir())


def test_a_home_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
  (tmp_path / "file").touch()
  before = jax.config.jax_compilation_cache_dir
  monkeypatch.setenv("ATTENTION_ZOO_CACHE", str(tmp_path / "file" / "cache"))
  try:
    jax.config.update("jax_compilation_cache_dir", None)
    with warnings.catch_warnings():
      warnings.simplefilter("error")
      compilation.prepare()
    assert jax.config.jax_compilation_cache_dir is None
  finally:
    jax.config.update("jax_compilation_cache_dir", before)


def test_the_oldest_go_first(tmp_path):
  for age, name in enumerate("abcd"):
    (tmp_path / name).write_bytes(b"x" * 10)
    os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
  compilation.prune(tmp_path, 40)
  assert len(list(tmp_path.iterdir())) == 4
  compilation.prune(tmp_path, 25)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_long_compilation_says_so(monkeypatch, capfd):
  monkeypatch.setattr(compilation, "QUIET_SECONDS", 0.01)
  monkeypatch.setattr(compilation, "AGAIN_SECONDS", 0.05)
  compilation.prepare()

  def slow(x):
    for i in range(60):
      x = jnp.sin(x @ x) + jnp.cos(x * i) @ x
    return x

  lowered = jax.jit(slow).lower(jnp.ones((7, 7)))
  time.sleep(0.1)
  capfd.readouterr()
  with aot.without_cache():
    lowered.compile()
  said = capfd.readouterr().err
  assert "compiling, once for each shape: 0 s so far" in said
  time.sleep(0.3)
  assert capfd.readouterr().err == "" and threading.active_count() < 50
