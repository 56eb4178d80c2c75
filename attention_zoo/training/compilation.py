"""What compiling costs a user: programs are kept from one process to the next, and a long compilation says so.

Compiled programs are kept in $ATTENTION_ZOO_CACHE, by default ~/.cache/attention_zoo (or under
$XDG_CACHE_HOME), at most 2 GB of them. ATTENTION_ZOO_CACHE=off switches that off; JAX_COMPILATION_CACHE_DIR,
JAX's own variable, goes before it.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import platform
import sys
import threading
import time
import warnings

import jax
from jax.experimental.compilation_cache import compilation_cache

MOST_BYTES = 2 * 10**9
QUIET_SECONDS = 5.0  # A compilation that takes no longer is not worth a word,
AGAIN_SECONDS = 60.0  # and a long one is worth another now and then.

_EVENT = "/jax/core/compile/backend_compile_duration"
_told_by_caller = threading.Event()


def prepare() -> None:
  """Called before anything is compiled; asks for no devices, and may be called again."""
  with contextlib.suppress(OSError, RuntimeError):  # a home that is missing, full or read-only: then nothing is kept
    _keep_programs()
  _listen()


def all_or_none() -> None:
  """Called when several processes have come together: on GPUs they time the candidates for a program in shares, so that
  one that finds it in a cache of its own, and does not compile, would let the others wait for ever."""
  if jax.process_count() > 1 and jax.default_backend() == "gpu" and not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()


def leave_word_to_caller() -> None:
  """For an entry point that says itself what it compiles."""
  _told_by_caller.set()


def cache_root() -> pathlib.Path | None:
  """Where what can be made again is kept for this user; None where the environment says that it is not."""
  place = os.environ.get("ATTENTION_ZOO_CACHE", "")
  if place.lower() in ("off", "0", "false", "no"):
    return None
  caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  return pathlib.Path(place or f"{caches}/attention_zoo").expanduser()


def cache_directory() -> pathlib.Path | None:
  """Where compiled programs are kept; None where they are not."""
  # Programs for a CPU use its instructions: machines that share a home keep theirs apart.
  root = cache_root()
  return root and root / f"programs-{hashlib.sha256(_processor().encode()).hexdigest()[:12]}"


def _processor() -> str:
  with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
    for line in file:
      if line.startswith(("flags", "Features")):
        return line
  return f"{platform.machine()} {platform.processor()}"


def _keep_programs():
  if jax.config.jax_compilation_cache_dir or (folder := cache_directory()) is None:
    return
  folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # whoever can write there decides what runs here
  prune(folder, MOST_BYTES)
  if not os.access(folder, os.W_OK):
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))
  compilation_cache.reset_cache()  # JAX asks once a process whether there is one, perhaps before now
  # A program that cannot be read or written is compiled anew, and nobody has to know.
  warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")


def prune(folder, most: int) -> None:
  """Deletes the files used longest ago until at most `most` bytes are left.

  JAX has a limit of its own (jax_compilation_cache_max_size), which locks the folder at every look, needs a further
  package, and stops working for good once a process was killed while it wrote.
  """
  found = []
  for path in pathlib.Path(folder).iterdir():
    with contextlib.suppress(OSError):  # another process tidies too
      status = path.stat()
      found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
  total = sum(size for _, size, _ in found)
  for _, size, path in sorted(found):
    if total <= most:
      return
    with contextlib.suppress(OSError):
      path.unlink()
    total -= size


@functools.cache  # once a process
def _listen():
  running = {}  # thread -> what tells that its compilation is done

  def begin(event, _, **more):
    if event == _EVENT:
      done = running[threading.get_ident()] = threading.Event()
      threading.Thread(target=_say_until, args=(done,), daemon=True).start()

  def end(event, _, **more):
    if event == _EVENT and (done := running.pop(threading.get_ident(), None)):
      done.set()

  jax.monitoring.register_scalar_listener(begin)
  jax.monitoring.register_event_duration_secs_listener(end)


def _say_until(done):
  """Says on standard error that something is being compiled, once it takes long."""
  start, wait = time.monotonic(), QUIET_SECONDS
  while not done.wait(wait) and not _told_by_caller.is_set():
    seconds, wait = time.monotonic() - start, AGAIN_SECONDS
    with contextlib.suppress(OSError, ValueError):  # standard error may be full, or closed
      print(f"compiling, once for each shape: {seconds:.0f} s so far", file=sys.stderr, flush=True)
